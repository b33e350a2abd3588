"""mmaction2's SlowOnly, I3D and SlowFast, with mmcv's non-local blocks.

Sources: open-mmlab/mmaction2, mmaction/models/backbones/resnet3d.py, resnet3d_slowonly.py and resnet3d_slowfast.py,
mmaction/models/heads/i3d_head.py and slowfast_head.py; open-mmlab/mmcv, mmcv/cnn/bricks/non_local.py; mmaction2's
configs/recognition/{slowonly,i3d,slowfast}. Names are the same in its 0.x and 1.x versions.

What the tensors cannot tell is taken from those configs and said in a note: SlowFast's frame rates, the frame strides
of I3D's stem, and what a non-local block makes of similarities.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.weights.families import LOADABLE, Family, bottlenecks, depth_of, family_of
from dnl_video.models.weights.imagenet import MEAN, STD
from dnl_video.models.weights.places import TranslatedWeights, block_prefixes
from dnl_video.spec import Architecture, ContextOptions, ModelSpec, Output, Similarity

_ORIGIN = "mmaction2"
_SLOW, _FAST = "backbone.slow_path.", "backbone.fast_path."
# out_of_bound_opt of SampleFrames is "loop" throughout the configs.
_PREPROCESSING = {"mean": MEAN, "std": STD, "channel_order": "rgb", "sampling": "stride", "past_end": "loop"}
# Of I3D (but for `heavy`) and SlowFast, 4x16 and 8x8 alike; SlowOnly has two.
_CLIP_32X2 = {"num_frames": 32, "frame_stride": 2}
_KNOWN = "only SlowOnly, I3D and SlowFast can be loaded"
_FOREIGN = {"roi_head.": "a detector", "neck.": "a network with a neck"}

_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.(conv[123]|downsample)\.(conv|bn)\.(\w+)")
_NON_LOCAL = re.compile(r"layer([1-4])\.(\d+)\.non_local_block\.(\w+?)(?:\.0)?\.(conv|bn)\.(\w+)")
_LATERAL = re.compile(r"(conv1|layer[123])_lateral\.(conv|bn)\.(\w+)")
_STEM = re.compile(r"conv1\.(conv|bn)\.(\w+)")
_PARTS = {
    ("conv1", "conv"): "branch2.conv_a",
    ("conv1", "bn"): "branch2.norm_a",
    ("conv2", "conv"): "branch2.conv_b",
    ("conv2", "bn"): "branch2.norm_b",
    ("conv3", "conv"): "branch2.conv_c",
    ("conv3", "bn"): "branch2.norm_c",
    ("downsample", "conv"): "branch1_conv",
    ("downsample", "bn"): "branch1_norm",
}
_NON_LOCAL_PARTS = {
    ("theta", "conv"): "query",
    ("phi", "conv"): "key",
    ("g", "conv"): "value",
    ("concat_project", "conv"): "concat",
    ("conv_out", "conv"): "out",
    ("conv_out", "bn"): "norm",
}
_ADDED = "(zeros, which mmcv leaves out)"


def matches(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether these are the names of an mmaction2 recogniser made of ResNet stages, 2-D ones included."""
    return any(f"{path}layer1.0.conv1.conv.weight" in shapes for path in ("backbone.", _SLOW))


