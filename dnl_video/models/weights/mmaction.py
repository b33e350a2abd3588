"""mmaction2's SlowOnly, I3D and SlowFast, with mmcv's non-local blocks.

Sources: open-mmlab/mmaction2, mmaction/models/backbones/resnet3d.py, resnet3d_slowonly.py and resnet3d_slowfast.py,
mmaction/models/heads/i3d_head.py and slowfast_head.py; open-mmlab/mmcv, mmcv/cnn/bricks/non_local.py; mmaction2's
configs/recognition/{slowonly,i3d,slowfast}. Names are the same in its 0.x and 1.x versions.

SlowFast's frame rates, the frame strides of I3D's stem and the similarity of non-local blocks are not in the file. They
are taken from the configs, and a note is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.weights.imagenet import MEAN, STD
from dnl_video.models.weights.places import Place, TranslatedWeights, at_places, by_our_names, find_place
from dnl_video.models.weights.recognition import LOADABLE, Blocks, Network, context_blocks, kernel_frames, recognise
from dnl_video.spec import Architecture, Context, ModelSpec

_ORIGIN = "mmaction2"
# out_of_bound_opt of SampleFrames is "loop" throughout the configs. Resize is OpenCV's, bilinear (mmcv, imresize).
_PREPROCESSING = {
    **{"mean": MEAN, "std": STD, "channel_order": "rgb", "sampling": "stride", "past_end": "loop"},
    **{"antialias": False, "rounding": "mmaction2"},
}
# Clips of I3D and of SlowFast, both 4x16 and 8x8; SlowOnly has configs with two different clips.
_CLIP_32X2 = {"num_frames": 32, "frame_stride": 2}
_KNOWN = "only SlowOnly, I3D and SlowFast can be loaded"
_FOREIGN = {"roi_head.": "a detector", "neck.": "a network with a neck"}
_ADDED = "(zeros for a bias that mmcv does not have)"


def matches(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether these are the names of an mmaction2 recogniser made of ResNet stages, including 2-D ones."""
    return any(f"{path}layer1.0.conv1.conv.weight" in shapes for path in ("backbone.", "backbone.slow_path."))


def convert(
    tensors: Mapping[str, Tensor],
    *,
    architecture: Architecture | None = None,
    meta: Mapping[str, Any] | None = None,
) -> TranslatedWeights:
    """Translate names; SlowFast concatenates its pathways in another order, so the classifier's columns move too.

    Args:
        tensors: The file's tensors.
        architecture: Not used: the tensors show it.
        meta: The file's ``meta``, which may name the classes.

    Raises:
        InputError: It is another network of mmaction2.
    """
    for prefix, what in _FOREIGN.items():
        if any(name.startswith(prefix) for name in tensors):
            raise InputError(f"{_ORIGIN}: {prefix}* tensors belong to {what}; {LOADABLE}")
    places, shapes, rest = at_places(_ORIGIN, tensors, partial(find_place, "mmaction"))
    spans = {shape[2:3] for place, shape in shapes.items() if place.part != "stem" and kernel_frames("slow", place)}
    if spans == {(3,)}:
        raise InputError(
            f"{_ORIGIN}: kernels span frames in every block, as in its I3D `heavy` (inflate=(1, 1, 1, 1)); {LOADABLE}"
        )
    network = recognise(_ORIGIN, shapes)
    if network.image:
        raise InputError(f"{_ORIGIN}: 2-D kernels, as in TSN, TSM and C2D; {_KNOWN}")
    pooled = any(".g.0." in name for name in tensors)  # mmcv's `sub_sample`
    spec, notes = _spec(network, context_blocks(_ORIGIN, shapes), pooled)
    if unplaced := next((name for name in rest if name.startswith("backbone.")), None):
        raise InputError(f"{_ORIGIN}: {unplaced} has no place in our networks; {LOADABLE}")
    placed = {place: tensors[name] for place, name in places.items()}
    for place, tensor in list(placed.items()):
        if place.tail.startswith("context_blocks."):
            # A block's projections are linear maps; one of mmcv's is a 2-D convolution.
            placed[place] = tensor.flatten(1) if tensor.dim() > 2 else tensor
            bias = place._replace(tail=f"{place.tail.removesuffix('weight')}bias")
            if place.tail.endswith("out.weight") and bias not in placed:
                # mmcv gives a convolution before a batch norm no bias; our projection has one.
                placed[bias], places[bias] = tensor.new_zeros(len(tensor)), _ADDED
    classifier = Place("head", 0, "proj.weight")
    if network.fusion and classifier in placed:
        fast = shapes[Place("res5", 1, "res_blocks.0.branch2.conv_c.weight")][0]
        slow_last = placed[classifier]  # [K, fast + slow]
        placed[classifier] = torch.cat([slow_last[:, fast:], slow_last[:, :fast]], dim=1)
        notes.append("the classifier's columns were put from fast, slow into slow, fast")
    return TranslatedWeights(
        origin=_ORIGIN,
        state_dict=by_our_names(spec.architecture, placed),
        source_names=by_our_names(spec.architecture, places),
        left=dict.fromkeys(rest, "not part of the network"),
        spec=spec,
        preprocessing=_PREPROCESSING | ({} if network.families[0] == "slow" else _CLIP_32X2),
        class_names=_class_names(meta or {}, spec.outputs),
        notes=tuple(notes),
    )


