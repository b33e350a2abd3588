"""Deciding which tensor of a source fills which tensor of a network, and refusing what would fill it partly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from dnl_video.errors import InputError, nearest
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.weights.places import TranslatedWeights

_BLOCK = re.compile(r"^(.*context_blocks\.\d+)\.(.+)$")
# Batches seen so far: used only with a cumulative batch norm, which none here is, and absent from old files.
_UNUSED = ".num_batches_tracked"


@dataclass
class Match:
    """What goes where.

    Attributes:
        filled: The network's tensors and what they will hold.
        new: The network's tensors that keep their values, with the reason.
        left: The source's tensors (by our names) that go nowhere, with the reason.
        reshaped: Filled tensors whose shape changes.
        inflated: Filled tensors that were 2-D kernels.
    """

    filled: dict[str, Tensor] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    reshaped: dict[str, str] = field(default_factory=dict)
    inflated: dict[str, str] = field(default_factory=dict)


def match(
    model: VideoClassifier, source: TranslatedWeights, *, allow_missing: Sequence[str], drop_blocks: bool, name: str
) -> Match:
    """Assign a source's tensors to a network's, without touching the network.

    Args:
        model: The network.
        source: The weights.
        allow_missing: Names of the network's tensors or modules (or patterns with ``*``) that may keep their values.
        drop_blocks: Leave context blocks of the source that the network has no place for.
        name: What to call the source in messages.

    Raises:
        InputError: A tensor of the backbone would not be filled or has another shape, or one of the source has no
            place, and the caller did not allow it.
    """
    target, given, result = model.state_dict(), source.state_dict, Match()
    allowed = _allowed(target, allow_missing)
    classifier = f"blocks.{len(model.blocks) - 1}.proj."
    blocks = _blocks(target), _blocks(given)
    missing: list[str] = []
    wrong: list[str] = []
    for key, here in target.items():
        if key.endswith(_UNUSED) and key not in given:
            continue
        block = _BLOCK.match(key)
        comparable = key in given and (block is None or _same_kind(blocks, block[1]))
        value = _fitted(result, key, given[key], here) if comparable else None
        if value is not None:
            result.filled[key] = value
        elif key.startswith(classifier):
            there = given.get(f"{classifier}weight")
            result.new[key] = (
                f"classifier ({len(there)} classes there, {len(target[f'{classifier}weight'])} here)"
                if there is not None
                else "classifier (the source has none)"
            )
            if key in given:
                result.left[key] = "classifier of other classes"
        elif block and (reason := _reason_new(blocks, block[1], block[2], key in given)):
            result.new[key] = reason
        elif key in allowed:
            result.new[key] = "may be missing (allow_missing)"
            if key in given:
                result.left[key] = "another shape (allow_missing)"
        elif key in given:
            wrong.append(f"{key} is {list(given[key].shape)} there and {list(here.shape)} here")
        else:
            missing.append(key)
    _refuse_partial(name, source, model, missing, wrong, len(target))
    _place_rest(model, source, result, blocks, drop_blocks, name)
    return result


def _place_rest(
    model: VideoClassifier,
    source: TranslatedWeights,
    result: Match,
    blocks: tuple[_Blocks, _Blocks],
    drop_blocks: bool,
    name: str,
) -> None:
    """Give every tensor of the source that fills nothing its reason, or refuse."""
    dropped: list[str] = []
    homeless: list[str] = []
    for key in source.state_dict:
        if key in result.filled or key in result.left:
            continue
        block = _BLOCK.match(key)
        if key.endswith(_UNUSED) and not block:
            result.left[key] = "batch counters"
        elif block is None:
            homeless.append(key)
        elif reason := _reason_left(model, blocks, block[1], block[2]):
            result.left[key] = reason
        elif drop_blocks:
            result.left[key] = "context blocks without a place here (drop_blocks)"
        else:
            dropped.append(key)
    if homeless:
        raise InputError(
            f"{name}: {len(homeless)} of its {len(source.state_dict)} tensors have no place in {_describe(model)}, "
            f"first {source.source_names.get(homeless[0], homeless[0])}{_source_is(source)}; build the network that it "
            "belongs to"
        )
    if dropped:
        modules = list(dict.fromkeys(_BLOCK.match(key)[1] for key in dropped))  # type: ignore[index]
        raise InputError(
            f"{name}: its context blocks ({len(modules)}, first {modules[0]}) do not fit {_describe(model)}, and "
            "without them the weights compute something else; build a matching network, or say drop_blocks"
        )


_Blocks = dict[str, set[str]]


def _blocks(names: Iterable[str]) -> _Blocks:
    """Return each context block's tensors: {module: {"query.weight", ...}}."""
    found: _Blocks = {}
    for name in names:
        if block := _BLOCK.match(name):
            found.setdefault(block[1], set()).add(block[2])
    return found


