"""Create Lightning's Trainer and loggers from the configuration and the launcher."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from dnl_video.config import TrainConfig
from dnl_video.errors import InputError
from dnl_video.files import list_folder
from dnl_video.launcher import alone_under_slurm, devices_and_nodes, local_rank


def make_loggers(config: TrainConfig, output: Path) -> list[Logger]:
    """Return the loggers that write to the run's folder.

    Raises:
        InputError: trainer.wandb_project or mlflow_experiment is set, but its package is not installed.
    """
    # Lightning deletes an existing CSV log, so a resumed run writes a new one.
    parts = len(list_folder(output / "logs", "csv*"))
    loggers: list[Logger] = [
        CSVLogger(output, name="logs", version=f"csv-resumed-{parts}" if parts else "csv"),
        TensorBoardLogger(output, name="logs", version="tensorboard"),
    ]
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")  # MLflow's default
    others: dict[str, Callable[[str], Logger]] = {
        "wandb_project": lambda name: WandbLogger(project=name, save_dir=output),
        "mlflow_experiment": lambda name: MLFlowLogger(name, run_name=output.name, tracking_uri=tracking),
    }
    for key, make in others.items():
        name, package = getattr(config.trainer, key), key.partition("_")[0]
        try:  # several processes must not create one database
            loggers += [] if name is None or local_rank() else [make(name)]
        except ModuleNotFoundError as error:
            raise InputError(f"trainer.{key} is set but {package} is not installed; pip install {package}") from error
    return loggers


def make_trainer(
    config: TrainConfig, callbacks: list[Callback], loggers: list[Logger], output: Path, **options: Any
) -> Trainer:
    """Return Lightning's Trainer for the configuration and the launcher; ``options`` are its other arguments.

    Raises:
        InputError: The settings do not fit this machine or the launcher.
    """
    # Lightning's notes, such as its table of the hardware, are for --verbose; run.py logs the devices.
    verbose = logging.getLogger("dnl_video").isEnabledFor(logging.DEBUG)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.WARNING)
    settings = config.trainer
    devices, num_nodes = devices_and_nodes(settings.devices, settings.num_nodes)
    if loggers:
        callbacks.append(LearningRateMonitor("step"))
    if alone_under_slurm():
        # Otherwise Lightning would expect one process per SLURM task.
        options["plugins"] = [*options.get("plugins", []), LightningEnvironment()]
    if config.data.val_manifest is None:
        options["limit_val_batches"] = 0
    try:
        trainer = Trainer(
            max_epochs=settings.max_epochs,
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=num_nodes,
            precision=settings.precision,
            accumulate_grad_batches=settings.accumulate_grad_batches,
            gradient_clip_val=settings.gradient_clip_val,
            sync_batchnorm=settings.sync_batchnorm,
            check_val_every_n_epoch=validation_interval(settings.check_val_every_n_epoch, settings.max_epochs),
            log_every_n_steps=settings.log_every_n_steps,
            default_root_dir=output,
            callbacks=callbacks,
            logger=loggers or False,
            # Lightning's sampler pads validation with duplicates; ours gives every video once.
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=False,  # ClipProgress draws ours
            **options,
        )
    except (MisconfigurationException, ValueError, TypeError, IndexError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"trainer settings do not fit this machine: {reason}") from error
    cores, wanted = os.cpu_count() or 1, settings.devices
    if wanted != "auto" and wanted > max(cores, 2) and isinstance(trainer.accelerator, CPUAccelerator):
        raise InputError(f"trainer.devices is {wanted}, but the CPU has {cores} core(s); give at most that")
    if settings.sync_batchnorm and trainer.world_size > 1 and isinstance(trainer.accelerator, CPUAccelerator):
        raise InputError(
            f"trainer.sync_batchnorm is true for {trainer.world_size} processes on the CPU, which torch does not "
            "support; set it to false, and use optim.precise_bn_batches or optim.freeze_batch_norm instead"
        )
    return trainer


def validation_interval(wanted: int, max_epochs: int) -> int:
    """Return the largest interval between validations, at most ``wanted`` epochs, that validates the last epoch."""
    return next(n for n in range(min(wanted, max_epochs), 0, -1) if max_epochs % n == 0)