def _class_names(meta: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    """Return ``meta['dataset_meta']['classes']`` (mmengine) or ``meta['CLASSES']`` (mmcv) if they name the outputs."""
    stored = meta.get("dataset_meta")
    names = stored.get("classes") if isinstance(stored, Mapping) else meta.get("CLASSES")
    if not isinstance(names, (list, tuple)) or len(names) != count or not all(isinstance(n, str) for n in names):
        return None
    return tuple(names) if len(set(names)) == count else None


def _spec(network: Network, blocks: Blocks, pooled: bool) -> tuple[ModelSpec, list[str]]:
    """Return the network, and notes about settings that are not in the file."""
    family, notes = network.families[0], list[str]()
    fields: dict[str, Any] = dict(network.fusion)
    if family == "slowfast":
        # The 8x8 configs have speed_ratio 4 and fusion_kernel 7, the 4x16 configs 8 and 5.
        kernel = fields["fusion_kernel"]
        fields |= {"slow_alpha": 8 if kernel == 5 else 4, "slow_frames": "strided"}
        notes.append(
            f"slow_alpha (mmaction2's speed_ratio and resample_rate) is not in the file; {fields['slow_alpha']} is "
            f"taken, as in its configs with a fusion kernel of {kernel}"
        )
    elif family == "slow":
        notes.append("num_frames and frame_stride are not in the file: mmaction2's SlowOnly configs are 8x8 and 4x16")
    elif family == "i3d":
        fields["stem_strides"] = (2, 2)
        notes.append(
            "the frame strides of the stem and its pooling are not in the file; 2 is taken, as in mmaction2's I3D 32x2"
        )
    else:
        raise InputError(f"{_ORIGIN}: one pathway with the temporal kernels of {family}; {_KNOWN}")
    if network.classes is None:
        notes.append("the file has no classifier `cls_head.fc_cls`")
    else:
        fields["num_classes"] = network.classes
    if blocks.context != "none":
        use_scale, embedded = family != "i3d", blocks.options.attention == "embedded_gaussian"
        pool = (1, 2, 2) if pooled else None
        fields["context_options"] = replace(
            blocks.options, scaled=use_scale and embedded, pool=pool, pool_order="after"
        )
        if embedded:
            scale = "true, as in its SlowOnly configs" if use_scale else "false, as in its I3D configs"
            notes.append(
                f"the non-local mode is not in the file; embedded_gaussian is taken (it may be dot_product), with "
                f"use_scale {scale}"
            )
    context: Context = "none" if blocks.context == "none" else "nl"
    return ModelSpec(network.architecture(), context, head="global", stem_channels=network.width, **fields), notes
