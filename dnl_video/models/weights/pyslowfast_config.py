"""What PySlowFast's checkpoints tell beside their tensors: the configuration they were trained with, under ``cfg``.

Source of the keys: facebookresearch/SlowFast, slowfast/config/defaults.py; slowfast/utils/checkpoint.py
(`save_checkpoint`) stores them as YAML. Clips and similarity leave no trace in tensors, so this has the word on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import yaml

from dnl_video.errors import InputError
from dnl_video.models.weights.source import SourceWeights
from dnl_video.spec import ModelSpec, Similarity

_SIMILARITIES: dict[str, Similarity] = {"softmax": "embedded_gaussian", "dot_product": "dot_product"}
# The reader of tensors says so of what it had to assume.
_ASSUMED = "the file's tensors do not tell"


def refine(weights: SourceWeights, text: str, name: str) -> SourceWeights:
    """Replace what was assumed of a network and its clips by what the configuration says.

    Args:
        weights: What the tensors told.
        text: The configuration, as YAML.
        name: What to call the file in messages.

    Raises:
        InputError: The configuration cannot be read, or asks for blocks that are not built here.
    """
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{name}: its configuration (cfg) cannot be read; is the file damaged?") from error
    if not isinstance(config, Mapping) or weights.spec is None:
        return weights
    clips = dict(weights.preprocessing) | _clips(_section(config, "DATA"))
    return dataclasses.replace(
        weights,
        spec=_spec(weights.spec, config, name),
        preprocessing=clips,
        notes=(
            *(note for note in weights.notes if not note.startswith(_ASSUMED)),
            "clips and what tensors do not tell are those of the file's own configuration",
        ),
    )


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def _clips(data: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, field in (("NUM_FRAMES", "num_frames"), ("SAMPLING_RATE", "frame_stride")):
        if key in data:
            found[field] = int(data[key])
    if "TEST_CROP_SIZE" in data:
        # Testing resizes the short side to the size of its crops (datasets/kinetics.py).
        found["short_side"] = found["crop_size"] = int(data["TEST_CROP_SIZE"])
    for key, field in (("MEAN", "mean"), ("STD", "std")):
        if key in data:
            found[field] = tuple(float(value) for value in data[key])
    if "REVERSE_INPUT_CHANNEL" in data:
        found["channel_order"] = "bgr" if data["REVERSE_INPUT_CHANNEL"] else "rgb"
    return found


def _spec(spec: ModelSpec, config: Mapping[str, Any], name: str) -> ModelSpec:
    if spec.architecture.startswith("slowfast") and "ALPHA" in _section(config, "SLOWFAST"):
        spec = dataclasses.replace(spec, slow_alpha=int(_section(config, "SLOWFAST")["ALPHA"]))
    nonlocal_ = _section(config, "NONLOCAL")
    if spec.context != "nl" or "INSTANTIATION" not in nonlocal_:
        return spec
    similarity = nonlocal_["INSTANTIATION"]
    if similarity not in _SIMILARITIES:
        raise InputError(f"{name}: NONLOCAL.INSTANTIATION is {similarity!r}; known: {', '.join(_SIMILARITIES)}")
    options = dataclasses.replace(
        spec.context_options, attention=_SIMILARITIES[similarity], pool=_pool(nonlocal_, spec, name)
    )
    return dataclasses.replace(spec, context_options=options)


def _pool(nonlocal_: Mapping[str, Any], spec: ModelSpec, name: str) -> tuple[int, int, int] | None:
    """Return the slow pathway's pooling in the stages that have blocks; the networks here have one for all."""
    if "POOL" not in nonlocal_:
        return spec.context_options.pool
    stages = [int(stage.removeprefix("res")) - 2 for stage in spec.context_options.positions or ()]
    found = {tuple(int(size) for size in nonlocal_["POOL"][stage][0]) for stage in stages}
    if len(found) != 1:
        raise InputError(f"{name}: NONLOCAL.POOL differs between stages; blocks here pool alike in all")
    t, h, w = found.pop()
    return None if (t, h, w) == (1, 1, 1) else (t, h, w)