def convert(
    tensors: Mapping[str, Tensor],
    *,
    architecture: Architecture | None = None,
    meta: Mapping[str, Any] | None = None,
) -> TranslatedWeights:
    """Translate names, and the classifier's columns where SlowFast concatenates its pathways the other way round.

    Args:
        tensors: The file's tensors.
        architecture: Without effect: the tensors tell.
        meta: The file's ``meta``, which may name the classes.

    Raises:
        InputError: It is another network of mmaction2.
    """
    for prefix, what in _FOREIGN.items():
        if any(name.startswith(prefix) for name in tensors):
            raise InputError(f"{_ORIGIN}: {prefix}* tensors belong to {what}; {LOADABLE}")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    slowfast = f"{_SLOW}conv1.conv.weight" in shapes
    paths = (_SLOW, _FAST) if slowfast else ("backbone.",)
    spec, notes = _spec(shapes, paths)
    state: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    left: dict[str, str] = {}
    prefixes = [block_prefixes(spec.architecture, i) for i in range(len(paths))]
    for name, tensor in tensors.items():
        pathway = next((i for i, path in enumerate(paths) if name.startswith(path)), None)
        if pathway is not None:
            ours = _translated(name, paths[pathway], prefixes[pathway])
            # A block's projections are linear maps; one of mmcv's is a 2-D convolution.
            tensor = tensor.flatten(1) if ".context_blocks." in ours and tensor.dim() > 2 else tensor
        elif name in ("cls_head.fc_cls.weight", "cls_head.fc_cls.bias"):
            ours = f"{prefixes[0]['head']}.proj.{name.rpartition('.')[2]}"
            if slowfast and name.endswith("weight"):
                tensor = _slow_first(tensor, shapes)
                notes.append("the classifier's columns were put from fast, slow into slow, fast")
        elif name.startswith("backbone."):
            raise InputError(f"{_ORIGIN}: {name} has no place in {spec.architecture}; {LOADABLE}")
        else:
            left[name] = "not part of the network"
            continue
        state[ours] = tensor
        names[ours] = name
        if ours.endswith(".out.weight") and f"{name.removesuffix('weight')}bias" not in tensors:
            # mmcv gives a convolution before a batch norm no bias; our projection has one.
            bias = ours.removesuffix("weight") + "bias"
            state[bias] = tensor.new_zeros(tensor.shape[0])
            names[bias] = _ADDED
    return TranslatedWeights(
        origin=_ORIGIN,
        state_dict=state,
        source_names=names,
        left=left,
        spec=spec,
        preprocessing=_PREPROCESSING | ({} if spec.architecture.startswith("slow_") else _CLIP_32X2),
        class_names=_class_names(meta or {}, spec.num_classes),
        notes=tuple(notes),
    )


