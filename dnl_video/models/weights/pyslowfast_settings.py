"""Settings in the ``cfg`` of a PySlowFast checkpoint: frame rates, similarity, pooling, clips.

Keys: facebookresearch/SlowFast, slowfast/config/defaults.py. ``cfg`` is the configuration as YAML text
(utils/checkpoint.py, `save_checkpoint`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from dnl_video.errors import InputError
from dnl_video.spec import Similarity

_SIMILARITY: dict[str, Similarity] = {"softmax": "embedded_gaussian", "dot_product": "dot_product"}


@dataclass(frozen=True)
class Settings:
    """Settings of a PySlowFast run that its tensors do not show; None if its configuration does not have them."""

    pools: bool | None = None  # whether C2D pools over time behind res2
    alpha: int | None = None  # SlowFast's ratio of frame rates
    attention: Similarity | None = None  # of non-local blocks
    nonlocal_pool: tuple[int, int, int] | None = None  # max-pooling of their keys and values
    dropout: float | None = None  # rate before the classifier
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # fields of `Preprocessing`


def read_settings(text: str) -> Settings:
    """Read a checkpoint's ``cfg``.

    Raises:
        InputError: It is not a configuration, or one of a network that is not built here.
    """
    try:
        return _settings(yaml.safe_load(text))
    except InputError:
        raise
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise InputError(
            "PySlowFast weights have a 'cfg' that is not their configuration; save the state dict alone"
        ) from error


def _settings(config: Mapping[str, Any]) -> Settings:
    model, resnet, nonlocal_ = (config.get(section, {}) for section in ("MODEL", "RESNET", "NONLOCAL"))
    architecture = model.get("ARCH", "")
    strides, dilations = resnet.get("SPATIAL_STRIDES", []), resnet.get("SPATIAL_DILATIONS", [])
    groups = [g for group, where in _stages(nonlocal_, "GROUP") if where for g in group]
    refused = [
        ("MODEL.ARCH", architecture, architecture == "i3d_nopool"),
        ("DETECTION.ENABLE", True, config.get("DETECTION", {}).get("ENABLE", False)),
        ("RESNET.STRIDE_1X1", True, resnet.get("STRIDE_1X1", False)),
        ("RESNET.SPATIAL_STRIDES", strides, [set(s) for s in strides] not in ([], [{1}, {2}, {2}, {2}])),
        ("RESNET.SPATIAL_DILATIONS", dilations, any(set(d) != {1} for d in dilations)),
        ("NONLOCAL.GROUP", groups, set(groups) - {1}),
    ]
    for key, value, given in refused:
        if given:
            raise InputError(f"PySlowFast weights were trained with {key} {value}; networks here have no such setting")
    pools = {tuple(pool[0]) for pool, where in _stages(nonlocal_, "POOL") if where}
    if len(pools) > 1:
        raise InputError(
            f"PySlowFast weights pool {sorted(pools)} in NONLOCAL.POOL; networks here pool alike in all stages"
        )
    alpha, dropout = config.get("SLOWFAST", {}).get("ALPHA"), model.get("DROPOUT_RATE")
    return Settings(
        pools={"c2d": True, "c2d_nopool": False, "2d": False}.get(architecture),
        alpha=None if alpha is None else int(alpha),
        attention=_SIMILARITY.get(nonlocal_.get("INSTANTIATION", "")),
        nonlocal_pool=next(iter(pools), None),
        dropout=None if dropout is None else float(dropout),
        preprocessing=_preprocessing(config.get("DATA", {})),
    )


def _stages(nonlocal_: Mapping[str, Any], key: str) -> list[tuple[Any, bool]]:
    """Return each stage's value of a setting, and whether the stage has non-local blocks."""
    values, locations = nonlocal_.get(key, []), nonlocal_.get("LOCATION", [])
    return [(value, any(paths)) for value, paths in zip(values, locations, strict=False)]


def _preprocessing(data: Mapping[str, Any]) -> dict[str, Any]:
    # Channels are reversed after normalisation (datasets/utils.py, `pack_pathway_output`).
    step = -1 if data.get("REVERSE_INPUT_CHANNEL", False) else 1

    def channels(numbers: Any) -> tuple[float, ...]:
        return tuple(float(number) for number in numbers)[::step]

    # Evaluation resizes the short side to the crop's size (datasets/kinetics.py).
    fields: tuple[tuple[str, str, Any], ...] = (
        *(("mean", "MEAN", channels), ("std", "STD", channels), ("target_fps", "TARGET_FPS", float)),
        *(("num_frames", "NUM_FRAMES", int), ("frame_stride", "SAMPLING_RATE", int)),
        *(("short_side", "TEST_CROP_SIZE", int), ("crop_size", "TEST_CROP_SIZE", int)),
    )
    found = {ours: convert(data[theirs]) for ours, theirs, convert in fields if theirs in data}
    return {"channel_order": "rgb" if step == 1 else "bgr", **found}
