"""The place of a tensor in a network, from one table of the tensor names of every origin."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.spec import Architecture, ModelSpec

_T = TypeVar("_T")


class Place(NamedTuple):
    """The part of a network (``stem``, ``res2`` ... ``res5``, ``fuse1`` ... ``fuse4``, ``head``), the pathway (0 slow,
    1 fast), and the tensor's name inside that part."""

    part: str
    pathway: int
    tail: str


@dataclass(frozen=True)
class TranslatedWeights:
    """Weights under this package's names, and the network they belong to.

    Tensors may keep the 1x1x1 kernels of context blocks (``[D, C, 1, 1, 1]`` for ``[D, C]``) and the 2-D kernels of
    image networks: loading reshapes and inflates them.
    """

    origin: str  # the project whose layout the file has, for messages: PySlowFast
    state_dict: dict[str, Tensor]  # by the names of `VideoClassifier`
    source_names: dict[str, str]  # the file's name of each tensor in state_dict
    left: dict[str, str] = field(default_factory=dict)  # the file's names without a place here, with the reason
    spec: ModelSpec | None = None  # from the tensors and the origin's conventions; None for image networks
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # fields of `Preprocessing` that are known
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()  # sentences for the user


# Our name of a module: its names in PySlowFast, caffe2, torchvision and mmaction2.
_MODULES = {
    "conv": "conv",
    "norm": "bn conv_out.bn",
    "branch1_conv": "branch1 downsample.0 downsample.conv",
    "branch1_norm": "branch1_bn downsample.1 downsample.bn",
    **{f"branch2.conv_{c}": f"branch2.{c} branch2{c} conv{i} conv{i}.conv" for i, c in enumerate("abc", 1)},
    **{f"branch2.norm_{c}": f"branch2.{c}_bn branch2{c}_bn bn{i} conv{i}.bn" for i, c in enumerate("abc", 1)},
    "query": "conv_theta theta theta.conv",
    "key": "conv_phi phi phi.conv",
    "value": "conv_g g g.conv",
    "concat": "concat_project.conv",
    "out": "conv_out out conv_out.conv",
}
_BLOCK, _CONTEXT = "res_blocks.{block}.{module}", "context_blocks.{block}.{module}"
_MM = r"backbone\.(?P<path>(?:slow|fast)_path\.)?"
# For each origin: the pattern of a module's name, its part of the network, and its name in that part. "+": the origin
# counts stages from 1 (layer1 is res2).
_TABLE: dict[str, tuple[tuple[str, str, str], ...]] = {
    "pyslowfast": (
        (r"s1\.pathway(?P<path>\d)_stem\.(?P<module>conv|bn)", "stem", "{module}"),
        (r"s(?P<stage>[1-4])_fuse\.conv_f2s", "fuse", "conv_fast_to_slow"),
        (r"s(?P<stage>[1-4])_fuse\.bn", "fuse", "norm"),
        (r"s(?P<stage>[2-5])\.pathway(?P<path>\d)_res(?P<block>\d+)\.(?P<module>branch.+)", "res", _BLOCK),
        (r"s(?P<stage>[2-5])\.pathway(?P<path>\d)_nonlocal(?P<block>\d+)\.(?P<module>conv_\w+|bn)", "res", _CONTEXT),
        (r"head\.projection", "head", "proj"),
    ),
    "caffe2": (
        (r"(?P<path>t_)?conv1", "stem", "conv"),
        (r"(?P<path>t_)?res_conv1_bn", "stem", "norm"),
        (r"t_pool1_subsample", "fuse1", "conv_fast_to_slow"),
        (r"t_pool1_subsample_bn", "fuse1", "norm"),
        (r"t_res(?P<stage>[2-4])_\d+_branch2c_bn_subsample", "fuse", "conv_fast_to_slow"),
        (r"t_res(?P<stage>[2-4])_\d+_branch2c_bn_subsample_bn", "fuse", "norm"),
        (r"(?P<path>t_)?res(?P<stage>[2-5])_(?P<block>\d+)_(?P<module>branch.+)", "res", _BLOCK),
        (r"nonlocal_conv(?P<stage>[2-5])_(?P<block>\d+)_(?P<module>\w+)", "res", _CONTEXT),
        (r"pred", "head", "proj"),
    ),
    "mmaction": (
        (_MM + r"conv1\.(?P<module>conv|bn)", "stem", "{module}"),
        (_MM + r"layer(?P<stage>[1-4])\.(?P<block>\d+)\.(?P<module>(conv\d|downsample)\.\w+)", "res+", _BLOCK),
        (
            _MM + r"layer(?P<stage>[1-4])\.(?P<block>\d+)\.non_local_block\.(?P<module>\w+)(\.0)?(?P<kind>\.\w+)",
            "res+",
            _CONTEXT,
        ),
        (r"backbone\.slow_path\.conv1_lateral\.conv", "fuse1", "conv_fast_to_slow"),
        (r"backbone\.slow_path\.conv1_lateral\.bn", "fuse1", "norm"),
        (r"backbone\.slow_path\.layer(?P<stage>[123])_lateral\.conv", "fuse+", "conv_fast_to_slow"),
        (r"backbone\.slow_path\.layer(?P<stage>[123])_lateral\.bn", "fuse+", "norm"),
        (r"cls_head\.fc_cls", "head", "proj"),
    ),
    "imagenet": (
        (r"conv1", "stem", "conv"),
        (r"bn1", "stem", "norm"),
        (r"layer(?P<stage>[1-4])\.(?P<block>\d+)\.(?P<module>[\w.]+)", "res+", _BLOCK),
        (r"fc", "head", "proj"),
    ),
}
_OURS = {theirs: ours for ours, names in _MODULES.items() for theirs in names.split()}


