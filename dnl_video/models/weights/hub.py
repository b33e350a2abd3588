"""pytorchvideo's hub files, with or without context blocks; their tensor names are ours.

Source: pytorchvideo 0.1.5, models/hub/resnet.py and models/hub/slowfast.py. Clip settings are those of the 8x8 recipes
of its model zoo (docs/source/model_zoo.md) and its hub tutorials: short side and crop 256, resized without antialiasing
(transforms/functional.py, `short_side_scale`), frames by a truncated linspace over T·stride/30 seconds, which is
PySlowFast's rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.weights.places import Place, TranslatedWeights, at_places, block_prefixes
from dnl_video.models.weights.recognition import LOADABLE, context_blocks, recognise
from dnl_video.spec import Architecture, ModelSpec

_ORIGIN = "pytorchvideo hub"
_PREPROCESSING = {
    "mean": (0.45, 0.45, 0.45),
    "std": (0.225, 0.225, 0.225),
    "channel_order": "rgb",
    "sampling": "pyslowfast",
    "short_side": 256,
    "crop_size": 256,
    "antialias": False,
}
# Tensor names that only other families of the hub have.
_OTHERS = {
    "blocks.0.conv.conv_t.weight": "X3D",
    "patch_embed.patch_model.weight": "MViT",
    "blocks.1.res_blocks.0.branch2.conv_b.conv_t.weight": "R(2+1)D",
}
_NAME = re.compile(r"(blocks\.\d+(?:\.multipathway_blocks\.\d|\.multipathway_fusion)?)\.(.+)")


def place_function(names: Iterable[str]) -> tuple[Callable[[str], Place | None], bool]:
    """Return a function from a tensor's name to its place, and whether the network pools over time behind res2.

    I3D and C2D pool there, so their block 5 is a stage. The function returns None for names outside the network.
    """
    names = set(names)
    pools = "blocks.5.res_blocks.0.branch2.conv_a.weight" in names
    slowfast = any(".multipathway_blocks." in name for name in names)
    like: Architecture = "slowfast_r50" if slowfast else "i3d_r50" if pools else "slow_r50"
    parts = {
        prefix: (part, pathway if "multipathway_blocks" in prefix else 0)
        for pathway in (0, 1)
        for part, prefix in block_prefixes(like, pathway).items()
    }

    def place(name: str) -> Place | None:
        found = _NAME.fullmatch(name)
        return Place(*parts[found[1]], found[2]) if found and found[1] in parts else None

    return place, pools


def matches(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether these are names of a network of pytorchvideo's hub, including networks that cannot be loaded."""
    stems = ("blocks.0.conv.weight", "blocks.0.multipathway_blocks.0.conv.weight")
    return any(len(shapes.get(name, ())) == 5 for name in (*stems, *_OTHERS))


def convert(tensors: Mapping[str, Tensor], *, architecture: Architecture | None = None) -> TranslatedWeights:
    """Recognise the network; no tensor changes its name.

    Args:
        tensors: The file's tensors, those under ``model_state`` in hub files.
        architecture: Not used: the tensors show it.

    Raises:
        InputError: It is another network of the hub: X3D, MViT, CSN, R(2+1)D, SlowFast 16x8 R101-50-50.
    """
    for name, family in _OTHERS.items():
        if name in tensors:
            raise InputError(f"{_ORIGIN}: this is {family}; {LOADABLE}")
    place, pools = place_function(tensors)
    _, shapes, _ = at_places(_ORIGIN, tensors, place)
    network = recognise(_ORIGIN, shapes)
    family, found = network.families[0], network.architecture()
    if pools != (family in ("i3d", "c2d")):
        raise InputError(
            f"{_ORIGIN}: the temporal kernels of {family} in a network {'with' if pools else 'without'} a pool behind "
            f"res2; {LOADABLE}"
        )
    notes, fields = [], dict[str, Any](network.fusion)
    if family == "slowfast":
        notes.append("slow_alpha is not in the file; 4 is taken, as in the hub's 8x8 networks")
    if network.classes is None:
        notes.append(f"the file has no classifier `{block_prefixes(found)['head']}.proj.weight`")
    else:
        fields["num_classes"] = network.classes
    context, options, parts = context_blocks(_ORIGIN, shapes)
    if context not in ("none", "snl", "gc"):
        values, channels = parts["value.weight"]
        options = replace(
            options,
            value_ratio=values / channels,
            learned_temperature="temperature.log" in parts,
            bias=next((f"{part}.bias" in parts for part in ("query", "unary") if f"{part}.weight" in parts), None),
        )
        notes.append(
            f"context blocks are taken as {context}; their pooling, scale and temperature are not in the file and are "
            "the defaults"
        )
    frames = 32 if family == "slowfast" else 8  # SlowFast's fast pathway sees four times the frames
    return TranslatedWeights(
        origin=_ORIGIN,
        state_dict=dict(tensors),
        source_names={name: name for name in tensors},
        spec=ModelSpec(
            found, context, head="dense_logits", stem_channels=network.width, context_options=options, **fields
        ),
        preprocessing={**_PREPROCESSING, "num_frames": frames, "frame_stride": 64 // frames},
        notes=(*notes, "clips are the hub's published 8x8 ones"),
    )
