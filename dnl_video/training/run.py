"""One training run: checks, Lightning's Trainer, logs in the output folder."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.accelerators import CPUAccelerator

from dnl_video.config import TrainConfig
from dnl_video.cores import default_workers, network_threads
from dnl_video.data.crash_record import LoaderStopped, loader_faults
from dnl_video.data.decoding import VideoDecodeError
from dnl_video.data.loaders import VideoDataModule
from dnl_video.errors import InputError
from dnl_video.files import write_atomic
from dnl_video.models.backbones import min_frames
from dnl_video.models.weights.checkpoint import find_checkpoint, read_raw
from dnl_video.training.averaging import weight_average
from dnl_video.training.callbacks import ClipProgress, FiniteLoss, PreciseBatchNorm
from dnl_video.training.checkpoint_callbacks import LastCheckpoint, WholeFiles, best_checkpoint
from dnl_video.training.collectives import another_process_ended, take_children, wait_for_children
from dnl_video.training.failures import FailureMonitor
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.optim import scaled_lr
from dnl_video.training.precision import check_precision
from dnl_video.training.resume import (
    note_crashed,
    read_crashed,
    refuse_another_run,
    refuse_other_processes,
    resume_from,
)
from dnl_video.training.start import start_from_weights
from dnl_video.training.stopping import StopAtOnce, StopRequest
from dnl_video.training.trainer import make_loggers, make_trainer

_DRY_RUN_BATCHES = 2


@dataclass(frozen=True)
class TrainResult:
    """Where a finished run left its checkpoints, and which process this is.

    Attributes:
        best_checkpoint: The checkpoint with the highest validation top-1.
        best_top1: Its validation top-1, a share.
        rank: This process.
        world_size: Number of processes.
    """

    best_checkpoint: Path
    best_top1: float
    rank: int
    world_size: int


def train(config: TrainConfig, *, resume: str | None = None, request: StopRequest | None = None) -> TrainResult:
    """Train as the configuration says; writes checkpoints, logs and config.yaml to ``config.output_dir``.

    Args:
        config: The run.
        resume: A checkpoint to go on from; "last" is the output folder's own last one, "auto" that where there is one.
            None starts anew.
        request: Asks to stop; the caller's context, which goes on after the training. None is one of its own.

    Raises:
        InputError: The configuration, the videos or the checkpoint cannot be used.
        Terminated: SIGTERM or SIGUSR1 asked it to stop; it did after saving.
        KeyboardInterrupt: So did Ctrl-C.
    """
    if request is not None:
        return _train(config, resume, request)
    with StopRequest() as own:
        return _train(config, resume, own)


def _train(config: TrainConfig, resume: str | None, request: StopRequest) -> TrainResult:
    output = Path(config.output_dir)
    if config.optim.warmup_epochs >= config.trainer.max_epochs:
        raise InputError(
            f"optim.warmup_epochs {config.optim.warmup_epochs:g} leaves nothing of trainer.max_epochs "
            f"{config.trainer.max_epochs}; lower it"
        )
    start_from = resume_from(resume, output)
    datamodule, module = _prepare(config)
    datamodule.crashed = read_crashed(output)
    if start_from is not None:
        refuse_another_run(start_from, module)
        # The checkpoint's weights follow; what they grew from stays known.
        module.provenance = start_from.stored.get("provenance", {})
        report = None
    else:
        report = start_from_weights(config, module)
    best, last = best_checkpoint(output), LastCheckpoint(output, config.trainer.save_every_n_steps, request)
    loggers = make_loggers(config, output)
    progress = ClipProgress(config.trainer.progress_bar)
    callbacks = [StopAtOnce(request), *_own_callbacks(config, output), progress, best, last]
    file = start_from.file if start_from is not None else None
    trainer = make_trainer(config, callbacks, loggers, output, plugins=[WholeFiles(file)])
    if start_from is not None:
        refuse_other_processes(start_from, trainer.world_size)
    if trainer.is_global_zero:
        _write_config(output, module.resolved)
    request.attach(trainer)
    _announce(config, datamodule, module, trainer)
    if report is not None and trainer.is_global_zero:
        print(report.text(), flush=True)
    try:
        _fit(trainer, module, datamodule, str(file) if file is not None else None)
    except LoaderStopped as stopped:
        if request.received is not None:
            request.end()  # who asked this process to stop may have asked its loaders, too
        note_crashed(output, stopped.videos)
        raise
    request.listen()
    request.waits = False
    if request.received is not None:
        request.end()
    top1 = float(best.best_model_score) if best.best_model_score is not None else float("nan")
    # What a run that went back to an older checkpoint knows as its best may have been replaced since.
    found = find_checkpoint(best.best_model_path if Path(best.best_model_path).is_file() else output)
    return TrainResult(found, top1, trainer.global_rank, trainer.world_size)


def dry_run(config: TrainConfig) -> dict[str, Any]:
    """Check everything a run needs in about a minute: lists, files, decoding, memory, a checkpoint; keep nothing.

    Returns:
        What was found: numbers of videos, missing files, classes, parameters, loss of the last batch. Nothing in
        processes other than the first, which speaks for all.
    """
    config = dataclasses.replace(
        config,
        trainer=dataclasses.replace(config.trainer, max_epochs=1),
        optim=dataclasses.replace(
            config.optim, precise_bn_batches=min(config.optim.precise_bn_batches, _DRY_RUN_BATCHES)
        ),
    )
    datamodule, module = _prepare(config)
    report = start_from_weights(config, module)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            config,
            _own_callbacks(config, None),
            [],
            Path(folder),
            limit_train_batches=_DRY_RUN_BATCHES,
            limit_val_batches=_DRY_RUN_BATCHES,
            enable_progress_bar=False,
            enable_checkpointing=False,
        )
        _fit(trainer, module, datamodule, None)
        trainer.save_checkpoint(Path(folder) / "check.ckpt", weights_only=False)
        # Each process has a folder of its own, and the first one writes.
        if trainer.is_global_zero:
            if report is not None:
                print(report.text())
            read_raw(Path(folder) / "check.ckpt")
    if not trainer.is_global_zero:
        return {}
    return {
        "processes": trainer.world_size,
        "training videos": len(datamodule.train_records),
        "missing training videos": len(datamodule.train_missing),
        "validation videos": len(datamodule.val.records),
        "classes": len(module.class_names),
        "parameters": sum(p.numel() for p in module.network.parameters()),
        "loss": float(trainer.callback_metrics["train/loss"]),
    }


def _prepare(config: TrainConfig) -> tuple[VideoDataModule, VideoTrainingModule]:
    on_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    check_precision(config.trainer.precision, on_cpu=config.trainer.accelerator == "cpu" or not on_gpu)
    datamodule = VideoDataModule(config.data, config.preprocessing, config.augment, config.validation, seed=config.seed)
    names = _class_names(config, datamodule)
    needed = min_frames(config.model)
    if config.preprocessing.num_frames < needed:
        raise InputError(
            f"preprocessing.num_frames is {config.preprocessing.num_frames}; {config.model.architecture} takes "
            f"{needed} or more"
        )
    seed_everything(config.seed, verbose=False)
    return datamodule, VideoTrainingModule(config, names, resolved_config(config))


def _class_names(config: TrainConfig, datamodule: VideoDataModule) -> tuple[str, ...]:
    classes = config.model.num_classes
    names = datamodule.class_names
    if names is None:
        largest = max(r.label for r in (*datamodule.train.records, *datamodule.val.records) if r.label is not None)
        if largest >= classes:
            raise InputError(
                f"label {largest} in the manifests, but model.num_classes is {classes} (labels 0 to {classes - 1}); "
                "set model.num_classes"
            )
        return tuple(str(i) for i in range(classes))
    if len(names) != classes:
        raise InputError(
            f"{config.data.class_list or config.data.train_manifest} has {len(names)} classes, but model.num_classes "
            f"is {classes}; set model.num_classes={len(names)}"
        )
    return names


def _write_config(output: Path, resolved: dict[str, Any]) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output_dir {output} cannot be written ({error.strerror}); choose another") from error
    write_atomic(output / "config.yaml", yaml.safe_dump(resolved, sort_keys=False))


def resolved_config(config: TrainConfig) -> dict[str, Any]:
    """Return the whole configuration as plain JSON types."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return plain(dataclasses.asdict(config))


