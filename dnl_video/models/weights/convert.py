"""`convert_weights`: a file of any origin becomes an exported model of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from dnl_video.errors import InputError, nearest
from dnl_video.models.build import build_model
from dnl_video.models.weights.checkpoint import Checkpoint, read_checkpoint
from dnl_video.models.weights.load import LoadReport, fill
from dnl_video.models.weights.origins import find_source, translate_source
from dnl_video.models.weights.places import TranslatedWeights, block_prefixes
from dnl_video.spec import Architecture, ContextOptions, ModelSpec, Preprocessing, from_dict, to_dict


def convert_weights(
    source: str,
    *,
    architecture: Architecture | None = None,
    class_names: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Checkpoint, LoadReport]:
    """Read weights of any origin as a complete network of this package.

    Settings come from the file and the conventions of its origin; ``settings`` adds to them or overrides them.

    Args:
        source: A weights file, or a published name.
        architecture: The network; needed for image networks and published names.
        class_names: Names of the outputs; None takes the file's, or numbers.
        settings: Fields of the model and the preprocessing by dotted name, such as ``preprocessing.num_frames`` or
            ``model.context_options.attention``.

    Raises:
        InputError: The file is damaged or unknown, does not fit the arguments, or a setting is missing.
    """
    file = find_source(source, architecture)
    weights = translate_source(file, architecture)
    model_settings, preprocessing_settings = _split(settings or {})
    spec = _spec(weights, source, architecture, model_settings)
    preprocessing = _preprocessing(weights, source, preprocessing_settings)
    model = build_model(spec)
    report = fill(model, weights, name=source, sha256=file.sha256)
    backbone_only = _lacks_classifier(report, weights, source)
    own = None if file.stored is None else read_checkpoint(file)
    converted = {key: report.provenance()[key] for key in ("origin", "source", "sha256", "notes")}
    return (
        Checkpoint(
            path=str(file.path),
            sha256=file.sha256,
            spec=spec,
            preprocessing=preprocessing,
            class_names=() if backbone_only else _class_names(weights, spec, class_names),
            config={} if own is None else own.config,
            state_dict={k: v for k, v in model.state_dict().items() if k not in report.new},
            provenance={"converted_from": converted} if own is None else own.provenance,
            backbone_only=backbone_only,
        ),
        report,
    )


def _lacks_classifier(report: LoadReport, weights: TranslatedWeights, source: str) -> bool:
    """Return whether the source has no classifier; refuse other tensors that would be untrained."""
    untrained = [name for name in report.new if ".proj." not in name or name in weights.state_dict]
    if untrained:
        raise InputError(
            f"{source}: has no weights for {untrained[0]} ({report.new[untrained[0]]}); convert it as it is, and train "
            "the other network from it"
        )
    return bool(report.new)


def _split(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the model and of the preprocessing, without these prefixes."""
    options = [f"model.context_options.{f.name}" for f in fields(ContextOptions)]
    known = [f"model.{f.name}" for f in fields(ModelSpec) if f.name != "context_options"] + options
    known += [f"preprocessing.{f.name}" for f in fields(Preprocessing)]
    if unknown := next((name for name in settings if name not in known), None):
        raise InputError(f"no setting {unknown!r}{nearest(unknown, known)}; settings are named as in a recipe")
    model, preprocessing = (
        {k.removeprefix(prefix): v for k, v in settings.items() if k.startswith(prefix)}
        for prefix in ("model.", "preprocessing.")
    )
    return model, preprocessing


def _spec(
    weights: TranslatedWeights, source: str, architecture: Architecture | None, settings: Mapping[str, Any]
) -> ModelSpec:
    if weights.spec is not None:
        if architecture is not None and architecture != weights.spec.architecture:
            raise InputError(f"{source}: is {weights.spec.architecture}, not {architecture}; leave --architecture out")
        values = to_dict(weights.spec)
    else:
        assert architecture is not None  # image networks are translated for one
        stem = weights.state_dict[block_prefixes(architecture)["stem"] + ".conv.weight"]
        values = to_dict(ModelSpec(architecture=architecture, context="none", stem_channels=len(stem)))
    for name, value in settings.items():
        owner, _, option = name.rpartition(".")
        (values[owner] if owner else values)[option] = value
    return from_dict(ModelSpec, values)


def _preprocessing(weights: TranslatedWeights, source: str, settings: Mapping[str, Any]) -> Preprocessing:
    values = {**weights.preprocessing, **settings}
    missing = [name for name in ("num_frames", "frame_stride") if name not in values]
    if missing and weights.spec is not None:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise InputError(f"{source}: its clips are not in the file; give {flags} (8 and 8 for an 8x8 network)")
    return from_dict(Preprocessing, {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()})


def _class_names(weights: TranslatedWeights, spec: ModelSpec, given: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(given) if given is not None else weights.class_names
    if names is None:
        return tuple(str(i) for i in range(spec.outputs))
    if len(names) != spec.num_classes:
        raise InputError(f"{len(names)} class names for {spec.num_classes} outputs; give one a line, in their order")
    return names
