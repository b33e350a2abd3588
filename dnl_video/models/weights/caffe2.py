"""Caffe2 pickles (`.pkl`) of PySlowFast's model zoo, which are named as video-nonlocal-net's blobs.

Names: facebookresearch/video-nonlocal-net, lib/models/{resnet_video,resnet_helper,nonlocal_helper}.py; those of the
fast pathway (``t_``) and its lateral convolutions (``..._subsample``): facebookresearch/SlowFast,
slowfast/utils/c2_model_loading.py. ``riv`` holds the running variance, whatever its name says (utils/checkpoint.py
copies it unchanged). The zoo's clips are RGB as all of PySlowFast's: configs/Kinetics/c2 leave
DATA.REVERSE_INPUT_CHANNEL at False.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.weights.layout import Place, assemble
from dnl_video.models.weights.places import TranslatedWeights
from dnl_video.spec import Architecture

ORIGIN = "PySlowFast (caffe2)"
_STEM = re.compile(r"(t_)?(?:conv1|res_conv1)_(bn_)?(\w+)")
_FUSE = re.compile(r"t_(pool1|res([2-4])_\d+_branch2c_bn)_subsample_(bn_)?(\w+)")
_BLOCK = re.compile(r"(t_)?res([2-5])_(\d+)_branch(1|2[abc])_(bn_)?(\w+)")
_NONLOCAL = re.compile(r"nonlocal_conv([2-5])_(\d+)_(theta|phi|g|out|bn)_(\w+)")
_PREDICTION = re.compile(r"pred_(\w+)")
_LEAVES = {"w": "weight", "b": "bias"}
_NORM_LEAVES = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
_PROJECTIONS = {"theta": "query", "phi": "key", "g": "value", "out": "out", "bn": "norm"}


def matches(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether names are caffe2 blobs of a ResNet."""
    return "conv1_w" in shapes and "res2_0_branch2a_w" in shapes


def convert(tensors: Mapping[str, Tensor], *, architecture: Architecture | None = None) -> TranslatedWeights:
    """Translate caffe2 blobs.

    Args:
        tensors: The file's blobs.
        architecture: The network they are for; None takes the one that names and shapes tell. A network without any
            temporal kernel is then the zoo's C2D, which does not pool over time either.

    Raises:
        InputError: The network is not built here or is not ``architecture``, or its batch norms are frozen into scales
            without statistics.
    """
    if "res_conv1_bn_rm" not in tensors:
        raise InputError(
            f"{ORIGIN} weights have scales in place of batch norms (no 'res_conv1_bn_rm'); give a file of PySlowFast's "
            "model zoo"
        )
    places: dict[str, Place] = {}
    left: dict[str, str] = {}
    for name in tensors:
        place = _place(name)
        if place is not None:
            places[name] = place
        elif name.endswith("_momentum") or name in ("lr", "model_iter"):
            left[name] = "state of the optimiser"
        else:
            left[name] = "no place in networks of this package"
    return assemble(ORIGIN, tensors, places, left, architecture=architecture, flat_family="slow")


def _place(blob: str) -> Place | None:
    if found := _STEM.fullmatch(blob):
        part, pathway, module, suffix = "stem", found[1], "norm" if found[2] else "conv", found[3]
    elif found := _FUSE.fullmatch(blob):
        part, pathway = f"fuse{found[2] or 1}", None
        module, suffix = "norm" if found[3] else "conv_fast_to_slow", found[4]
    elif found := _BLOCK.fullmatch(blob):
        part, pathway, suffix = f"res{found[2]}", found[1], found[6]
        layer = "norm" if found[5] else "conv"
        branch = f"branch1_{layer}" if found[4] == "1" else f"branch2.{layer}_{found[4][1]}"
        module = f"res_blocks.{found[3]}.{branch}"
    elif found := _NONLOCAL.fullmatch(blob):
        part, pathway, suffix = f"res{found[1]}", None, found[4]
        module = f"context_blocks.{found[2]}.{_PROJECTIONS[found[3]]}"
    elif found := _PREDICTION.fullmatch(blob):
        part, pathway, module, suffix = "head", None, "proj", found[1]
    else:
        return None
    leaf = (_NORM_LEAVES if "norm" in module else _LEAVES).get(suffix)
    return Place(part, 1 if pathway else 0, f"{module}.{leaf}") if leaf else None
