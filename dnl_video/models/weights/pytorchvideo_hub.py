"""pytorchvideo's hub files, whose names are ours, with or without context blocks beside them.

Source: pytorchvideo 0.1.5, models/hub/resnet.py and models/hub/slowfast.py; clip settings from the 8x8 recipes that its
model zoo names (docs/source/model_zoo.md) and its hub tutorials: short side and crop 256, frames by a truncated
linspace over T·stride/30 seconds, which is PySlowFast's rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.weights.families import LOADABLE, bottlenecks, depth_of, family_of
from dnl_video.models.weights.places import TranslatedWeights, block_prefixes
from dnl_video.spec import Architecture, Context, ContextOptions, ModelSpec, Output

_ORIGIN = "pytorchvideo hub"
_PREPROCESSING = {
    "mean": (0.45, 0.45, 0.45),
    "std": (0.225, 0.225, 0.225),
    "channel_order": "rgb",
    "sampling": "pyslowfast",
    "short_side": 256,
    "crop_size": 256,
}
# Names that only other families of the hub have.
_OTHERS = {
    "blocks.0.conv.conv_t.weight": "X3D",
    "patch_embed.patch_model.weight": "MViT",
    "blocks.1.res_blocks.0.branch2.conv_b.conv_t.weight": "R(2+1)D",
}
_CONTEXT = re.compile(r"(.+)\.context_blocks\.(\d+)\.(.+)")


def matches(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether these are names of a network of pytorchvideo's hub, those that cannot be loaded included."""
    stems = ("blocks.0.conv.weight", "blocks.0.multipathway_blocks.0.conv.weight")
    return any(len(shapes.get(name, ())) == 5 for name in (*stems, *_OTHERS))


