"""Settings in a checkpoint's `cfg`, which its tensors do not show."""

from __future__ import annotations

import pytest
import torch
import yaml

from dnl_video.errors import InputError
from dnl_video.models.weights import pyslowfast
from dnl_video.spec import Preprocessing

from .foreign import probabilities_of
from .pyslowfast_net import NONLOCAL, draw, probabilities, shapes


def config(**sections):
    """SLOWFAST_NLN_8x8_R50.yaml's sections that matter, with changes."""
    made = {
        "MODEL": {"ARCH": "slowfast", "DROPOUT_RATE": 0.4},
        "RESNET": {"STRIDE_1X1": False, "SPATIAL_STRIDES": [[1, 1], [2, 2], [2, 2], [2, 2]]},
        "SLOWFAST": {"ALPHA": 4},
        "NONLOCAL": {
            "LOCATION": [[[], []], [[1, 3], []], [[1, 3, 5], []], [[], []]],
            "GROUP": [[1, 1]] * 4,
            "INSTANTIATION": "softmax",
            "POOL": [[[1, 2, 2], [1, 2, 2]]] * 4,
        },
        "DATA": {"NUM_FRAMES": 32, "SAMPLING_RATE": 2, "TEST_CROP_SIZE": 224, "TARGET_FPS": 30},
    }
    for section, changes in sections.items():
        made[section] = made.get(section, {}) | changes
    return yaml.safe_dump(made)


@torch.no_grad()
def test_alpha_and_similarity_come_from_the_cfg():
    """By convention a fusion kernel of 5 means alpha 8, and SlowFast's blocks have dot products."""
    tensors = draw(shapes("slowfast", fusion_kernel=5, nonlocal_blocks=NONLOCAL))
    weights = pyslowfast.convert(tensors, config=config())
    assert (weights.spec.slow_alpha, weights.spec.dropout) == (4, 0.4)
    assert weights.notes == ()
    clip = torch.randn(1, 3, 16, 64, 64, dtype=torch.float64)
    expected = probabilities(tensors, clip, "slowfast", alpha=4, attention="softmax")
    torch.testing.assert_close(probabilities_of(weights, clip), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("arch", "architecture"), [("c2d", "c2d_r50"), ("c2d_nopool", "slow_r50")])
@torch.no_grad()
def test_pooling_over_time_comes_from_the_cfg(arch, architecture):
    tensors = draw(shapes(arch))
    weights = pyslowfast.convert(tensors, config=config(MODEL={"ARCH": arch}, NONLOCAL={"LOCATION": [[[]]] * 4}))
    assert weights.spec.architecture == architecture
    clip = torch.randn(1, 3, 4, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(
        probabilities_of(weights, clip), probabilities(tensors, clip, arch), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(
    ("arch", "asked", "message"),
    [
        ("c2d", "slow_r50", "are a c2d ResNet-50's and do not fit slow_r50; they fit c2d_r50, i3d_r50"),
        ("c2d_nopool", "c2d_r50", "are a slow ResNet-50's and do not fit c2d_r50; they fit slow_r50"),
    ],
)
def test_networks_with_other_pooling_are_refused(arch, asked, message):
    with pytest.raises(InputError, match=message):
        pyslowfast.convert(draw(shapes(arch)), architecture=asked, config=config(MODEL={"ARCH": arch}))


def test_preprocessing_comes_from_the_cfg():
    data = {"MEAN": [0.1, 0.2, 0.3], "STD": [0.4, 0.5, 0.6], "REVERSE_INPUT_CHANNEL": True}
    weights = pyslowfast.convert(draw(shapes("slowfast")), config=config(DATA=data))
    assert Preprocessing(**weights.preprocessing) == Preprocessing(
        num_frames=32,
        frame_stride=2,
        target_fps=30.0,
        sampling="pyslowfast",
        short_side=224,
        crop_size=224,
        mean=(0.3, 0.2, 0.1),  # of the network's channels: they are normalised, then reversed
        std=(0.6, 0.5, 0.4),
        channel_order="bgr",
        antialias=False,
    )


def test_frame_settings_of_image_networks_are_ignored():
    tensors = {n: t[:, :, 0] if t.dim() == 5 else t for n, t in draw(shapes("c2d")).items()}
    text = config(MODEL={"ARCH": "2d"}, DATA={"NUM_FRAMES": 1, "MEAN": [0.1, 0.2, 0.3]})
    weights = pyslowfast.convert(tensors, architecture="i3d_r50", config=text)
    assert weights.preprocessing == {"mean": (0.1, 0.2, 0.3), "std": (0.229, 0.224, 0.225), "channel_order": "rgb"}


def test_pool_of_non_local_blocks_comes_from_the_cfg():
    tensors = draw(shapes("slowfast", nonlocal_blocks=NONLOCAL))
    weights = pyslowfast.convert(tensors, config=config(NONLOCAL={"POOL": [[[1, 1, 1], [1, 1, 1]]] * 4}))
    assert weights.spec.context_options.pool == (1, 1, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MODEL": {"ARCH": "i3d_nopool"}}, "trained with MODEL.ARCH i3d_nopool; networks here have no such setting"),
        ({"DETECTION": {"ENABLE": True}}, "trained with DETECTION.ENABLE True"),
        ({"RESNET": {"STRIDE_1X1": True}}, "trained with RESNET.STRIDE_1X1 True"),
        (
            {"RESNET": {"SPATIAL_STRIDES": [[1], [2], [2], [1]]}},
            r"RESNET.SPATIAL_STRIDES \[\[1\], \[2\], \[2\], \[1\]\]",
        ),
        ({"RESNET": {"SPATIAL_DILATIONS": [[1], [1], [1], [2]]}}, r"RESNET.SPATIAL_DILATIONS \[\[1\], "),
        ({"NONLOCAL": {"GROUP": [[1, 1], [4, 1], [1, 1], [1, 1]]}}, r"NONLOCAL.GROUP \[4, 1, 1, 1\]"),
        ({"NONLOCAL": {"POOL": [[[1, 2, 2]], [[1, 2, 2]], [[2, 2, 2]], [[1, 2, 2]]]}}, "pool alike in all stages"),
    ],
)
def test_other_networks_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        pyslowfast.convert(draw(shapes("slowfast")), config=config(**changes))


# The last one stores a list of 2 ** 60 numbers by references: printing it would never end.
TEXTS = ["MODEL: [", "just text", "MODEL: 3", "!!python/object/apply:os.getcwd []", "[" * 20000]
TEXTS.append(
    "\n".join(["a0: &a0 [1, 1]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))])
    + "\nRESNET: {SPATIAL_STRIDES: *a59}"
)


@pytest.mark.parametrize("text", TEXTS, ids=["yaml", "text", "number", "object", "deep", "wide"])
def test_text_that_is_not_a_configuration_is_refused(text):
    with pytest.raises(InputError, match="have a 'cfg' that is not their configuration; save the state dict alone"):
        pyslowfast.convert(draw(shapes("slow")), config=text)
