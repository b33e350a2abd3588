"""Assigns the tensors of a source to the tensors of a network; refuses sources that would fill it only in part."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import Tensor

from dnl_video.errors import InputError, nearest
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.weights.places import TranslatedWeights

_BLOCK = re.compile(r"^(.*context_blocks\.\d+)\.(.+)$")
# Number of batches seen: only cumulative batch norms use it, networks here have none, and old files lack it.
_UNUSED = ".num_batches_tracked"


@dataclass
class Match:
    """The tensors to load, by the network's names."""

    filled: dict[str, Tensor] = field(default_factory=dict)  # new values of the network's tensors
    new: dict[str, str] = field(default_factory=dict)  # the network's tensors that keep their values: the reason
    left: dict[str, str] = field(default_factory=dict)  # the source's tensors that fill nothing: the reason
    reshaped: dict[str, str] = field(default_factory=dict)  # filled tensors whose shape changes: both shapes
    inflated: dict[str, str] = field(default_factory=dict)  # filled tensors that were 2-D kernels: both shapes


def match(
    model: VideoClassifier, source: TranslatedWeights, *, allow_missing: Sequence[str], drop_blocks: bool, name: str
) -> Match:
    """Assign a source's tensors to a network's, without changing the network.

    Args:
        model: The network.
        source: The weights.
        allow_missing: Names of the network's tensors or modules (or patterns with ``*``) that may keep their values.
        drop_blocks: Leave context blocks of the source that have no place in the network.
        name: The source's name in messages.

    Raises:
        InputError: A tensor of the backbone would not be filled or has another shape, or one of the source has no
            place, and the caller did not allow it.
    """
    target, given, result = model.state_dict(), source.state_dict, Match()
    allowed = _allowed(target, allow_missing)
    classifier = f"blocks.{len(model.blocks) - 1}.proj."
    blocks = _Blocks(model, given)
    missing: list[str] = []
    wrong: list[str] = []
    for key, here in target.items():
        if key.endswith(_UNUSED) and key not in given:
            continue
        block = _BLOCK.match(key)
        comparable = key in given and (block is None or blocks.same_kind(block[1]))
        value = _fitted(result, key, given[key], here) if comparable else None
        if value is not None:
            result.filled[key] = value
        elif key.startswith(classifier):
            there = given.get(f"{classifier}weight")
            counts = None if there is None else f"{len(there)} classes there, {len(target[f'{classifier}weight'])} here"
            result.new[key] = f"classifier ({counts or 'the source has none'})"
            if key in given:
                result.left[key] = "classifier of other classes"
        elif block and (reason := blocks.reason_new(block[1], block[2], key in given)):
            result.new[key] = reason
        elif key in allowed:
            result.new[key] = "may be missing (allow_missing)"
            if key in given:
                result.left[key] = "another shape (allow_missing)"
        elif key in given:
            wrong.append(f"{key} is {list(given[key].shape)} there and {list(here.shape)} here")
        else:
            missing.append(key)
    for keys, problem in ((wrong, "have another shape"), (missing, "are not in it")):
        if keys:
            raise InputError(
                f"{name}: {len(keys)} of {len(target)} tensors of {_describe(model)} {problem}, first "
                f"{keys[0]}{_source_is(source)}; build the network that it belongs to, or name them in allow_missing"
            )
    _place_rest(model, source, result, blocks, drop_blocks, name)
    return result


def _place_rest(
    model: VideoClassifier, source: TranslatedWeights, result: Match, blocks: _Blocks, drop_blocks: bool, name: str
) -> None:
    """Note the reason for every tensor of the source that fills nothing, or refuse it."""
    dropped: list[str] = []
    unplaced: list[str] = []
    for key in source.state_dict:
        if key in result.filled or key in result.left:
            continue
        block = _BLOCK.match(key)
        if key.endswith(_UNUSED) and not block:
            result.left[key] = "batch counters"
        elif block is None:
            unplaced.append(key)
        elif reason := blocks.reason_left(block[1], block[2]):
            result.left[key] = reason
        elif drop_blocks:
            result.left[key] = "context blocks without a place here (drop_blocks)"
        elif block[1] not in dropped:
            dropped.append(block[1])
    if unplaced:
        raise InputError(
            f"{name}: {len(unplaced)} of its {len(source.state_dict)} tensors have no place in {_describe(model)}, "
            f"first {source.source_names.get(unplaced[0], unplaced[0])}{_source_is(source)}; build the network that it "
            "belongs to"
        )
    if dropped:
        raise InputError(
            f"{name}: its context blocks ({len(dropped)}, first {dropped[0]}) do not fit {_describe(model)}, and "
            "without them the weights compute something else; build a matching network, or set drop_blocks"
        )


