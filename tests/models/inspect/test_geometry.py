from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.create import create_model
from dnl_video.models.inspect.geometry import PlacedBlock, pathway_frames, placed_blocks
from dnl_video.spec import Architecture


def small(architecture: Architecture, **options: Any) -> VideoClassifier:
    sizes = {"num_classes": 2, "stem_channels": 8}
    return create_model(architecture, context="dnl", zero_init_residual=False, **sizes, **options).eval()


def seen_by(model: VideoClassifier, block: PlacedBlock, position: tuple[int, int, int], clip_shape: tuple[int, ...]):
    """First and last input frame, row and column that a position of the block's input depends on."""
    seen = np.zeros(clip_shape, dtype=bool)
    for seed in range(4):
        clip = torch.rand(1, 3, *clip_shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)
        inputs: list[torch.Tensor] = []
        hook = block.block.register_forward_pre_hook(lambda _, x, kept=inputs: kept.append(x[0]))
        model(clip)
        hook.remove()
        (gradient,) = torch.autograd.grad(inputs[0][(0, slice(None), *position)].square().sum(), clip)
        seen |= (gradient[0] != 0).any(dim=0).numpy()
    return [(int(w.min()), int(w.max())) for w in np.nonzero(seen)]


@pytest.mark.parametrize(
    ("architecture", "positions", "position"),
    [
        ("slow_r50", {"res2": [0]}, (1, 10, 12)),
        ("i3d_r50", {"res2": [0]}, (6, 9, 9)),
        ("c2d_r50", {"res3": [0]}, (1, 8, 7)),
    ],
)
def test_centres_are_the_middle_of_receptive_fields(
    architecture: Architecture, positions: dict[str, list[int]], position: tuple[int, int, int]
) -> None:
    """Compared with the gradient of the network, at positions whose receptive field lies inside the clip."""
    torch.manual_seed(0)
    model = small(architecture, positions=positions)
    (block,) = placed_blocks(model)
    extents = seen_by(model, block, position, (12 if architecture == "i3d_r50" else 4, 128, 144))
    for (first, last), spacing, offset, index in zip(extents, block.spacing, block.offset, position, strict=True):
        assert (first + last) / 2 == offset + spacing * index


def test_default_blocks_of_every_family() -> None:
    names = ["res3.1", "res3.3", "res4.1", "res4.3", "res4.5"]
    for architecture, time in (("slow_r50", (1, 0)), ("i3d_r50", (2, 0.5)), ("slowfast_r50", (1, 0))):
        placed = placed_blocks(small(architecture))  # type: ignore[arg-type]
        assert [block.name for block in placed] == names
        assert [block.spacing for block in placed] == [(time[0], 8, 8)] * 2 + [(time[0], 16, 16)] * 3
        assert all(block.offset == (time[1], 0, 0) for block in placed)
    assert placed_blocks(create_model("slow_r50", stem_channels=8, num_classes=2)) == []


def test_frames_of_the_pathway() -> None:
    assert pathway_frames(small("slow_r50"), 5) == [0, 1, 2, 3, 4]
    slowfast = small("slowfast_r50")
    assert pathway_frames(slowfast, 32) == [0, 4, 8, 13, 17, 22, 26, 31]
    slowfast.slow_frames = "strided"
    assert pathway_frames(slowfast, 32) == [0, 4, 8, 12, 16, 20, 24, 28]