def convert(tensors: Mapping[str, Tensor], *, architecture: Architecture | None = None) -> TranslatedWeights:
    """Recognise the network; no tensor changes its name.

    Args:
        tensors: The file's tensors, those under ``model_state`` in hub files.
        architecture: Without effect: the tensors tell.

    Raises:
        InputError: It is another network of the hub: X3D, MViT, CSN, R(2+1)D, SlowFast 16x8 R101-50-50.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, family in _OTHERS.items():
        if name in shapes:
            raise InputError(f"{_ORIGIN}: this is {family}; {LOADABLE}")
    found, channels = _recognise(shapes)
    fields: dict[str, Any] = {}
    notes: list[str] = []
    if found.startswith("slowfast"):
        fields["fusion_kernel"] = shapes["blocks.0.multipathway_fusion.conv_fast_to_slow.weight"][2]
        fields["fusion"] = "conv_bn_relu" if "blocks.0.multipathway_fusion.norm.weight" in shapes else "conv"
        notes.append("slow_alpha 4 is that of the hub's 8x8 networks; the tensors do not tell")
    head = f"{block_prefixes(found)['head']}.proj.weight"
    if head in shapes:
        fields["num_classes"] = shapes[head][0]
    else:
        notes.append(f"the file has no classifier `{head}`")
    context, options, said = _context(shapes, found)
    spec = ModelSpec(
        architecture=found,
        context=context,
        head="dense_logits",
        stem_channels=channels,
        context_options=options,
        **fields,
    )
    return TranslatedWeights(
        origin=_ORIGIN,
        state_dict=dict(tensors),
        source_names={name: name for name in tensors},
        spec=spec,
        preprocessing=_PREPROCESSING | _clip(found),
        notes=(*notes, *said, "clips are the hub's published 8x8 ones"),
    )


def _clip(architecture: Architecture) -> dict[str, int]:
    """Return the published 8x8 clip; SlowFast's fast pathway sees four times the frames."""
    frames = 32 if architecture.startswith("slowfast") else 8
    return {"num_frames": frames, "frame_stride": 64 // frames}


def _recognise(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Architecture, int]:
    """Return the network's name and the width of its stem."""
    candidates: tuple[tuple[str, Architecture], ...] = (
        ("slowfast", "slowfast_r50"),
        ("pooled", "i3d_r50"),
        ("plain", "slow_r50"),
    )
    # Which blocks hold stages tells SlowFast, networks that pool behind res2 (I3D, C2D), and the rest apart.
    kind, like = next(
        ((kind, like) for kind, like in candidates if _has_stages(shapes, like)), (None, candidates[-1][1])
    )
    stem, stages = _pathway(shapes, like, 0)
    depth = depth_of(_ORIGIN, stem[0], stages)
    family = family_of(_ORIGIN, stem, stages)
    expected = {"slowfast": ("slow",), "pooled": ("i3d", "c2d"), "plain": ("slow",)}
    fits = kind is not None and family in expected[kind]
    if kind == "slowfast":
        fast, fast_stages = _pathway(shapes, like, 1)
        fits = (
            fits
            and fast[0] * 8 == stem[0]
            and depth_of(_ORIGIN, fast[0], fast_stages) == depth
            and family_of(_ORIGIN, fast, fast_stages) == "fast"
        )
    if not fits:
        raise InputError(
            f"{_ORIGIN}: the temporal kernels of {family} in a network {'with' if kind == 'pooled' else 'without'} a "
            f"pool behind res2; {LOADABLE}"
        )
    name: Any = f"{'slowfast' if kind == 'slowfast' else family}_r{depth}"
    return name, stem[0]


def _has_stages(shapes: Mapping[str, tuple[int, ...]], like: Architecture) -> bool:
    prefixes = block_prefixes(like)
    return all(
        f"{prefixes[stage]}.res_blocks.0.branch2.conv_a.weight" in shapes for stage in ("res2", "res3", "res4", "res5")
    )


def _pathway(shapes: Mapping[str, tuple[int, ...]], like: Architecture, pathway: int) -> tuple[tuple[int, ...], Any]:
    prefixes = block_prefixes(like, pathway)
    stem = shapes.get(f"{prefixes['stem']}.conv.weight", ())
    stages = bottlenecks(
        shapes,
        [f"{prefixes[stage]}.res_blocks." for stage in ("res2", "res3", "res4", "res5")],
        ".branch2.conv_a.weight",
        ".branch2.conv_b.weight",
    )
    if not stem:
        raise InputError(f"{_ORIGIN}: no {prefixes['stem']}.conv.weight; {LOADABLE}")
    return stem, stages


def _context(
    shapes: Mapping[str, tuple[int, ...]], architecture: Architecture
) -> tuple[Context, ContextOptions, list[str]]:
    """Tell which context blocks the file holds from their tensors; options that leave no trace keep their defaults."""
    stages = {prefix: part for part, prefix in block_prefixes(architecture).items() if part.startswith("res")}
    positions: dict[str, list[int]] = {}
    parts: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if not (found := _CONTEXT.fullmatch(name)):
            continue
        prefix, block, part = found.groups()
        if prefix not in stages:
            raise InputError(f"{_ORIGIN}: {name} lies in no stage that takes context blocks; {LOADABLE}")
        blocks = positions.setdefault(stages[prefix], [])
        if int(block) not in blocks:
            blocks.append(int(block))
        parts.setdefault(part, shape)
    if not positions:
        return "none", ContextOptions(), []
    found_positions = {stage: sorted(blocks) for stage, blocks in sorted(positions.items())}
    if "mask.weight" in parts:
        if "value.weight" in parts:
            return "snl", ContextOptions(positions=found_positions), []
        width, channels = parts["reduce.weight"]
        return "gc", ContextOptions(positions=found_positions, gc_ratio=width / channels), []
    context, attention = _attention_kind(parts)
    channels = parts["value.weight"][1]
    inner = parts["query.weight"][0] / channels if "query.weight" in parts else 0.5
    output: Output = "conv_bn" if "norm.weight" in parts else "conv" if "out.weight" in parts else "gamma"
    biased = next((f"{part}.bias" in parts for part in ("query", "unary") if f"{part}.weight" in parts), None)
    options = ContextOptions(
        positions=found_positions,
        inner_ratio=inner,
        value_ratio=parts["value.weight"][0] / channels,
        attention=attention,
        learned_temperature="temperature.log" in parts,
        bias=biased,
        output=output,
    )
    note = (
        f"context blocks are taken for {context}; their pooling, scale and temperature leave no trace and are the "
        "defaults"
    )
    return context, options, [note]


def _attention_kind(parts: Mapping[str, tuple[int, ...]]) -> tuple[Context, Any]:
    if "unary.weight" in parts:
        return ("dnl" if "query.weight" in parts else "unary"), "embedded_gaussian"
    if "concat.weight" in parts:
        return "nl", "concatenation"
    if "query.weight" not in parts:
        return "nl", "gaussian"
    # Without metadata a pairwise block is a non-local one without biases.
    return ("nl" if "query.bias" in parts else "pairwise"), "embedded_gaussian"
