"""`load_weights`: fills a network with weights of any origin, all or nothing, and reports what it did."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.weights.matching import match
from dnl_video.models.weights.origins import find_source, translate, translate_source
from dnl_video.models.weights.places import TranslatedWeights
from dnl_video.models.weights.source import tensors_in
from dnl_video.spec import ModelSpec


@dataclass(frozen=True)
class LoadReport:
    """The result of `load_weights`."""

    origin: str  # the project whose layout the source has
    source: str | None  # the given file or name; None for weights in memory
    sha256: str | None  # of the file
    matched: tuple[str, ...]  # the network's tensors that were filled
    new: Mapping[str, str]  # the network's tensors that kept their values: the reason
    left: Mapping[str, str]  # the source's tensors, by its own names, that fill nothing: the reason
    reshaped: Mapping[str, str]  # filled tensors whose shape changed: "[64, 8, 1, 1, 1] -> [64, 8]"
    inflated: Mapping[str, str]  # filled tensors that were 2-D kernels, repeated over time and divided by its length
    loaded_parameters: int
    new_parameters: int  # parameters that kept their values
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # fields of `Preprocessing` that the source expects
    notes: tuple[str, ...] = ()  # sentences for the user

    def text(self) -> str:
        """Return the report as a few lines."""
        loaded = f"loaded, {self.loaded_parameters / 1e6:.2f}M parameters"
        for names, word in ((self.reshaped, "reshaped"), (self.inflated, "inflated over time")):
            loaded += f", {len(names)} {word}" if names else ""
        rows = [(len(self.matched), loaded)]
        rows += [(n, f"new: {reason}") for reason, n in Counter(self.new.values()).items()]
        rows += [(n, f"left: {reason}") for reason, n in Counter(self.left.values()).items()]
        lines = [f"weights: {self.source or 'given'} ({self.origin})"]
        lines += [f"  {n:>4} tensors {text}" for n, text in rows]
        lines += [f"  {self.new_parameters:,} parameters are new"] if self.new_parameters else []
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def provenance(self) -> dict[str, Any]:
        """Return the entries that a checkpoint stores, as plain JSON types."""
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

    The whole backbone must be filled. These tensors may start untrained without an error: the classifier, if the
    source has other classes or none; context blocks that the source does not have; and parts of a block that the
    source's block does not have (the unary term, when a non-local block starts a disentangled one). These tensors of
    the source may be left: those that the network's blocks cannot use (biases that whitening cancels, the other term).
    On an error nothing has changed.

    Args:
        model: A network of `create_model`.
        source: A weights file or a run's folder (recognised by content), a published name such as ``kinetics400``, a
            state dict in memory (of any of these projects), or translated weights.
        allow_missing: Names of tensors or modules of the network (or patterns with ``*``) that may keep their values.
        drop_blocks: Leave context blocks of the source that have no place in the network, such as those of a non-local
            network for one without.

    Returns:
        The tensors that were loaded, are new, and were left. ``print(report.text())`` shows it.

    Raises:
        InputError: There is no such file or name, it is damaged or unknown, or it does not fit.
    """
    architecture = model.spec.architecture if model.spec else None
    name = sha256 = None
    if isinstance(source, Mapping):
        source = translate(tensors_in(source), architecture)
    elif not isinstance(source, TranslatedWeights):
        name, file = str(source), find_source(str(source), architecture)
        source, sha256 = translate_source(file, architecture), file.sha256
    return fill(model, source, name=name, sha256=sha256, allow_missing=allow_missing, drop_blocks=drop_blocks)


def fill(
    model: VideoClassifier,
    source: TranslatedWeights,
    *,
    name: str | None = None,
    sha256: str | None = None,
    allow_missing: Sequence[str] = (),
    drop_blocks: bool = False,
) -> LoadReport:
    """Fill a network as `load_weights` does, with translated weights from the file ``name``."""
    called = name or f"the weights of {source.origin}"
    matched = match(model, source, allow_missing=allow_missing, drop_blocks=drop_blocks, name=called)
    for key, value in matched.filled.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{called}: {source.source_names.get(key, key)} has NaN or infinite values")
    model.load_state_dict(matched.filled, strict=False)
    parameters = {key: value.numel() for key, value in model.named_parameters()}
    return LoadReport(
        origin=source.origin,
        source=name,
        sha256=sha256,
        matched=tuple(matched.filled),
        new=matched.new,
        left={source.source_names.get(key, key): reason for key, reason in matched.left.items()} | source.left,
        reshaped=matched.reshaped,
        inflated=matched.inflated,
        loaded_parameters=sum(parameters.get(key, 0) for key in matched.filled),
        new_parameters=sum(parameters.get(key, 0) for key in matched.new),
        preprocessing=source.preprocessing,
        notes=(*source.notes, *_differences(model, source.spec)),
    )


def _differences(model: VideoClassifier, there: ModelSpec | None) -> list[str]:
    """Return notes about settings that differ from the source and change the output."""
    here = model.spec
    if here is None or there is None:
        return []
    names = ["slow_alpha", "slow_frames"] if here.architecture.startswith("slowfast") else ["stem_strides"]
    pairs = [(name, getattr(there, name), getattr(here, name)) for name in ("head", *names)]
    if here.context == there.context != "none":
        for name in (f.name for f in dataclasses.fields(here.context_options)):
            if name not in ("positions", "zero_init", "checkpoint"):
                values = (getattr(spec.context_options, name) for spec in (there, here))
                pairs.append((f"context_options.{name}", *values))
    notes = [f"{name} is {b} here and {a} in the source" for name, a, b in pairs if a != b]
    return notes + _sharpness(model, there, here)


def _sharpness(model: VideoClassifier, there: ModelSpec, here: ModelSpec) -> list[str]:
    """Return a note if the softmax here is sharper or flatter than the one of the source's blocks."""
    kinds = {"nl": "non-local", "dnl": "whitened", "pairwise": "whitened"}
    kind = kinds.get(there.context)
    blocks = [
        block
        for block in model.modules()
        if isinstance(block, NonLocalBlock3d)
        or (isinstance(block, DisentangledNonLocalBlock3d) and block.query is not None)
    ]
    if not blocks or kind is None or kind == kinds.get(here.context):
        return []
    origin, options = f"queries and keys come from {kind} blocks", there.context_options
    for where, settings in (("there", options), ("here", here.context_options)):
        if settings.attention != "embedded_gaussian" or not settings.scaled:
            what = "not scaled" if settings.attention == "embedded_gaussian" else "without a softmax"
            return [f"{origin}, and {settings.attention} {where} is {what}; their products are sharper or flatter here"]
    # The blocks' own defaults (ContextOptions.temperature).
    before = options.temperature or (1.0 if kind == "non-local" else 0.05)
    now = blocks[0].temperature.initial
    if before == now:
        return []
    return [
        f"{origin} of temperature {before:g}, the softmax here has {now:g}; context_options.temperature: {before:g} "
        "keeps their sharpness"
    ]
