"""Lightning's Trainer and loggers as a configuration and a launcher want them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from dnl_video.config import TrainConfig, TrainerConfig
from dnl_video.errors import InputError
from dnl_video.launcher import alone_under_slurm, devices_and_nodes


def make_loggers(config: TrainConfig, output: Path) -> list[Logger]:
    """Return the loggers that write to the run's folder.

    Raises:
        InputError: Weights & Biases is asked for and not installed.
    """
    # Lightning empties a CSV log it finds, so a resumed run writes beside the first one's.
    parts = len(list((output / "logs").glob("csv*")))
    loggers: list[Logger] = [
        CSVLogger(output, name="logs", version=f"csv-resumed-{parts}" if parts else "csv"),
        TensorBoardLogger(output, name="logs", version="tensorboard"),
    ]
    if config.trainer.wandb_project is not None:
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise InputError("trainer.wandb_project is set but wandb is not installed; pip install wandb") from error
        from lightning.pytorch.loggers import WandbLogger

        loggers.append(WandbLogger(project=config.trainer.wandb_project, save_dir=output))
    return loggers


def make_trainer(
    config: TrainConfig, callbacks: list[Callback], loggers: list[Logger], output: Path, **options: Any
) -> Trainer:
    """Return Lightning's Trainer for the configuration, on the processes that a launcher started.

    Args:
        config: The run.
        callbacks: In the order they are called.
        loggers: Where values go; none logs nothing.
        output: The run's folder.
        options: Further arguments of the Trainer.

    Raises:
        InputError: The settings fit neither this machine nor the launcher.
    """
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        # The hardware table; our own announcement says what is used.
        logging.getLogger(name).setLevel(logging.WARNING)
    settings = config.trainer
    if loggers:
        callbacks.append(LearningRateMonitor("step"))
    try:
        trainer = _build(settings, callbacks, loggers, output, options)
    except InputError:
        raise
    except (MisconfigurationException, ValueError, TypeError, IndexError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"trainer settings do not fit this machine: {reason}") from error
    if settings.sync_batchnorm and trainer.world_size > 1 and isinstance(trainer.accelerator, CPUAccelerator):
        raise InputError(
            f"trainer.sync_batchnorm is true for {trainer.world_size} processes on the CPU, where torch has none; set "
            "it to false, and for statistics of all processes optim.precise_bn_batches or optim.freeze_batch_norm"
        )
    return trainer


def validation_interval(wanted: int, max_epochs: int) -> int:
    """Return the most epochs between validations, up to ``wanted``, at which the last epoch is validated."""
    return next(n for n in range(min(wanted, max_epochs), 0, -1) if max_epochs % n == 0)


def _build(
    settings: TrainerConfig, callbacks: list[Callback], loggers: list[Logger], output: Path, options: dict[str, Any]
) -> Trainer:
    devices, num_nodes = devices_and_nodes(settings.devices, settings.num_nodes)
    plugins = options.pop("plugins", [])
    if alone_under_slurm():
        # Lightning would take this process for one of many.
        plugins = [*plugins, LightningEnvironment()]
    return Trainer(
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
        # Lightning's sampler pads validation with duplicates; ours deals every video once.
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        plugins=plugins,
        **options,
    )
