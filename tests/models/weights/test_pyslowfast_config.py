from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dnl_video.errors import InputError
from dnl_video.models.build import create_model
from dnl_video.models.weights.origins import read_source
from dnl_video.models.weights.pyslowfast_config import refine
from dnl_video.models.weights.source import SourceWeights
from dnl_video.spec import ContextOptions

POOL = [[[1, 2, 2], [1, 2, 2]], [[1, 2, 2], [1, 2, 2]], [[1, 2, 2], [1, 2, 2]], [[1, 2, 2], [1, 2, 2]]]
# Keys and values as `cfg.dump()` writes them.
CONFIG: dict[str, Any] = {
    "DATA": {
        "NUM_FRAMES": 32,
        "SAMPLING_RATE": 2,
        "TEST_CROP_SIZE": 224,
        "MEAN": [0.4, 0.5, 0.6],
        "STD": [0.1, 0.2, 0.3],
        "REVERSE_INPUT_CHANNEL": True,
    },
    "NONLOCAL": {"INSTANTIATION": "dot_product", "POOL": POOL},
    "SLOWFAST": {"ALPHA": 8},
}


def source(architecture: Any, context: Any = "none") -> SourceWeights:
    options = ContextOptions(positions={"res3": [1], "res4": [1]})
    model = create_model(architecture, context=context, stem_channels=8, num_classes=3, context_options=options)
    notes = ("the file's tensors do not tell the similarity; it was guessed", "a sentence that stays")
    return SourceWeights("PySlowFast", {}, {}, spec=model.spec, preprocessing={"sampling": "pyslowfast"}, notes=notes)


def test_the_configuration_has_the_word() -> None:
    found = refine(source("i3d_r50", "nl"), yaml.safe_dump(CONFIG), "file")
    assert found.preprocessing == {
        "sampling": "pyslowfast",
        "num_frames": 32,
        "frame_stride": 2,
        "short_side": 224,
        "crop_size": 224,
        "mean": (0.4, 0.5, 0.6),
        "std": (0.1, 0.2, 0.3),
        "channel_order": "bgr",
    }
    assert found.spec is not None
    assert (found.spec.context_options.attention, found.spec.context_options.pool) == ("dot_product", (1, 2, 2))
    assert found.notes == (
        "a sentence that stays",
        "clips and what tensors do not tell are those of the file's own configuration",
    )


def test_slowfasts_rate() -> None:
    found = refine(source("slowfast_r50"), yaml.safe_dump(CONFIG), "file")
    assert found.spec is not None
    assert (found.spec.slow_alpha, found.spec.context) == (8, "none")


def test_pooling_of_one_is_none_and_other_stages_do_not_count() -> None:
    pool = [POOL[0], [[1, 1, 1], [1, 2, 2]], [[1, 1, 1], [1, 2, 2]], POOL[3]]
    config = {"NONLOCAL": {"INSTANTIATION": "softmax", "POOL": pool}}
    found = refine(source("slow_r50", "nl"), yaml.safe_dump(config), "file").spec
    assert found is not None
    assert (found.context_options.attention, found.context_options.pool) == ("embedded_gaussian", None)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("DATA: [", "file: its configuration (cfg) cannot be read; is the file damaged?"),
        (
            yaml.safe_dump({"NONLOCAL": {"INSTANTIATION": "relu"}}),
            "file: NONLOCAL.INSTANTIATION is 'relu'; known: softmax, dot_product",
        ),
        (
            yaml.safe_dump({"NONLOCAL": {"INSTANTIATION": "softmax", "POOL": [*POOL[:2], [[2, 2, 2]], POOL[3]]}}),
            "file: NONLOCAL.POOL differs between stages; blocks here pool alike in all",
        ),
    ],
)
def test_what_it_refuses(config: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        refine(source("slow_r50", "nl"), config, "file")
    assert str(error.value) == message


def test_it_is_read_from_the_file(tmp_path: Path) -> None:
    model = create_model("slow_r50", stem_channels=8, num_classes=3)
    # The names of PySlowFast's pytorchvideo-built networks.
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"epoch": 1, "model_state": state, "cfg": yaml.safe_dump(CONFIG)}, tmp_path / "a.pyth")
    found = read_source(tmp_path / "a.pyth")
    assert found.preprocessing["num_frames"] == 32
    assert found.state_dict.keys() == model.state_dict().keys()
