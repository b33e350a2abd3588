"""Prepare a run: check the configuration against the data, and build the data module and the network."""

from __future__ import annotations

import dataclasses
import sys

import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from dnl_video.config import TrainConfig
from dnl_video.data.class_ids import classes_without_training_videos, labels_from_one, mirrored_classes, some
from dnl_video.data.class_lists import read_class_list
from dnl_video.data.loaders import VideoDataModule
from dnl_video.data.manifest import read_manifest
from dnl_video.errors import InputError
from dnl_video.models.backbones import min_frames
from dnl_video.models.weights.load import LoadReport, load_weights
from dnl_video.spec import to_dict
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.precision import check_precision


def _warn(text: str) -> None:
    rank_zero_only(print)(text, file=sys.stderr)


def check_schedule(config: TrainConfig) -> None:
    """Compare the schedule with the length of the run; warn of milestones that are never reached.

    Raises:
        InputError: The warm-up is as long as the run, or patience has no validation to count.
    """
    optim, epochs = config.optim, config.trainer.max_epochs
    if optim.warmup_epochs >= epochs:
        raise InputError(
            f"optim.warmup_epochs {optim.warmup_epochs:g} leaves nothing of trainer.max_epochs {epochs}; lower it"
        )
    if (patience := config.trainer.patience) is not None and config.data.val_manifest is None:
        raise InputError(f"trainer.patience is {patience}, but data.val_manifest is null; give a list, or no patience")
    late = [f"{milestone:g}" for milestone in optim.milestones if milestone >= epochs]
    if optim.schedule == "step" and late:
        _warn(
            f"warning: optim.milestones has {', '.join(late)}, but the run ends after trainer.max_epochs {epochs}; the "
            "learning rate stays the same there"
        )


def resolve_classes(config: TrainConfig) -> TrainConfig:
    """Replace `model.num_classes` auto by the number of classes of the class list, else of the training list.

    Raises:
        InputError: The list cannot be used.
    """
    data = config.data
    if config.model.num_classes != "auto":
        return config
    if not data.train_manifest:
        raise InputError("data.train_manifest is not set; give a Kinetics CSV, a list or a class folder")
    names = None if data.class_list is None else read_class_list(data.class_list)
    listed = read_manifest(data.train_manifest, root=data.train_root, class_names=names, split="train")
    count = len(listed.class_names or range(max(listed.labels) + 1))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, num_classes=count))


def build_run(config: TrainConfig) -> tuple[VideoDataModule, VideoTrainingModule]:
    """Return the data module, and the training module with random weights.

    Raises:
        InputError: The videos, the classes or the precision do not fit the configuration.
    """
    on_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    check_precision(config.trainer.precision, on_cpu=config.trainer.accelerator == "cpu" or not on_gpu)
    datamodule = VideoDataModule(config.data, config.preprocessing, config.augment, config.validation, seed=config.seed)
    for note in dict.fromkeys((*datamodule.train.notes, *datamodule.val.notes)):
        _warn(f"note: {note}")
    names = _class_names(config, datamodule)
    # A class whose videos are all missing on disk has none.
    lost = {record.label for record in datamodule.train.records} - {r.label for r in datamodule.train_records}
    if empty := classes_without_training_videos(names, datamodule.train.labels - lost, datamodule.val.labels):
        _warn(f"warning: {empty}")
    flipped = [name for name in mirrored_classes(names) if name not in config.augment.flip_except]
    if config.augment.flip and flipped:
        advice = "set --augment.flip 0, or name these classes in --augment.flip_except"
        _warn(f"warning: a mirrored video may show another class: {some(flipped)}; {advice}")
    needed = min_frames(config.model)
    if config.preprocessing.num_frames < needed:
        raise InputError(
            f"preprocessing.num_frames is {config.preprocessing.num_frames}; {config.model.architecture} takes "
            f"{needed} or more"
        )
    seed_everything(config.seed, verbose=False)
    return datamodule, VideoTrainingModule(config, names)


def _class_names(config: TrainConfig, datamodule: VideoDataModule) -> tuple[str, ...]:
    classes = config.model.outputs
    names = datamodule.class_names
    if classes < 2 or (names is not None and len(names) < 2):
        source = f"model.num_classes is {classes}"
        if names is not None:
            source = f"{config.data.class_list or config.data.train_manifest} has {len(names)} class"
        raise InputError(f"{source}; give at least 2 classes")
    if names is None:
        lists = [labels for labels in (datamodule.train.labels, datamodule.val.labels) if labels]
        largest = max(map(max, lists))
        if largest >= classes:
            advice = max(labels_from_one(labels, classes) for labels in lists) or "set model.num_classes"
            raise InputError(
                f"label {largest} in the manifests, but model.num_classes is {classes} (labels 0 to {classes - 1}); "
                f"{advice}"
            )
        return tuple(str(i) for i in range(classes))
    if len(names) != classes:
        raise InputError(
            f"{config.data.class_list or config.data.train_manifest} has {len(names)} classes, but model.num_classes "
            f"is {classes}; set model.num_classes={len(names)}"
        )
    return names


def start_from_weights(config: TrainConfig, module: VideoTrainingModule) -> LoadReport | None:
    """Load the weights that the configuration names, if any, and record their origin in the module.

    Raises:
        InputError: The weights do not fit the network, or expect another channel order.
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
