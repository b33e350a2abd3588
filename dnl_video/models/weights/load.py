"""`load_weights`: any weights of this family into a network, all or nothing, with a report."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.weights.matching import Match, finite, match
from dnl_video.models.weights.origins import find_source, translate, translate_source
from dnl_video.models.weights.places import TranslatedWeights
from dnl_video.models.weights.source import tensors_in
from dnl_video.spec import ModelSpec


@dataclass(frozen=True)
class LoadReport:
    """The result of `load_weights`.

    Attributes:
        origin: The project whose layout the source has.
        source: The file or name it was given as; None for weights in memory.
        sha256: The file's checksum.
        matched: The network's tensors that were filled.
        new: The network's tensors that kept their values, each with the reason.
        left: The source's tensors, by its own names, that went nowhere, each with the reason.
        reshaped: Filled tensors whose shape changed (1x1x1 kernels to matrices): ``"[64, 8, 1, 1, 1] -> [64, 8]"``.
        inflated: Filled tensors that were 2-D kernels, repeated over time and divided by its length.
        loaded_parameters: Parameters filled.
        new_parameters: Parameters that kept their values.
        left_parameters: Numbers in the source that went nowhere.
        preprocessing: Fields of `Preprocessing` that the source expects of its clips.
        notes: Sentences for the person who loads it.
    """

    origin: str
    source: str | None
    sha256: str | None
    matched: tuple[str, ...]
    new: Mapping[str, str]
    left: Mapping[str, str]
    reshaped: Mapping[str, str]
    inflated: Mapping[str, str]
    loaded_parameters: int
    new_parameters: int
    left_parameters: int
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the report as a few lines."""
        changed = [
            f"{len(names)} {word}"
            for names, word in ((self.reshaped, "reshaped"), (self.inflated, "inflated over time"))
            if names
        ]
        loaded = f"loaded, {self.loaded_parameters / 1e6:.2f}M parameters" + "".join(f", {text}" for text in changed)
        rows = [(len(self.matched), loaded)]
        rows += [(n, f"new: {reason}") for reason, n in Counter(self.new.values()).items()]
        rows += [(n, f"left: {reason}") for reason, n in Counter(self.left.values()).items()]
        lines = [
            f"weights: {self.source or 'given'} ({self.origin})",
            *(f"  {n:>4} tensors {text}" for n, text in rows),
        ]
        if self.new_parameters:
            lines.append(f"  {self.new_parameters:,} parameters are new")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def provenance(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it, as plain JSON types."""
        return {
            "origin": self.origin,
            "source": self.source,
            "sha256": self.sha256,
            "loaded_tensors": len(self.matched),
            "loaded_parameters": self.loaded_parameters,
            "new_parameters": self.new_parameters,
            "new": dict(Counter(self.new.values())),
            "left": dict(Counter(self.left.values())),
            "notes": list(self.notes),
        }


def load_weights(
    model: VideoClassifier,
    source: str | Path | Mapping[str, Tensor] | TranslatedWeights,
    *,
    allow_missing: Sequence[str] = (),
    drop_blocks: bool = False,
) -> LoadReport:
    """Fill a network with weights of any known origin.

    Everything of the backbone must be filled. New by right are: the classifier, when the source has other classes or
    none; context blocks where the source has none; and what a block has beyond the source's (the unary term, when a
    non-local block starts a disentangled one). Left by right are what the network's blocks cannot use (biases that
    whitening cancels, the other term). Either all of it is loaded, or an error is raised and nothing has changed.

    Args:
        model: A network of `create_model`.
        source: A file of weights or a run's folder (recognised by content), a published name such as
            ``kinetics400``, a state dict in memory (of any of these projects), or weights that are converted already.
        allow_missing: Names of tensors or modules of the network (or patterns with ``*``) that may keep their values.
        drop_blocks: Leave context blocks of the source for which the network has no place, such as those of a
            non-local network for one without.

    Returns:
        What was loaded, what is new, what was left. ``print(report.text())`` shows it.

    Raises:
        InputError: There is no such file or name, it is damaged or unknown, or it does not fit.
    """
    architecture = model.spec.architecture if model.spec else None
    if isinstance(source, Mapping):
        source = translate(tensors_in(source), architecture)
    if isinstance(source, TranslatedWeights):
        return fill(model, source, allow_missing=allow_missing, drop_blocks=drop_blocks)
    file = find_source(str(source), architecture)
    return fill(
        model,
        translate_source(file, architecture),
        name=str(source),
        sha256=file.sha256,
        allow_missing=allow_missing,
        drop_blocks=drop_blocks,
    )


def fill(
    model: VideoClassifier,
    source: TranslatedWeights,
    *,
    name: str | None = None,
    sha256: str | None = None,
    allow_missing: Sequence[str] = (),
    drop_blocks: bool = False,
) -> LoadReport:
    """Do `load_weights` with weights that are read already, of the file called ``name``."""
    called = name or f"the weights of {source.origin}"
    matched = match(model, source, allow_missing=allow_missing, drop_blocks=drop_blocks, name=called)
    if (damaged := finite(matched.filled)) is not None:
        raise InputError(f"{called}: {source.source_names.get(damaged, damaged)} has NaN or infinite values")
    model.load_state_dict(matched.filled, strict=False)
    return _report(model, source, matched, name, sha256)


def _report(
    model: VideoClassifier, source: TranslatedWeights, matched: Match, name: str | None, sha256: str | None
) -> LoadReport:
    parameters = {key: value.numel() for key, value in model.named_parameters()}

    def count(keys: Iterable[str]) -> int:
        return sum(parameters.get(key, 0) for key in keys)

    def originally(key: str) -> str:
        return source.source_names.get(key, key)

    left: dict[str, str] = {originally(key): reason for key, reason in matched.left.items()}
    return LoadReport(
        origin=source.origin,
        source=name,
        sha256=sha256,
        matched=tuple(matched.filled),
        new=matched.new,
        left=left | source.left,
        reshaped=matched.reshaped,
        inflated=matched.inflated,
        loaded_parameters=count(matched.filled),
        new_parameters=count(matched.new),
        left_parameters=sum(source.state_dict[key].numel() for key in matched.left),
        preprocessing=source.preprocessing,
        notes=(*source.notes, *_differences(model, source.spec)),
    )


def _differences(model: VideoClassifier, there: ModelSpec | None) -> list[str]:
    """Say where the network computes something else than the source with the same weights."""
    here = model.spec
    if here is None or there is None:
        return []
    names = ["head"]
    names += ["slow_alpha", "slow_frames"] if here.architecture.startswith("slowfast") else ["stem_strides"]
    pairs = [(name, getattr(there, name), getattr(here, name)) for name in names]
    if here.context == there.context != "none":
        skipped = ("positions", "zero_init", "checkpoint")
        options = [f.name for f in dataclasses.fields(here.context_options) if f.name not in skipped]
        pairs += [
            (f"context_options.{name}", getattr(there.context_options, name), getattr(here.context_options, name))
            for name in options
        ]
    notes = [f"{name} is {b} here and {a} in the source" for name, a, b in pairs if a != b]
    notes += _sharpness(model, there, here)
    return notes


def _sharpness(model: VideoClassifier, there: ModelSpec, here: ModelSpec) -> list[str]:
    """Say how much sharper or flatter a softmax is here than the one that queries and keys were trained with."""
    blocks = [
        m
        for m in model.modules()
        if isinstance(m, NonLocalBlock3d) or (isinstance(m, DisentangledNonLocalBlock3d) and m.query is not None)
    ]
    kinds = {"nl": "non-local", "dnl": "whitened", "pairwise": "whitened"}
    kind = kinds.get(there.context)
    if not blocks or kind is None or kind == kinds.get(here.context):
        return []
    origin, options = f"queries and keys come from {kind} blocks", there.context_options
    for where, settings in (("there", options), ("here", here.context_options)):
        if settings.attention != "embedded_gaussian" or not settings.scaled:
            what = "not scaled" if settings.attention == "embedded_gaussian" else "without a softmax"
            return [f"{origin}, and {settings.attention} {where} is {what}; their products are sharper or flatter here"]
    # A block's own defaults: ContextOptions.temperature.
    before = options.temperature or (1.0 if kind == "non-local" else 0.05)
    now = blocks[0].temperature.initial
    if before == now:
        return []
    return [
        f"{origin} of temperature {before:g}, the softmax here has {now:g}; context_options.temperature: {before:g} "
        "keeps their sharpness"
    ]
