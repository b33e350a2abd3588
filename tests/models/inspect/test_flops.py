"""Counts compared with arithmetic by hand and published tables."""

from __future__ import annotations

import math

import pytest

from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.create import create_model
from dnl_video.models.inspect.flops import count
from dnl_video.spec import Architecture, Context


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


def cost_at_256(model: VideoClassifier, frames: int, full_size: bool) -> tuple[float, float]:
    """Count a network's millions of parameters and its GMACs for 256 x 256; at the small size by counting small clips.

    Convolutions take as many for each position and attention as many for each pair, so that counts at three sizes
    give them at any. The dense head, which sees 4 windows instead of one, adds too little to be seen in the tables.
    """
    if full_size:
        cost = count(model, 1, 3, frames, 256, 256)
        return cost.params / 1e6, cost.macs / 1e9
    costs = {(side // 32) ** 2: count(model, 1, 3, frames, side, side) for side in (32, 64, 96)}
    positions = (256 // 32) ** 2
    macs = sum(  # Lagrange's polynomial
        cost.macs * math.prod((positions - other) / (at - other) for other in costs if other != at)
        for at, cost in costs.items()
    )
    return costs[1].params / 1e6, macs / 1e9


@pytest.mark.full
@pytest.mark.parametrize(
    ("architecture", "frames", "params", "gmacs"),
    [("i3d_r50", 8, 28.04, 37.5), ("slow_r50", 8, 32.45, 54.5), ("slowfast_r50", 32, 34.57, 65.7)],
)
def test_published_backbones(
    architecture: Architecture, frames: int, params: float, gmacs: float, full_size: bool
) -> None:
    found = cost_at_256(create_model(architecture), frames, full_size)
    assert found[0] == pytest.approx(params, abs=0.01)
    assert found[1] == pytest.approx(gmacs, rel=0.01)


@pytest.mark.full
@pytest.mark.parametrize(("pool", "gmacs"), [((1, 2, 2), 88.61), (None, 157.86)])
def test_slow_r50_with_non_local_blocks(pool: tuple[int, int, int] | None, gmacs: float, full_size: bool) -> None:
    model = create_model("slow_r50", context="nl", pool=pool)
    assert cost_at_256(model, 8, full_size)[1] == pytest.approx(gmacs, abs=0.01)


@pytest.mark.full
def test_mmaction2_slowonly_with_five_blocks(full_size: bool) -> None:
    # 39.81M and 96.66 GMACs: keys and values pooled after their convolutions.
    model = create_model("slow_r50", context="nl", pool_order="after")
    params, gmacs = cost_at_256(model, 8, full_size)
    assert round(params, 2) == 39.81
    assert gmacs == pytest.approx(96.66, abs=0.01)


@pytest.mark.full
@pytest.mark.parametrize(("context", "params", "gmacs"), [("none", 28.0, 43.5), ("nl", 35.4, 59.3)])
def test_mmaction2_i3d_of_32_frames(context: Context, params: float, gmacs: float, full_size: bool) -> None:
    # The stem and its pooling each take every second frame.
    model = create_model("i3d_r50", context=context, stem_strides=(2, 2), pool_order="after")
    found = cost_at_256(model, 32, full_size)
    assert (round(found[0], 1), round(found[1], 1)) == (params, gmacs)
