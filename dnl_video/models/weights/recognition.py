"""Recognises a network by the shapes of its tensors: family, depth, lateral connections and context blocks.

The temporal kernels are those of pytorchvideo 0.1.5 (models/hub), which PySlowFast and mmaction2 share: Slow has 3 in
res4 and res5, I3D in every second block, C2D none, SlowFast's fast pathway in every block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from dnl_video.errors import InputError
from dnl_video.models.weights.places import Place
from dnl_video.spec import Architecture, Context, ContextOptions, Output, Similarity

Shape = tuple[int, ...]
Shapes = Mapping[Place, Shape]

STAGES = ("res2", "res3", "res4", "res5")
LOADABLE = "only plain Slow, C2D, I3D and SlowFast R50 and R101 can be loaded"
_DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101}
_FIRST = re.compile(r"res_blocks\.(\d+)\.branch2\.conv_a\.weight")
_SINGLE = ("c2d", "slow", "i3d")
# Temporal kernel sizes: of the stem, then of the first convolutions in a stage's blocks, cyclically.
_FRAMES: dict[str, dict[str, tuple[int, ...]]] = {
    "c2d": {"stem": (1,), "res2": (1,), "res3": (1,), "res4": (1,), "res5": (1,)},
    "slow": {"stem": (1,), "res2": (1,), "res3": (1,), "res4": (3,), "res5": (3,)},
    "i3d": {"stem": (5,), "res2": (3,), "res3": (3, 1), "res4": (3, 1), "res5": (1, 3)},
    "fast": {"stem": (5,), "res2": (3,), "res3": (3,), "res4": (3,), "res5": (3,)},
}


class Network(NamedTuple):
    """A recognised network."""

    families: tuple[str, ...]  # that the kernels fit, exact fits first; all with one pathway for an image network
    depth: int  # 50 or 101
    width: int  # channels of the stem
    image: bool  # whether kernels are 2-D
    classes: int | None  # number of outputs; None without a classifier
    fusion: dict[str, Any]  # SlowFast's fields of `ModelSpec`: fusion_kernel and fusion

    def architecture(self, family: str | None = None) -> Architecture:
        """Return the name of the network, by default of the best family."""
        name: Any = f"{family or self.families[0]}_r{self.depth}"
        return name


def recognise(origin: str, shapes: Shapes, *, pad: bool = False) -> Network:
    """Recognise the network that tensors at these places belong to.

    Args:
        origin: The origin's name, for messages.
        shapes: Shape of the tensor at each place.
        pad: Accept families whose temporal kernels are longer: zeros at both ends change no output.

    Raises:
        InputError: It is not a network that this package builds.
    """
    stem = shapes.get(Place("stem", 0, "conv.weight"))
    if not stem:
        raise InputError(f"{origin} weights have no stem; give a file with a whole network")
    for place in shapes:
        if place.pathway > 1 or (place.pathway and "context_blocks" in place.tail):
            what = "non-local blocks on the fast pathway" if "context_blocks" in place.tail else "a third pathway"
            raise InputError(f"{origin} weights have {what}; networks here have none")
    pathways = sorted({place.pathway for place in shapes})
    depths = [_depth(origin, shapes, pathway) for pathway in pathways]
    if len(set(depths)) > 1:
        raise InputError(f"{origin} weights have pathways of depths {depths}; networks here have one depth")
    image, two = len(stem) == 4, len(pathways) == 2
    classifier = shapes.get(Place("head", 0, "proj.weight"))
    return Network(
        families=_SINGLE if image else _families(origin, shapes, two, pad),
        depth=depths[0],
        width=stem[0],
        image=image,
        classes=None if classifier is None else classifier[0],
        fusion=_fusion(origin, shapes) if two else {},
    )


def kernel_frames(family: str, place: Place) -> int | None:
    """Return the temporal size of a family's kernel at a place; None for tensors that never span several frames."""
    kind = "fast" if place.pathway else "slow" if family == "slowfast" else family
    if place.part in STAGES and (found := _FIRST.fullmatch(place.tail)):
        cycle = _FRAMES[kind][place.part]
        return cycle[int(found[1]) % len(cycle)]
    return _FRAMES[kind]["stem"][0] if (place.part, place.tail) == ("stem", "conv.weight") else None


def temporal_kernels(shapes: Shapes) -> dict[Place, int]:
    """Return the temporal size of each kernel that may span several frames."""
    return {place: shape[2] for place, shape in shapes.items() if kernel_frames("slow", place) is not None}


def _families(origin: str, shapes: Shapes, two: bool, pad: bool) -> tuple[str, ...]:
    """Return the families that fit, exact fits first."""
    kernels = temporal_kernels(shapes)
    exact, padded = [], []
    for family in ("slowfast",) if two else _SINGLE:
        spare = [(kernel_frames(family, place) or 0) - frames for place, frames in kernels.items()]
        if not any(spare):
            exact.append(family)
        elif pad and all(n >= 0 and n % 2 == 0 for n in spare):
            padded.append(family)
    if not exact and not padded:
        wrong = (place.pathway for place, n in kernels.items() if n != kernel_frames("slowfast", place))
        shown = next(wrong) if two else 0
        stem, *rest = (
            [n for place, n in kernels.items() if (place.part, place.pathway) == (part, shown)]
            for part in ("stem", *STAGES)
        )
        raise InputError(
            f"{origin}: temporal kernels {stem[0]} (stem) and {', '.join(map(str, rest))} are no known network's; "
            f"{LOADABLE}"
        )
    return (*exact, *padded)


