"""What training starts from: weights of any origin in the fresh network, and a word on what they expect."""

from __future__ import annotations

import dataclasses

from dnl_video.config import TrainConfig
from dnl_video.errors import InputError
from dnl_video.models.weights.load import LoadReport, load_weights
from dnl_video.spec import to_dict
from dnl_video.training.module import VideoTrainingModule


def start_from_weights(config: TrainConfig, module: VideoTrainingModule) -> LoadReport | None:
    """Fill the network with the weights that the configuration names, if any, and record where they come from.

    Raises:
        InputError: The weights do not fit the network, or take another order of channels.
    """
    weights = config.weights
    if weights.source is None:
        return None
    report = load_weights(
        module.network, weights.source, allow_missing=weights.allow_missing, drop_blocks=weights.drop_blocks
    )
    here = to_dict(config.preprocessing)
    notes = []
    for name in ("channel_order", "mean", "std"):
        expected = report.preprocessing.get(name, here[name])
        expected = list(expected) if isinstance(expected, tuple) else expected
        if expected == here[name]:
            continue
        if name == "channel_order":
            raise InputError(
                f"{weights.source}: its first convolution takes {expected}, preprocessing.channel_order is "
                f"{here[name]}; set preprocessing.channel_order={expected}"
            )
        notes.append(f"preprocessing.{name} is {here[name]} here and {expected} in the source")
    module.provenance = {"started_from": report.provenance()}
    return dataclasses.replace(report, notes=(*report.notes, *notes))
