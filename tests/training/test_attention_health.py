"""Attention health of a run: what is logged, printed and shown; it changes no result."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dnl_video.cli.main import main
from dnl_video.data.dataset import ViewDataset
from dnl_video.data.transforms import normalize
from dnl_video.models.inspect import attention_health as module
from dnl_video.models.weights.checkpoint import load_checkpoint
from dnl_video.models.weights.find import find_checkpoint
from dnl_video.training.attention_health import AttentionHealth
from dnl_video.training.run import train
from tests.cli.test_show import show
from tests.conftest import TinyRun
from tests.training.runs import configured, data_of, final_weights, logged

NUMBERS = ("pairwise_entropy", "same_key_share", "unary_entropy")
VIEWS = {"num_clips": 2, "num_crops": 3}


def expected_means(checkpoint: Path, clips: list[torch.Tensor]) -> dict[str, dict[str, float]]:
    """Return the means over clips [T, H, W, 3] of the numbers of each block."""
    network = load_checkpoint(checkpoint).build()
    found = [module.attention_health(network, normalize(clip[None], (0.45,) * 3, (0.225,) * 3)) for clip in clips]
    return {
        block: {name: sum(one[block][name] for one in found) / len(found) for name in NUMBERS} for block in found[0]
    }


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("ema", [None, 0.5])
def test_logged_values_and_equal_results(
    validated: bool, ema: float | None, tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"model": {"dropout": 0.5}, "optim": {"ema_decay": ema}, "validation": VIEWS}
    changes["trainer"] = {"max_epochs": 2}
    changes["data"] = {} if validated else {"val_manifest": None}
    config = configured(tiny, tmp_path / "with", **changes)
    train(config)
    data = data_of(config)
    last = find_checkpoint(tmp_path / "with", last=True)
    if validated:
        views = ViewDataset(data.val.records, config.preprocessing, **VIEWS)
        clips = [views[i].views[3] for i in range(8)]  # type: ignore[index]
    else:
        batch = next(iter(data.precise_bn_dataloader(0)))["clip"]
        clips = list(batch)
    for block, numbers in expected_means(last, clips).items():
        for name, value in numbers.items():
            column = logged(tmp_path / "with", f"attention/{block}/{name}")
            assert len(column) == 2
            assert list(column.values())[-1] == pytest.approx(value, rel=1e-4)
    for name in ("on_validation_batch_start", "measure_training_clips"):
        monkeypatch.setattr(AttentionHealth, name, lambda self, *_: None)
    train(configured(tiny, tmp_path / "without", **changes))
    weights, other = final_weights(tmp_path / "with"), final_weights(tmp_path / "without")
    assert weights.keys() == other.keys()
    assert all(torch.equal(weights[name], other[name]) for name in weights)
    assert not logged(tmp_path / "without", "attention/res3.1/pairwise_entropy")


def test_a_long_list_is_measured_at_eight_places(monkeypatch: pytest.MonkeyPatch) -> None:
    callback, measured = AttentionHealth(), []
    monkeypatch.setattr(callback, "_measure", lambda *_: measured.append([int(clip) for clip in callback._clips]))
    data = SimpleNamespace(val=SimpleNamespace(records=range(100)))
    trainer: Any = SimpleNamespace(world_size=2, datamodule=data, num_val_batches=[13])
    for _ in range(2):
        for batch in range(13):
            # The first of two processes has the even videos; 24 cannot be read.
            items = [
                SimpleNamespace(index=i, error="bad" if i == 24 else None, views=torch.tensor([0, i, 0]))
                for i in range(8 * batch, min(8 * batch + 8, 100), 2)
            ]
            callback.on_validation_batch_start(trainer, Any, items, batch)  # type: ignore[arg-type]
    assert measured == 2 * [[0, 12, 36, 50, 62, 74, 86]]


def test_collapsed_attention_is_noted_and_shown(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "COLLAPSED_ENTROPY", 0.9999)
    train(configured(tiny, tmp_path / "run"))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert "  attention collapsed in " in line
    assert "of 5 blocks: entropy 1.00, " in line
    facts = show(capsys, tmp_path / "run")
    assert list(facts["attention"]) == ["res3.1", "res3.3", "res4.1", "res4.3", "res4.5"]
    assert facts["attention"]["res4.5"].keys() == {*NUMBERS}
    value = facts["attention"]["res3.1"]["same_key_share"]
    assert value == pytest.approx(logged(tmp_path / "run", "attention/res3.1/same_key_share").popitem()[1])
    assert main(["show", str(tmp_path / "run")]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["res3.1"])
    assert row.split()[2] == f"{value:.4g}"


@pytest.mark.parametrize(("context", "numbers"), [("gc", {"unary_entropy"}), ("none", set())])
def test_only_the_maps_of_the_context_are_logged(
    context: str, numbers: set[str], tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(configured(tiny, tmp_path / "run", model={"context": context}))
    for name in NUMBERS:
        assert len(logged(tmp_path / "run", f"attention/res3.1/{name}")) == (name in numbers)
    capsys.readouterr()
    assert main(["show", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert ("unary_entropy" in out) == bool(numbers)
