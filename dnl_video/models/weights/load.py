"""`load_weights`: any weights of this family into a network, all or nothing, with a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.weights.load_report import LoadReport
from dnl_video.models.weights.matching import Match, finite, match
from dnl_video.models.weights.origins import convert_tensors, find_source, read_source
from dnl_video.models.weights.reading import file_sha256, tensors_in
from dnl_video.models.weights.source import SourceWeights
from dnl_video.spec import ModelSpec


def load_weights(
    model: VideoClassifier,
    source: str | Path | Mapping[str, Tensor] | SourceWeights,
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
        source = convert_tensors(tensors_in(source), architecture)
    if isinstance(source, SourceWeights):
        return fill(model, source, allow_missing=allow_missing, drop_blocks=drop_blocks)
    file = find_source(str(source), architecture)
    return fill(
        model,
        read_source(file, architecture),
        name=str(source),
        sha256=file_sha256(file),
        allow_missing=allow_missing,
        drop_blocks=drop_blocks,
    )


def fill(
    model: VideoClassifier,
    source: SourceWeights,
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
    model: VideoClassifier, source: SourceWeights, matched: Match, name: str | None, sha256: str | None
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