def _own_callbacks(config: TrainConfig, output: Path | None) -> list[Callback]:
    failures = FailureMonitor(config.data.max_failed_share, output)
    average = [] if config.optim.ema_decay is None else [weight_average(config.optim.ema_decay)]
    return [
        # Validation begins by taking the averaged weights; precise batch norm is of them.
        *average,
        PreciseBatchNorm(config.optim.precise_bn_batches, failures),
        failures,
        FiniteLoss(),
    ]


def _announce(config: TrainConfig, datamodule: VideoDataModule, module: VideoTrainingModule, trainer: Trainer) -> None:
    if not trainer.is_global_zero:
        return
    clips = config.data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
    parameters = sum(p.numel() for p in module.network.parameters())
    print(
        f"{config.model.architecture} with context {config.model.context}: {parameters / 1e6:.2f}M parameters, "
        f"{len(module.class_names)} classes\n"
        f"train {len(datamodule.train_records)} videos ({len(datamodule.train_missing)} missing), "
        f"validate {len(datamodule.val.records)}\n"
        f"{clips} clips a step on {trainer.world_size} process(es); learning rate {config.optim.lr:g} per "
        f"{config.optim.lr_batch or clips} clips -> {scaled_lr(config.optim, clips):g}",
        flush=True,
    )


def _fit(trainer: Trainer, module: VideoTrainingModule, datamodule: VideoDataModule, start_from: str | None) -> None:
    with warnings.catch_warnings():
        # Advice that does not apply: worker counts are chosen, and short epochs are meant.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*The number of training batches.*")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step.*")
        # Frozen parts are meant to be.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        # A resumed run writes to the same folder.
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        # Lightning's own use of torch.
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        torch.set_float32_matmul_precision("high")
        if isinstance(trainer.accelerator, CPUAccelerator):
            workers = default_workers(datamodule.config.num_workers)
            torch.set_num_threads(network_threads(workers, trainer.num_devices))
        try:
            with loader_faults(datamodule.config.timeout_s):
                trainer.fit(module, datamodule=datamodule, ckpt_path=start_from, weights_only=True)
        except Exception as error:
            wait_for_children(take_children(trainer.strategy.launcher))
            if isinstance(error, VideoDecodeError):
                raise InputError(str(error)) from error
            if another_process_ended(error):
                raise InputError(
                    f"process {trainer.global_rank} of {trainer.world_size} stops, because another one has ended; its "
                    "message says why"
                ) from error
            raise
        except SystemExit:
            # Lightning's answer to Ctrl-C.
            raise KeyboardInterrupt from None