def _depth(origin: str, shapes: Shapes, pathway: int) -> int:
    """Return 50 or 101; refuse other numbers of blocks, and blocks that are no plain bottlenecks."""
    stem = shapes.get(Place("stem", pathway, "conv.weight")) or (0,)
    blocks: list[list[list[Shape | None]]] = []
    for stage in STAGES:
        blocks.append([])
        kernel = "res_blocks.{}.branch2.conv_{}.weight"
        while any(pair := [shapes.get(Place(stage, pathway, kernel.format(len(blocks[-1]), c))) for c in "ab"]):
            blocks[-1].append(pair)
    counts = tuple(len(stage) for stage in blocks)
    if counts not in _DEPTHS:
        raise InputError(f"{origin}: {list(counts)} residual blocks in res2 to res5; {LOADABLE}")
    for i, stage_blocks in enumerate(blocks):
        width = stem[0] * 2**i
        for n, (first, middle) in enumerate(stage_blocks):
            if not first or not middle or not _is_plain(first, middle, width):
                shown = " and ".join("x".join(map(str, shape)) if shape else "none" for shape in (first, middle))
                raise InputError(
                    f"{origin}: block {n} of {STAGES[i]} has kernels {shown}, which is no plain bottleneck of width "
                    f"{width}; {LOADABLE}"
                )
    return _DEPTHS[counts]


def _is_plain(first: Shape, middle: Shape, width: int) -> bool:
    """Return whether kernels are those of a bottleneck, and not of a ResNeXt, wide, depthwise or basic block."""
    pointwise = first[0] == width and first[-2:] == (1, 1)
    return pointwise and middle[:2] == (width, width) and middle[2:] in ((3, 3), (1, 3, 3))


def _fusion(origin: str, shapes: Shapes) -> dict[str, Any]:
    slow, fast = (shapes[Place("stem", pathway, "conv.weight")][0] for pathway in (0, 1))
    fused = shapes.get(Place("fuse1", 0, "conv_fast_to_slow.weight"), (0, 0, 0))
    if slow != 8 * fast or len(fused) < 3 or fused[0] != 2 * fast:
        raise InputError(
            f"{origin} weights have {slow} slow, {fast} fast and {fused[0]} fused channels behind the stem; SlowFast "
            "networks here have an eighth and a quarter of the slow ones"
        )
    normalised = Place("fuse1", 0, "norm.weight") in shapes
    return {"fusion_kernel": fused[2], "fusion": "conv_bn_relu" if normalised else "conv"}


class Blocks(NamedTuple):
    """Context blocks: their kind, the options that shapes show, and the shapes in one block by tensor name."""

    context: Context
    options: ContextOptions
    parts: dict[str, Shape]


def context_blocks(origin: str, shapes: Shapes) -> Blocks:
    """Recognise context blocks; options that the tensors do not show keep their defaults.

    Raises:
        InputError: They lie in a part that takes none.
    """
    positions: dict[str, set[int]] = {}
    parts: dict[str, Shape] = {}
    for place, shape in shapes.items():
        found = re.fullmatch(r"context_blocks\.(\d+)\.(.+)", place.tail)
        if found is None:
            continue
        if place.part not in STAGES:
            raise InputError(f"{origin} weights have context blocks in {place.part}; only res2 to res5 take them")
        positions.setdefault(place.part, set()).add(int(found[1]))
        parts.setdefault(found[2], shape)
    where = {stage: sorted(positions[stage]) for stage in sorted(positions)}
    if not where:
        return Blocks("none", ContextOptions(), parts)
    if not {"value.weight", "reduce.weight"} & parts.keys():
        raise InputError(f"{origin} weights have context blocks without values; give a complete file")
    if "mask.weight" in parts:
        if "value.weight" in parts:
            return Blocks("snl", ContextOptions(positions=where), parts)
        width, channels = parts["reduce.weight"][:2]
        return Blocks("gc", ContextOptions(positions=where, gc_ratio=width / channels), parts)
    context: Context = "nl"
    attention: Similarity = "embedded_gaussian"
    if "unary.weight" in parts:
        context = "dnl" if "query.weight" in parts else "unary"
    elif "concat.weight" in parts:
        attention = "concatenation"
    elif "query.weight" not in parts:
        attention = "gaussian"
    elif "query.bias" not in parts:
        context = "pairwise"  # without metadata a pairwise block is a non-local one without biases
    inner, channels = parts.get("query.weight", parts["value.weight"])[:2]
    output: Output = "conv_bn" if "norm.weight" in parts else "conv" if "out.weight" in parts else "gamma"
    ratio = inner / channels
    return Blocks(context, ContextOptions(where, ratio, attention=attention, output=output), parts)