def _kind(parts: set[str]) -> str:
    if "mask.weight" in parts:
        return "gc" if "reduce.weight" in parts else "snl"
    return "attention"


def _same_kind(blocks: tuple[_Blocks, _Blocks], module: str) -> bool:
    here, there = blocks[0].get(module), blocks[1].get(module)
    return here is not None and there is not None and _kind(here) == _kind(there)


def _reason_new(blocks: tuple[_Blocks, _Blocks], module: str, part: str, given: bool) -> str | None:
    """Why a context block's tensor may keep its value, or None."""
    if not _same_kind(blocks, module):
        return "context blocks"
    if given:
        return None  # there, of another shape
    there = blocks[1][module]
    if part.startswith("unary."):
        return "unary term of context blocks"
    if part.endswith(".bias") and part.split(".")[0] in ("query", "key"):
        return "biases of query and key"
    if part == "temperature.log":
        return "learned temperature of context blocks"
    if part.split(".")[0] in ("query", "key", "gamma") and "unary.weight" in there and "query.weight" not in there:
        return "pairwise term of context blocks"
    return None


def _reason_left(model: VideoClassifier, blocks: tuple[_Blocks, _Blocks], module: str, part: str) -> str | None:
    """Why a context block's tensor may go nowhere, or None."""
    if not _same_kind(blocks, module):
        return None
    here, owner = blocks[0][module], part.split(".")[0]
    block = model.get_submodule(module)
    if part.endswith(_UNUSED):
        return "batch counters"
    if owner == "unary":
        return "unary.bias: softmax cancels it" if "unary.weight" in here else "unary term, which is not of this block"
    if owner in ("query", "key") and isinstance(block, DisentangledNonLocalBlock3d):
        if "query.weight" in here:
            return "biases of query and key: whitening cancels them"
        return "pairwise term, which is not of this block"
    if owner in ("gamma", "temperature") and "query.weight" not in here:
        return "pairwise term, which is not of this block"
    if part == "key.bias" and isinstance(block, NonLocalBlock3d) and block.attention == "embedded_gaussian":
        return "key.bias: softmax cancels it"
    return None


def _fitted(result: Match, key: str, value: Tensor, here: Tensor) -> Tensor | None:
    """Return the source's tensor in the network's shape; None where it does not fit."""
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
        covered = {key for key in target if key == name or key.startswith(f"{name}.") or fnmatchcase(key, name)}
        if not covered:
            raise InputError(f"allow_missing: the network has no {name!r}{nearest(name, target)}")
        found |= covered
    return found


def _refuse_partial(
    name: str, source: TranslatedWeights, model: VideoClassifier, missing: list[str], wrong: list[str], total: int
) -> None:
    advice = "build the network that it belongs to, or name them in allow_missing"
    if wrong:
        raise InputError(
            f"{name}: {len(wrong)} of {total} tensors of {_describe(model)} have another shape, first "
            f"{wrong[0]}{_source_is(source)}; {advice}"
        )
    if missing:
        raise InputError(
            f"{name}: {len(missing)} of {total} tensors of {_describe(model)} are not in it, first "
            f"{missing[0]}{_source_is(source)}; {advice}"
        )


def _describe(model: VideoClassifier) -> str:
    if model.spec is None:
        return "this network"
    width = f", stem_channels {model.spec.stem_channels}" if model.spec.stem_channels != 64 else ""
    return f"{model.spec.architecture} with context {model.spec.context}{width}"


def _source_is(source: TranslatedWeights) -> str:
    if source.spec is None:
        return f" (it is {source.origin})"
    return f" (it is {source.spec.architecture} with context {source.spec.context}, {source.origin})"


def finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of a tensor with NaN or infinite values, or None."""
    return next((k for k, v in tensors.items() if v.is_floating_point() and not torch.isfinite(v).all()), None)
