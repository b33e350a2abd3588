"""Telling which residual network a set of kernel shapes belongs to, whatever its origin calls them.

The temporal kernels are those of pytorchvideo 0.1.5 (models/hub), which PySlowFast and mmaction2 share: Slow has 3 in
res4 and res5, I3D every second block, C2D none, SlowFast's fast pathway everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from dnl_video.errors import InputError

Shape = tuple[int, ...]
Family = Literal["slow", "c2d", "i3d", "fast"]
# Shapes of a bottleneck's first (1 x 1) and middle (3 x 3) convolution; None where the file has no such tensor.
Bottleneck = tuple["Shape | None", "Shape | None"]

STAGES = ("res2", "res3", "res4", "res5")
_DEPTHS: dict[tuple[int, ...], int] = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101}
# Frames that the stem's kernel spans, then those of a stage's first convolutions, taken in turn.
_STEM: dict[Family, int] = {"slow": 1, "c2d": 1, "i3d": 5, "fast": 5}
_FRAMES: dict[Family, tuple[tuple[int, ...], ...]] = {
    "slow": ((1,), (1,), (3,), (3,)),
    "c2d": ((1,), (1,), (1,), (1,)),
    "i3d": ((3,), (3, 1), (3, 1), (1, 3)),
    "fast": ((3,), (3,), (3,), (3,)),
}
LOADABLE = "only plain Slow, C2D, I3D and SlowFast R50 and R101 can be loaded"


def bottlenecks(shapes: Mapping[str, Shape], stages: Sequence[str], first: str, middle: str) -> list[list[Bottleneck]]:
    """Collect the bottlenecks of each stage.

    Args:
        shapes: Shapes by the file's names.
        stages: What a stage's names start with, up to the block's number: ``layer1.``.
        first: What follows the number in the first convolution's name: ``.conv1.weight``.
        middle: The same for the middle convolution.
    """
    found: list[list[Bottleneck]] = []
    for stage in stages:
        blocks: list[Bottleneck] = []
        while True:
            pair = shapes.get(f"{stage}{len(blocks)}{first}"), shapes.get(f"{stage}{len(blocks)}{middle}")
            if pair == (None, None):
                break
            blocks.append(pair)
        found.append(blocks)
    return found


def depth_of(origin: str, channels: int, stages: Sequence[Sequence[Bottleneck]]) -> int:
    """Return 50 or 101.

    Args:
        origin: How messages name the file's origin.
        channels: Width of the stem, which fixes that of all stages.
        stages: The bottlenecks.

    Raises:
        InputError: The numbers of blocks are another network's, or a block is not a plain bottleneck (ResNeXt, wide,
            depthwise, basic blocks).
    """
    counts = tuple(len(stage) for stage in stages)
    depth = _DEPTHS.get(counts)
    if depth is None:
        raise InputError(f"{origin}: {list(counts)} residual blocks in res2 to res5; {LOADABLE}")
    for i, stage in enumerate(stages):
        for n, (first, middle) in enumerate(stage):
            width = channels * 2**i
            if not first or not middle or not _plain(first, middle, width):
                shown = f"{_shown(first)} and {_shown(middle)}"
                raise InputError(
                    f"{origin}: block {n} of res{i + 2} has kernels {shown}, which is no plain bottleneck of width "
                    f"{width}; {LOADABLE}"
                )
    return depth


def _shown(shape: Shape | None) -> str:
    return "none" if shape is None else "x".join(map(str, shape))


def _plain(first: Shape, middle: Shape, width: int) -> bool:
    return (
        first[0] == width
        and first[-2:] == (1, 1)
        and middle[:2] == (width, width)
        and middle[2:] in ((3, 3), (1, 3, 3))
    )


def family_of(origin: str, stem: Shape, stages: Sequence[Sequence[Bottleneck]]) -> Family:
    """Tell a pathway's family by its temporal kernels.

    Args:
        origin: How messages name the file's origin.
        stem: Shape of the stem's kernel.
        stages: The bottlenecks, checked by `depth_of`.

    Raises:
        InputError: It is none of them.
    """
    counts = [len(stage) for stage in stages]
    kernels = [[first[2] if first and len(first) == 5 else 1 for first, _ in stage] for stage in stages]
    frames = stem[2] if len(stem) == 5 else 1
    for family in _STEM:
        expected = [
            [temporal_kernel(family, part, n) for n in range(count)] for part, count in zip(STAGES, counts, strict=True)
        ]
        if (frames, kernels) == (temporal_kernel(family, "stem"), expected):
            return family
    raise InputError(
        f"{origin}: temporal kernels {frames} (stem) and {', '.join(map(str, kernels))} are no known network's; "
        f"{LOADABLE}"
    )


def temporal_kernel(family: Family, part: str, block: int = 0) -> int:
    """Return the frames that the stem's kernel spans, or that of a block's first convolution."""
    if part == "stem":
        return _STEM[family]
    cycle = _FRAMES[family][STAGES.index(part)]
    return cycle[block % len(cycle)]
