"""Counts against arithmetic by hand and published tables."""

from __future__ import annotations

import pytest

from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.build import create_model
from dnl_video.models.flops import count
from dnl_video.spec import Context, ContextOptions


def test_a_block_by_hand() -> None:
    c, d, n, m = 16, 8, 3 * 6 * 8, 3 * 3 * 4
    projections = n * c * d + 2 * m * c * d + n * d * c
    norm = 2 * n * c
    pairwise = 2 * n * m * d
    # Besides: the keys' mean through their projection.
    assert count(NonLocalBlock3d(c), 1, c, 3, 6, 8).macs == projections + pairwise + norm + c * d
    # Besides: the means of queries and keys through their projections, the saliency, and its weighted sum.
    extra = 2 * c * d + m * c + m * d
    assert count(DisentangledNonLocalBlock3d(c), 1, c, 3, 6, 8).macs == projections + pairwise + norm + extra


@pytest.mark.parametrize(
    ("architecture", "frames", "params", "gmacs"),
    [("i3d_r50", 8, 28.04, 37.5), ("slow_r50", 8, 32.45, 54.5), ("slowfast_r50", 32, 34.57, 65.7)],
)
def test_published_backbones(architecture: str, frames: int, params: float, gmacs: float) -> None:
    cost = count(create_model(architecture), 1, 3, frames, 256, 256)
    assert cost.params / 1e6 == pytest.approx(params, abs=0.01)
    assert cost.macs / 1e9 == pytest.approx(gmacs, rel=0.01)


@pytest.mark.parametrize(("pool", "gmacs"), [((1, 2, 2), 88.61), (None, 157.86)])
def test_what_the_readme_states(pool: tuple[int, int, int] | None, gmacs: float) -> None:
    model = create_model("slow_r50", context="nl", context_options=ContextOptions(pool=pool))
    assert count(model, 1, 3, 8, 256, 256).macs / 1e9 == pytest.approx(gmacs, abs=0.01)


def test_mmaction2_slowonly_with_five_blocks() -> None:
    # 39.81M and 96.66 GMACs: keys and values pooled after their convolutions.
    cost = count(
        create_model("slow_r50", context="nl", context_options=ContextOptions(pool_order="after")), 1, 3, 8, 256, 256
    )
    assert round(cost.params / 1e6, 2) == 39.81
    assert cost.macs / 1e9 == pytest.approx(96.66, abs=0.01)


@pytest.mark.parametrize(("context", "params", "gmacs"), [("none", 28.0, 43.5), ("nl", 35.4, 59.3)])
def test_mmaction2_i3d_of_32_frames(context: Context, params: float, gmacs: float) -> None:
    # The stem and its pooling each take every second frame.
    options = ContextOptions(pool_order="after")
    model = create_model("i3d_r50", context=context, stem_strides=(2, 2), context_options=options)
    cost = count(model, 1, 3, 32, 256, 256)
    assert round(cost.params / 1e6, 1) == params
    assert round(cost.macs / 1e9, 1) == gmacs