def find_place(origin: str, name: str) -> Place | None:
    """Return the place of a tensor; None if the table has no pattern for its name.

    Args:
        origin: A key of the table: pyslowfast, caffe2, mmaction or imagenet. (pytorchvideo's names are ours.)
        name: The origin's name of the module, and our name of the tensor in it: ``res3_1_branch2a_bn.running_mean``.
    """
    module, _, leaf = name.rpartition(".")
    for pattern, part, tail in _TABLE[origin]:
        if found := re.fullmatch(pattern, module):
            groups = {name: value or "" for name, value in found.groupdict().items()}
            ours = _OURS.get(groups.get("module", "") + groups.get("kind", ""))
            if "{module}" in tail and ours is None:
                return None
            stage = int(groups["stage"]) + part.endswith("+") if "stage" in groups else ""
            path = groups.get("path", "")
            pathway = int(path) if path.isdigit() else int(path in ("t_", "fast_path."))
            inside = tail.format(block=groups.get("block"), module=ours)
            return Place(f"{part.rstrip('+')}{stage}", pathway, f"{inside}.{leaf}")
    return None


def at_places(
    origin: str, tensors: Mapping[str, Tensor], place: Callable[[str], Place | None]
) -> tuple[dict[Place, str], dict[Place, tuple[int, ...]], list[str]]:
    """Return the name and the shape of the tensor at each place, and the names without a place.

    Raises:
        InputError: Two names have the same place.
    """
    named: dict[Place, str] = {}
    rest = []
    for name in tensors:
        if (found := place(name)) is None:
            rest.append(name)
        elif found in named:
            raise InputError(f"{origin} weights name one tensor twice: {named[found]!r} and {name!r}; give one of them")
        else:
            named[found] = name
    return named, {place: tuple(tensors[name].shape) for place, name in named.items()}, rest


def by_our_names(architecture: Architecture, values: Mapping[Place, _T]) -> dict[str, _T]:
    """Return values by the names of a network's state dict."""
    prefixes = [block_prefixes(architecture, pathway) for pathway in (0, 1)]
    return {f"{prefixes[place.pathway][place.part]}.{place.tail}": value for place, value in values.items()}


def block_prefixes(architecture: Architecture, pathway: int = 0) -> dict[str, str]:
    """Return the prefix of each part in a network's state dict: ``{"stem": "blocks.0", "res2": "blocks.1", ...}``.

    SlowFast also has ``fuse1`` ... ``fuse4``, the lateral connections behind the stem, res2, res3 and res4. I3D and C2D
    pool in ``blocks.2``.
    """
    parts = ("stem", "res2", "res3", "res4", "res5")
    if architecture.startswith("slowfast"):
        found = {part: f"blocks.{i}.multipathway_blocks.{pathway}" for i, part in enumerate(parts)}
        fusions = {f"fuse{i + 1}": f"blocks.{i}.multipathway_fusion" for i in range(4)}
        return found | fusions | {"head": "blocks.6"}
    pools = architecture.startswith(("i3d", "c2d"))
    return {part: f"blocks.{i + (pools and i > 1)}" for i, part in enumerate((*parts, "head"))}