class _Blocks:
    """The context blocks of a network and of a source."""

    def __init__(self, model: VideoClassifier, given: Iterable[str]) -> None:
        self._model = model
        self._here, self._there = self._parts(model.state_dict()), self._parts(given)

    @staticmethod
    def _parts(names: Iterable[str]) -> dict[str, set[str]]:
        """Return each block's tensors: {module: {"query.weight", ...}}."""
        found: dict[str, set[str]] = {}
        for name in names:
            if block := _BLOCK.match(name):
                found.setdefault(block[1], set()).add(block[2])
        return found

    def same_kind(self, module: str) -> bool:
        """Tell whether both have a block there, and both are attention, SNL or GC blocks."""
        both = [parts.get(module) for parts in (self._here, self._there)]
        kinds = [parts and {"mask.weight", "reduce.weight"} & parts for parts in both]
        return None not in kinds and kinds[0] == kinds[1]

    def reason_new(self, module: str, part: str, given: bool) -> str | None:
        """Return why a tensor of the network may keep its value, or None."""
        if not self.same_kind(module):
            return "context blocks"
        if given:
            return None  # the source has it in another shape
        there, owner = self._there[module], part.split(".")[0]
        if owner == "unary":
            return "unary term of context blocks"
        if part in ("query.bias", "key.bias"):
            return "biases of query and key"
        if part == "temperature.log":
            return "learned temperature of context blocks"
        if owner in ("query", "key", "gamma") and "unary.weight" in there and "query.weight" not in there:
            return "pairwise term of context blocks"
        return None

    def reason_left(self, module: str, part: str) -> str | None:
        """Return why a tensor of the source may fill nothing, or None."""
        if not self.same_kind(module):
            return None
        here, owner = self._here[module], part.split(".")[0]
        block = self._model.get_submodule(module)
        if part.endswith(_UNUSED):
            return "batch counters"
        if owner == "unary":
            both = "unary.weight" in here
            return "unary.bias: softmax cancels it" if both else "unary term, which is not of this block"
        of_whitened = owner in ("query", "key") and isinstance(block, DisentangledNonLocalBlock3d)
        if of_whitened and "query.weight" in here:
            return "biases of query and key: whitening cancels them"
        if of_whitened or (owner in ("gamma", "temperature") and "query.weight" not in here):
            return "pairwise term, which is not of this block"
        if part == "key.bias" and isinstance(block, NonLocalBlock3d) and block.attention == "embedded_gaussian":
            return "key.bias: softmax cancels it"
        return None


def _fitted(result: Match, key: str, value: Tensor, here: Tensor) -> Tensor | None:
    """Return the source's tensor in the network's shape; None if it does not fit."""
    if value.shape == here.shape:
        return value
    change = f"{list(value.shape)} -> {list(here.shape)}"
    short, long = sorted((tuple(value.shape), tuple(here.shape)), key=len)
    if value.dim() == 4 and here.dim() == 5 and (*here.shape[:2], *here.shape[3:]) == value.shape:
        result.inflated[key] = change
        return inflate(value, here.shape[2])
    if long[: len(short)] == short and set(long[len(short) :]) == {1}:
        result.reshaped[key] = change
        return value.reshape(here.shape)
    return None


def inflate(kernel: Tensor, frames: int) -> Tensor:
    """Turn a 2-D kernel [D, C, H, W] into a 3-D one [D, C, T, H, W] of ``frames`` T.

    Carreira and Zisserman, CVPR 2017, section 2.4 (arXiv 1705.07750): the kernel repeated T times and divided by T
    responds to a video of one repeated image as the 2-D kernel does to that image.
    """
    return kernel.unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames


def _allowed(target: Mapping[str, Tensor], names: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for name in names:
        covered = {key for key in target if key.startswith(f"{name}.") or fnmatchcase(key, name)}
        if not covered:
            raise InputError(f"allow_missing: the network has no {name!r}{nearest(name, target)}")
        found |= covered
    return found


def _describe(model: VideoClassifier) -> str:
    if model.spec is None:
        return "this network"
    width = f", stem_channels {model.spec.stem_channels}" if model.spec.stem_channels != 64 else ""
    return f"{model.spec.architecture} with context {model.spec.context}{width}"


def _source_is(source: TranslatedWeights) -> str:
    network = f"{source.spec.architecture} with context {source.spec.context}, " if source.spec else ""
    return f" (it is {network}{source.origin})"