def _class_names(meta: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    """Return ``meta['dataset_meta']['classes']`` (mmengine) or ``meta['CLASSES']`` (mmcv) if they name the outputs."""
    told = meta.get("dataset_meta")
    names = told.get("classes") if isinstance(told, Mapping) else meta.get("CLASSES")
    if not isinstance(names, (list, tuple)) or len(names) != count or not all(isinstance(n, str) for n in names):
        return None
    return tuple(names) if len(set(names)) == count else None


def _spec(shapes: Mapping[str, tuple[int, ...]], paths: tuple[str, ...]) -> tuple[ModelSpec, list[str]]:
    """Return the network, and sentences on what its tensors do not tell."""
    found = [_pathway(shapes, path) for path in paths]
    family, depth, channels = found[0]
    notes: list[str] = []
    fields: dict[str, Any] = {}
    if len(paths) == 2:
        if (family, *found[1]) != ("slow", "fast", depth, channels // 8):
            raise InputError(
                f"{_ORIGIN}: a slow pathway {family} R{depth} of {channels} channels beside a fast one "
                f"{found[1][0]} R{found[1][1]} of {found[1][2]}; {LOADABLE}, both pathways alike and 8 to 1 in channels"
            )
        fields, note = _slowfast_fields(shapes)
        notes.append(note)
    elif family == "slow":
        notes.append("num_frames and frame_stride are not in the file: mmaction2's SlowOnly configs are 8x8 and 4x16")
    elif family != "i3d":
        raise InputError(f"{_ORIGIN}: one pathway with the temporal kernels of {family}; {_KNOWN}")
    else:
        fields["stem_strides"] = (2, 2)
        notes.append(
            "frame strides 2 of the stem and of its pooling are those of mmaction2's I3D 32x2; its `heavy` config has "
            "stem_strides [1, 1] and clips of 8x8"
        )
    options, said = _context_options(shapes, paths[0], use_scale=family != "i3d")
    classifier = shapes.get("cls_head.fc_cls.weight")
    if classifier is None:
        notes.append("the file has no classifier `cls_head.fc_cls`")
    else:
        fields["num_classes"] = classifier[0]
    architecture: Any = f"{'slowfast' if len(paths) == 2 else family}_r{depth}"
    spec = ModelSpec(
        architecture=architecture,
        context="none" if options is None else "nl",
        head="global",
        stem_channels=channels,
        context_options=options or ContextOptions(),
        **fields,
    )
    return spec, notes + said


def _pathway(shapes: Mapping[str, tuple[int, ...]], path: str) -> tuple[Family, int, int]:
    """Return a pathway's family, depth and stem width."""
    stem = shapes.get(f"{path}conv1.conv.weight", ())
    if len(stem) != 5:
        what = "2-D kernels, as in TSN, TSM and C2D" if len(stem) == 4 else f"no {path}conv1.conv.weight"
        raise InputError(f"{_ORIGIN}: {what}; {_KNOWN}")
    stages = bottlenecks(shapes, [f"{path}layer{i}." for i in range(1, 5)], ".conv1.conv.weight", ".conv2.conv.weight")
    depth = depth_of(_ORIGIN, stem[0], stages)
    return family_of(_ORIGIN, stem, stages), depth, stem[0]


def _slowfast_fields(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Any], str]:
    lateral = shapes.get(f"{_SLOW}conv1_lateral.conv.weight")
    if lateral is None:
        raise InputError(f"{_ORIGIN}: a SlowFast without lateral connections; {LOADABLE}")
    kernel = lateral[2]
    # The 8x8 configs have speed_ratio 4 and fusion_kernel 7, the 4x16 configs 8 and 5.
    alpha = 8 if kernel == 5 else 4
    normalised = f"{_SLOW}conv1_lateral.bn.weight" in shapes
    note = (
        f"slow_alpha {alpha} (mmaction2's speed_ratio and resample_rate) is that of its configs with a fusion kernel "
        f"of {kernel}; the tensors do not tell"
    )
    return {
        "slow_alpha": alpha,
        "slow_frames": "strided",
        "fusion_kernel": kernel,
        "fusion": "conv_bn_relu" if normalised else "conv",
    }, note


def _context_options(
    shapes: Mapping[str, tuple[int, ...]], path: str, *, use_scale: bool
) -> tuple[ContextOptions | None, list[str]]:
    """Return the options of the non-local blocks, None where there are none, and what was assumed."""
    positions: dict[str, list[int]] = {}
    parts: dict[str, tuple[int, ...]] = {}
    pooled = False
    for name, shape in shapes.items():
        found = _NON_LOCAL.fullmatch(name.removeprefix(path)) if name.startswith(path) else None
        if found is None:
            continue
        stage, block, part, kind, leaf = found.groups()
        blocks = positions.setdefault(f"res{int(stage) + 1}", [])
        if int(block) not in blocks:
            blocks.append(int(block))
        if leaf == "weight":
            parts[f"{part}.{kind}"] = shape
        pooled = pooled or ".g.0." in name
    if not positions:
        return None, []
    attention: Similarity = "embedded_gaussian"
    notes = []
    if "concat_project.conv" in parts:
        attention = "concatenation"
    elif "theta.conv" not in parts:
        attention = "gaussian"
    else:
        scale = "true, as in its SlowOnly configs" if use_scale else "false, as in its I3D configs"
        notes.append(f"non-local mode is taken for embedded_gaussian (it may be dot_product), use_scale for {scale}")
    inner, channels = parts["g.conv"][:2]
    output: Output = "conv_bn" if "conv_out.bn" in parts else "conv"
    options = ContextOptions(
        positions={stage: sorted(blocks) for stage, blocks in sorted(positions.items())},
        inner_ratio=inner / channels,
        attention=attention,
        scaled=use_scale and attention == "embedded_gaussian",
        pool=(1, 2, 2) if pooled else None,
        pool_order="after",
        output=output,
    )
    return options, notes


def _slow_first(weight: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> Tensor:
    """Put the classifier's columns [K, fast + slow] in our order: SlowFastHead concatenates the fast pathway first."""
    fast = shapes[f"{_FAST}layer4.0.conv3.conv.weight"][0]
    return torch.cat([weight[:, fast:], weight[:, :fast]], dim=1)


def _translated(name: str, path: str, prefixes: Mapping[str, str]) -> str:
    rest = name.removeprefix(path)
    if found := _STEM.fullmatch(rest):
        kind, leaf = found.groups()
        return f"{prefixes['stem']}.{'conv' if kind == 'conv' else 'norm'}.{leaf}"
    if found := _BLOCK.fullmatch(rest):
        stage, block, part, kind, leaf = found.groups()
        return f"{prefixes[f'res{int(stage) + 1}']}.res_blocks.{block}.{_PARTS[part, kind]}.{leaf}"
    if (found := _NON_LOCAL.fullmatch(rest)) and found.groups()[2:4] in _NON_LOCAL_PARTS and path != _FAST:
        stage, block, part, kind, leaf = found.groups()
        return f"{prefixes[f'res{int(stage) + 1}']}.context_blocks.{block}.{_NON_LOCAL_PARTS[part, kind]}.{leaf}"
    if (found := _LATERAL.fullmatch(rest)) and path == _SLOW:
        place, kind, leaf = found.groups()
        fuse = prefixes["fuse1" if place == "conv1" else f"fuse{int(place[-1]) + 1}"]
        return f"{fuse}.{'conv_fast_to_slow' if kind == 'conv' else 'norm'}.{leaf}"
    raise InputError(f"{_ORIGIN}: {name} has no place in our networks; {LOADABLE}")
