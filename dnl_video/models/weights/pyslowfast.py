"""PySlowFast's checkpoints (`.pyth`): ResNets and SlowFast, with and without non-local blocks, by either builder.

Names: facebookresearch/SlowFast, slowfast/models: video_model_builder.py (`ResNet`, `SlowFast`), resnet_helper.py,
stem_helper.py, nonlocal_helper.py, head_helper.py, batchnorm_helper.py (`SubBatchNorm3d`), and ptv_model_builder.py
(`PTVResNet`, `PTVSlowFast`), whose names are pytorchvideo's behind ``model.``. Its clips are RGB, normalised by 0.45
and 0.225 (config/defaults.py: DATA.MEAN, DATA.STD, DATA.REVERSE_INPUT_CHANNEL False in every Kinetics configuration).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.weights.layout import Place, assemble
from dnl_video.models.weights.places import TranslatedWeights
from dnl_video.models.weights.pyslowfast_settings import Settings, read_settings
from dnl_video.spec import Architecture

ORIGIN = "PySlowFast"
_STEM = re.compile(r"s1\.pathway(\d)_stem\.(conv|bn)")
_FUSE = re.compile(r"s([1-4])_fuse\.(conv_f2s|bn)")
_BLOCK = re.compile(r"s([2-5])\.pathway(\d)_res(\d+)\.(branch1|branch1_bn|branch2\.[abc]|branch2\.[abc]_bn)")
_NONLOCAL = re.compile(r"s([2-5])\.pathway(\d)_nonlocal(\d+)\.(conv_theta|conv_phi|conv_g|conv_out|bn)")
_OURS = {
    "conv": "conv",
    "bn": "norm",
    "conv_f2s": "conv_fast_to_slow",
    "branch1": "branch1_conv",
    "branch1_bn": "branch1_norm",
    "conv_theta": "query",
    "conv_phi": "key",
    "conv_g": "value",
    "conv_out": "out",
}
_OURS |= {f"branch2.{c}": f"branch2.conv_{c}" for c in "abc"} | {f"branch2.{c}_bn": f"branch2.norm_{c}" for c in "abc"}

_PTV = "model."
_PTV_PART = re.compile(r"model\.blocks\.(\d+)\.(?:multipathway_blocks\.(\d)\.|(multipathway_fusion)\.)?(.+)")
_PTV_TAIL = re.compile(
    r"(?:conv|norm|conv_fast_to_slow|proj|res_blocks\.\d+\.(?:branch1_(?:conv|norm)|branch2\.(?:conv|norm)_[abc]))\.\w+"
)
# Networks of PySlowFast that are not built here, by names that only they have.
_X3D = re.compile(r"s1\.pathway0_stem\.conv_xy\.|model\.blocks\.0\.conv\.conv_(t|xy)\.")
_R2PLUS1D = re.compile(r"model\.blocks\.\d+\.res_blocks\.\d+\.branch2\.conv_b\.conv_t\.")
_SUB_STATISTICS = "statistics of each split (sub-batch norm), merged in another tensor"
_NO_PLACE = "no place in networks of this package"


def matches(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether names are PySlowFast's, of any of its networks."""
    known = any(_STEM.match(name) or _PTV_PART.fullmatch(name) for name in shapes)
    return known or _other_network(shapes) is not None


def convert(
    tensors: Mapping[str, Tensor], *, architecture: Architecture | None = None, config: str | None = None
) -> TranslatedWeights:
    """Translate a PySlowFast state dict.

    Args:
        tensors: The checkpoint's ``model_state``.
        architecture: The network it is for; None takes the one that names and shapes tell. Image networks (R50_IN1K)
            need it.
        config: The checkpoint's ``cfg``, which tells what tensors do not: SlowFast's alpha, the similarity of
            non-local blocks, whether C2D pools over time, how clips are prepared. None takes what PySlowFast's
            configurations have, and says so in the notes.

    Raises:
        InputError: The network is not built here (X3D, MViT, ResNeXt, ...) or is not ``architecture``.
    """
    other = _other_network({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if other is not None:
        raise InputError(f"{ORIGIN} weights of {other}; networks here are its C2D, I3D, Slow and SlowFast")
    built_by_pytorchvideo = any(name.startswith(_PTV) for name in tensors)
    # Its C2D and I3D have a pooling over time as block 2, so that block 5 is a stage, not the head.
    pools = f"{_PTV}blocks.5.res_blocks.0.branch2.conv_a.weight" in tensors
    places: dict[str, Place] = {}
    left: dict[str, str] = {}
    for name in tensors:
        plain = _without_sub_batch_norm(name)
        if plain is None:
            left[name] = _SUB_STATISTICS
            continue
        place = _ptv_place(plain, pools) if built_by_pytorchvideo else _place(plain)
        if place is None:
            left[name] = _NO_PLACE
        else:
            places[name] = place
    settings = read_settings(config) if config else Settings()
    if built_by_pytorchvideo:
        settings = replace(settings, pools=pools)
    return assemble(
        f"{ORIGIN} (pytorchvideo-built)" if built_by_pytorchvideo else ORIGIN,
        tensors,
        places,
        left,
        architecture=architecture,
        flat_family="c2d",
        settings=settings,
    )


def _place(name: str) -> Place | None:
    module, _, leaf = name.rpartition(".")
    if found := _STEM.fullmatch(module):
        return Place("stem", int(found[1]), f"{_OURS[found[2]]}.{leaf}")
    if found := _FUSE.fullmatch(module):
        return Place(f"fuse{found[1]}", 0, f"{_OURS[found[2]]}.{leaf}")
    if found := _BLOCK.fullmatch(module):
        return Place(f"res{found[1]}", int(found[2]), f"res_blocks.{found[3]}.{_OURS[found[4]]}.{leaf}")
    if found := _NONLOCAL.fullmatch(module):
        return Place(f"res{found[1]}", int(found[2]), f"context_blocks.{found[3]}.{_OURS[found[4]]}.{leaf}")
    return Place("head", 0, f"proj.{leaf}") if module == "head.projection" else None


def _ptv_place(name: str, pools: bool) -> Place | None:
    found = _PTV_PART.fullmatch(name)
    if not found or not _PTV_TAIL.fullmatch(found[4]):
        return None
    index, tail = int(found[1]), found[4]
    if found[3]:
        return Place(f"fuse{index + 1}", 0, tail)
    if tail.startswith("proj."):
        return Place("head", 0, tail)
    if index == 0:
        return Place("stem", int(found[2] or 0), tail)
    return Place(f"res{index + 1 - (pools and index > 1)}", int(found[2] or 0), tail)


def _without_sub_batch_norm(name: str) -> str | None:
    """Name a sub-batch norm's tensor as a batch norm's; None for what only its splits have.

    `SubBatchNorm3d` keeps its scale and bias, the merged statistics in ``bn`` and those of the splits in ``split_bn``.
    """
    module, _, leaf = name.rpartition(".")
    if module.endswith(".split_bn"):
        return None
    inner = re.fullmatch(r"(.*(?:bn|norm(?:_[abc])?))\.bn", module)
    return f"{inner[1]}.{leaf}" if inner else name


def _other_network(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    if any(_X3D.match(name) for name in shapes):
        return "X3D"
    if any(_R2PLUS1D.match(name) for name in shapes):
        return "R(2+1)D"
    patches = len(shapes.get("patch_embed.proj.weight", ())) == 5 and any(
        n.startswith("blocks.0.attn.") for n in shapes
    )
    return "MViT" if patches or any(n.startswith(f"{_PTV}patch_embed.") for n in shapes) else None
