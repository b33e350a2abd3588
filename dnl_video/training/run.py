"""Train: run Lightning's Trainer, write checkpoints and logs to the output folder."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks.weight_averaging import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dnl_video.config import TrainConfig
from dnl_video.cores import default_workers, network_threads
from dnl_video.data.crash_record import LoaderStopped, loader_faults
from dnl_video.data.decoding import VideoDecodeError
from dnl_video.data.loaders import VideoDataModule
from dnl_video.errors import InputError, visible
from dnl_video.files import check_output, locked, make_folder, remove_partial, write_atomic
from dnl_video.launcher import rank_and_world_size, wait_or_kill
from dnl_video.models.weights.checkpoint import read_raw, stopped_early
from dnl_video.models.weights.find import find_checkpoint, has_checkpoint, named_top1
from dnl_video.progress_bar import is_quiet
from dnl_video.spec import to_dict
from dnl_video.training.attention_health import AttentionHealth
from dnl_video.training.callbacks import PreciseBatchNorm, WithoutValidation
from dnl_video.training.checkpoint_callbacks import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint
from dnl_video.training.collectives import another_process_ended
from dnl_video.training.failures import FailureMonitor
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.optim import scaled_lr
from dnl_video.training.progress import CURVES_NAME, ClipProgress, Curves
from dnl_video.training.resume import (
    check_same_run,
    check_settings,
    describe,
    find_resume_point,
    is_finished,
    read_crashed,
    record_changes,
    record_crashed,
)
from dnl_video.training.setup import build_run, check_schedule, resolve_classes, start_from_weights
from dnl_video.training.stopping import FAILED_CHILDREN_EXIT_S, StopRequest, take_children
from dnl_video.training.trainer import make_loggers, make_trainer

_DRY_RUN_BATCHES = 2
# Warnings of Lightning and torch that do not apply: worker counts, short epochs, frozen parts and writing to the folder
# of a resumed run are intended; attention is measured in the first process only; runs of version 0.1 have Lightning's
# ModelCheckpoint; the last one is about Lightning's own code.
_IGNORED_WARNINGS = (
    "does not have many workers",
    "The number of training batches",
    "lr_scheduler.step.*before.*optimizer.step",
    "in eval mode at the start of training",
    "exists and is not empty",
    "callbacks used to create the checkpoint",
    "recommended to use `self.log.'attention/",
    "isinstance.treespec, LeafSpec",
)


@dataclass(frozen=True)
class TrainResult:
    """The best checkpoint and its validation top-1 (without validation: the last, and NaN), rank and processes."""

    best_checkpoint: Path
    best_top1: float
    rank: int
    world_size: int


def train(config: TrainConfig, *, resume: str | None = None, request: StopRequest | None = None) -> TrainResult:
    """Train as configured; write checkpoints, logs and config.yaml to ``config.output_dir``.

    Args:
        config: The configuration of the run.
        resume: A checkpoint to resume from; "last": the last one of the output folder; "auto": the same, or a new run
            if there is none; None: a new run.
        request: An entered `StopRequest` of the caller, which stays active after the training; None: use a new one.

    Raises:
        InputError: The configuration, the videos or the checkpoint cannot be used.
        Terminated: SIGTERM or SIGUSR1 stopped the run, after saving.
        KeyboardInterrupt: Ctrl-C stopped the run, after saving.
    """
    if request is None:
        with StopRequest() as request:
            return train(config, resume=resume, request=request)
    output = Path(config.output_dir)
    config = resolve_classes(config)
    check_schedule(config)
    point = find_resume_point(resume, output)
    file = None if point is None else point.file
    written = file and file.stat().st_mtime_ns
    changes = {} if point is None else check_settings(point, config)
    if point is not None and is_finished(point, config):
        return _result(point.file.parent, *rank_and_world_size())
    datamodule, module = build_run(config)
    datamodule.crashed = read_crashed(output)
    report = start_from_weights(config, module) if point is None else None
    best = BestCheckpoint(output, config.trainer.patience)
    last = LastCheckpoint(output, config.trainer.save_every_n_steps, request)
    progress = ClipProgress(config.trainer.progress_bar)
    callbacks = [request, *_callbacks(config, output, progress), progress, best, last, Curves(output)]
    loggers = make_loggers(config, output)
    trainer = make_trainer(config, callbacks, loggers, output, plugins=[AtomicCheckpointIO(file)])
    if point is not None:
        check_same_run(point, module.class_names, trainer.world_size)
        record_changes(point, module, changes)
    request.forward_to_children(trainer)
    with contextlib.ExitStack() as stack:
        if trainer.is_global_zero:
            make_folder(output)
            busy = f"another training is writing to {output}; wait for it, or choose another --output"
            stack.enter_context(locked(output / ".lock", busy))
            if has_checkpoint(output) if file is None else file.stat().st_mtime_ns != written:
                raise InputError(f"another training wrote to {output} in the meantime; continue it with --resume")
            history = "".join(f"# {describe(change)}\n" for change in module.provenance.get("changed_settings", []))
            write_atomic(output / "config.yaml", history + yaml.safe_dump(to_dict(config), sort_keys=False))
            remove_partial(output / "checkpoints", "*.ckpt")
            if not is_quiet():
                _print_summary(datamodule, module, trainer)
            if report is not None and not is_quiet():
                print(visible(report.text()), flush=True)
        try:
            _fit(trainer, module, datamodule, file)
        except LoaderStopped as stopped:
            request.stop_if_received()  # the signal that stopped this process may have stopped its loaders too
            record_crashed(output, stopped.videos)
            raise
        if trainer.should_stop and trainer.is_global_zero:
            print(stopped_early({best.state_key: best.state_dict()}, config.trainer.patience), flush=True)
    request.install_handlers()
    request.deferred = False
    request.stop_if_received()
    return _result(output, trainer.global_rank, trainer.world_size)


def _result(folder: Path, rank: int, world_size: int) -> TrainResult:
    best = find_checkpoint(folder)
    return TrainResult(best, named_top1(best), rank, world_size)


def dry_run(config: TrainConfig, resume: str | None = None) -> dict[str, Any]:
    """Check the same as `train`, and decoding, memory and a checkpoint, in about a minute; keep no files.

    Args:
        config: The configuration of the run.
        resume: As for `train`.

    Returns:
        Numbers of videos, missing files, classes and parameters, and the loss of the last batch. Empty in processes
        other than the first.

    Raises:
        InputError: `train` would refuse the configuration, the videos, the checkpoint or the output folder.
    """
    config = resolve_classes(config)
    check_schedule(config)
    check_output(Path(config.output_dir))
    point = find_resume_point(resume, Path(config.output_dir))
    if point is not None:
        check_settings(point, config)
        if is_finished(point, config):
            return {}
    batches = min(config.optim.precise_bn_batches, _DRY_RUN_BATCHES)
    optim = dataclasses.replace(config.optim, precise_bn_batches=batches)
    config = dataclasses.replace(config, optim=optim, trainer=dataclasses.replace(config.trainer, max_epochs=1))
    datamodule, module = build_run(config)
    report = start_from_weights(config, module) if point is None else None
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            config,
            _callbacks(config, None),
            [],
            Path(folder),
            limit_train_batches=_DRY_RUN_BATCHES,
            limit_val_batches=_DRY_RUN_BATCHES,
            enable_checkpointing=False,
        )
        if point is not None:
            check_same_run(point, module.class_names, trainer.world_size)
        _fit(trainer, module, datamodule, None)
        trainer.save_checkpoint(Path(folder) / "check.ckpt", weights_only=False)
        # Each process has its own folder; only the first one writes the checkpoint.
        if not trainer.is_global_zero:
            return {}
        if report is not None:
            print(visible(report.text()))
        read_raw(Path(folder) / "check.ckpt")
    return {
        "processes": trainer.world_size,
        "training videos": len(datamodule.train_records),
        "missing training videos": len(datamodule.train_missing),
        "validation videos": len(datamodule.val.records),
        "classes": len(module.class_names),
        "parameters": sum(p.numel() for p in module.network.parameters()),
        "loss": float(trainer.callback_metrics["train/loss"]),
    }


def _callbacks(config: TrainConfig, output: Path | None, progress: ClipProgress | None = None) -> list[Callback]:
    failures = FailureMonitor(config.data.max_failed_share, output)
    precise = PreciseBatchNorm(config.optim.precise_bn_batches, failures, progress)
    health = AttentionHealth(progress)
    averages = []
    if config.optim.ema_decay is not None:
        # Starts with the weights after the first step; then ema = decay * ema + (1 - decay) * weights after each step,
        # batch-norm statistics included. In checkpoints, state_dict is the average and current_model_state the trained
        # weights. It comes first: it swaps in the average for validation, and precise batch norm is computed for it.
        averages = [WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(config.optim.ema_decay))]
    at_end = [] if config.data.val_manifest else [WithoutValidation(averages, precise, health)]
    return [*averages, precise, failures, health, *at_end]


def _print_summary(datamodule: VideoDataModule, module: VideoTrainingModule, trainer: Trainer) -> None:
    config, validated = module.config, len(datamodule.val.records)
    module.trainer = trainer  # as Lightning does in fit
    clips = module.clips_per_step
    parameters = sum(p.numel() for p in module.network.parameters())
    print(
        f"{config.model.architecture} with context {config.model.context}: {parameters / 1e6:.2f}M parameters, "
        f"{len(module.class_names)} classes\n"
        f"train {len(datamodule.train_records)} videos ({len(datamodule.train_missing)} missing), "
        f"{f'validate {validated}' if validated else 'no validation'}\n"
        f"{clips} clips a step on {trainer.world_size} process(es); learning rate {config.optim.lr:g} per "
        f"{config.optim.lr_batch or clips} clips -> {scaled_lr(config.optim, clips):g}\n"
        f"curves: {Path(config.output_dir) / CURVES_NAME}, or tensorboard --logdir {Path(config.output_dir) / 'logs'}",
        flush=True,
    )


def _fit(trainer: Trainer, module: VideoTrainingModule, datamodule: VideoDataModule, resume: Path | None) -> None:
    with warnings.catch_warnings():
        for message in _IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", message=f".*{message}.*")
        torch.set_float32_matmul_precision("high")
        if isinstance(trainer.accelerator, CPUAccelerator):
            workers = default_workers(datamodule.config.num_workers)
            torch.set_num_threads(network_threads(workers, trainer.num_devices))
        try:
            with loader_faults(datamodule.config.timeout_s):
                trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=True)
        except Exception as error:
            wait_or_kill(take_children(trainer.strategy.launcher), FAILED_CHILDREN_EXIT_S)
            if isinstance(error, VideoDecodeError):
                raise InputError(str(error)) from error
            if another_process_ended(error):
                raise InputError(
                    f"process {trainer.global_rank} of {trainer.world_size} stops, because another one has ended; its "
                    "message says why"
                ) from error
            raise
        except SystemExit:
            # Lightning raises it on Ctrl-C.
            raise KeyboardInterrupt from None
