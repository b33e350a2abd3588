"""ImageNet ResNet-50 and ResNet-101 under torchvision's names, which timm's `resnet50` and `resnet101` share.

Source of the names: torchvision, models/resnet.py. Its stride sits in the 3 x 3 convolution, as in our networks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.weights.families import bottlenecks, depth_of
from dnl_video.models.weights.places import TranslatedWeights, block_prefixes
from dnl_video.spec import Architecture

# Of inputs in [0, 1]; mmaction2 writes them in [0, 255]: 123.675, 116.28, 103.53 and 58.395, 57.12, 57.375.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_ORIGIN = "ImageNet ResNet"
_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.(conv[123]|bn[123]|downsample\.[01])\.(\w+)")
_STEM = {"conv1": "conv", "bn1": "norm"}
_PARTS = {
    "conv1": "branch2.conv_a",
    "bn1": "branch2.norm_a",
    "conv2": "branch2.conv_b",
    "bn2": "branch2.norm_b",
    "conv3": "branch2.conv_c",
    "bn3": "branch2.norm_c",
    "downsample.0": "branch1_conv",
    "downsample.1": "branch1_norm",
}


def matches(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether these are an image ResNet's names: torchvision's or timm's, its pre-activation ones included."""
    return any(
        len(shapes.get(name, ())) == 4 for name in ("layer1.0.conv1.weight", "stages.0.blocks.0.conv1.weight")
    ) and any(len(shapes.get(name, ())) == 4 for name in ("conv1.weight", "conv1.0.weight", "stem.conv.weight"))


def convert(tensors: Mapping[str, Tensor], *, architecture: Architecture | None = None) -> TranslatedWeights:
    """Translate the names; kernels stay [D, C, H, W], to be inflated where they are loaded (`inflate`).

    Args:
        tensors: The file's tensors.
        architecture: The network they will be loaded into: a Slow, C2D or I3D of the file's depth.

    Raises:
        InputError: No architecture is given, it is SlowFast or of another depth, or the file is no plain ResNet-50 or
            ResNet-101.
    """
    if architecture is None:
        raise InputError(
            f"{_ORIGIN}: image weights fit slow, c2d and i3d networks; name the architecture they are to fill"
        )
    if architecture.startswith("slowfast"):
        # Its slow pathway's stages take fused channels too, and its fast pathway is an eighth as wide.
        raise InputError(
            f"{_ORIGIN}: image weights cannot fill {architecture}, whose layers have other shapes; use slow, c2d or i3d"
        )
    _check_depth(tensors, architecture)
    prefixes = block_prefixes(architecture)
    state, names, left = {}, {}, {}
    for name, tensor in tensors.items():
        if name in ("fc.weight", "fc.bias"):
            left[name] = "classifier of ImageNet's classes"
            continue
        ours = _translated(name, prefixes)
        state[ours] = tensor
        names[ours] = name
    return TranslatedWeights(
        origin=_ORIGIN,
        state_dict=state,
        source_names=names,
        left=left,
        preprocessing={"mean": MEAN, "std": STD, "channel_order": "rgb"},
        notes=("2-D kernels are repeated over time and divided by the number of frames they span",),
    )


def inflate(kernel: Tensor, frames: int) -> Tensor:
    """Turn a 2-D kernel [D, C, H, W] into a 3-D one [D, C, T, H, W] of ``frames`` T.

    Carreira and Zisserman, CVPR 2017, section 2.4 (arXiv 1705.07750): the kernel repeated T times and divided by T
    responds to a video of one repeated image as the 2-D kernel does to that image.
    """
    return kernel.unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames


def _check_depth(tensors: Mapping[str, Tensor], architecture: Architecture) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if "conv1.weight" not in shapes or shapes["conv1.weight"][1:] != (3, 7, 7):
        raise InputError(
            f"{_ORIGIN}: the stem is not one 7 x 7 convolution (a deep stem, or ResNetV2); use plain resnet50 or "
            "resnet101 weights"
        )
    stages = bottlenecks(shapes, [f"layer{i}." for i in range(1, 5)], ".conv1.weight", ".conv2.weight")
    depth = depth_of(_ORIGIN, shapes["conv1.weight"][0], stages)
    if not architecture.endswith(f"_r{depth}"):
        raise InputError(f"{_ORIGIN}: these are ResNet-{depth}'s weights; they do not fill {architecture}")


def _translated(name: str, prefixes: Mapping[str, str]) -> str:
    module, _, kind = name.rpartition(".")
    if module in _STEM:
        return f"{prefixes['stem']}.{_STEM[module]}.{kind}"
    found = _BLOCK.fullmatch(name)
    if found is None:
        raise InputError(f"{_ORIGIN}: {name} has no place in a plain ResNet; use plain resnet50 or resnet101 weights")
    stage, block, part, kind = found.groups()
    return f"{prefixes[f'res{int(stage) + 1}']}.res_blocks.{block}.{_PARTS[part]}.{kind}"
