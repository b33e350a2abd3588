"""ImageNet ResNet-50 and ResNet-101 under torchvision's names, which timm's `resnet50` and `resnet101` share.

Source of the names: torchvision, models/resnet.py. Its stride sits in the 3 x 3 convolution, as in our networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.weights.places import TranslatedWeights, at_places, by_our_names, find_place
from dnl_video.models.weights.recognition import recognise
from dnl_video.spec import Architecture

# For inputs in [0, 1]; mmaction2 writes them for [0, 255]: 123.675, 116.28, 103.53 and 58.395, 57.12, 57.375.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_ORIGIN = "ImageNet ResNet"


def matches(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether these are an image ResNet's names: torchvision's or timm's, including pre-activation ones."""
    blocks = ("layer1.0.conv1.weight", "stages.0.blocks.0.conv1.weight")
    stems = ("conv1.weight", "conv1.0.weight", "stem.conv.weight")
    return all(any(len(shapes.get(name, ())) == 4 for name in names) for names in (blocks, stems))


def convert(tensors: Mapping[str, Tensor], *, architecture: Architecture | None = None) -> TranslatedWeights:
    """Translate the names; kernels stay [D, C, H, W] and are inflated when loaded (`matching.inflate`).

    Args:
        tensors: The file's tensors.
        architecture: The network to load them into: a Slow, C2D or I3D of the file's depth.

    Raises:
        InputError: No architecture is given, it is SlowFast or of another depth, or the file is no plain ResNet-50 or
            ResNet-101.
    """
    if architecture is None:
        raise InputError(
            f"{_ORIGIN}: image weights fit slow, c2d and i3d networks; name the architecture they are to fill"
        )
    if architecture.startswith("slowfast"):
        # The stages of its slow pathway also take fused channels, and its fast pathway is an eighth as wide.
        raise InputError(
            f"{_ORIGIN}: image weights cannot fill {architecture}, whose layers have other shapes; use slow, c2d or i3d"
        )
    if "conv1.weight" not in tensors or tensors["conv1.weight"].shape[1:] != (3, 7, 7):
        raise InputError(
            f"{_ORIGIN}: the stem is not one 7 x 7 convolution (a deep stem, or ResNetV2); use plain resnet50 or "
            "resnet101 weights"
        )
    places, shapes, rest = at_places(_ORIGIN, tensors, partial(find_place, "imagenet"))
    network = recognise(_ORIGIN, shapes)
    if rest:
        raise InputError(
            f"{_ORIGIN}: {rest[0]} has no place in a plain ResNet; use plain resnet50 or resnet101 weights"
        )
    if not architecture.endswith(f"_r{network.depth}"):
        raise InputError(f"{_ORIGIN}: these are ResNet-{network.depth}'s weights; they do not fill {architecture}")
    classifier = [places.pop(place) for place in list(places) if place.part == "head"]
    names = by_our_names(architecture, places)
    return TranslatedWeights(
        origin=_ORIGIN,
        state_dict={ours: tensors[name] for ours, name in names.items()},
        source_names=names,
        left=dict.fromkeys(classifier, "classifier of ImageNet's classes"),
        preprocessing={"mean": MEAN, "std": STD, "channel_order": "rgb"},
        notes=("2-D kernels are repeated over time and divided by the number of frames they span",),
    )
