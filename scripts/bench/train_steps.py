"""Training steps as `dnl-video train` takes them: batches, steps timed by stage, and their memory."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dnl_video.config import AugmentConfig, DataConfig, OptimConfig, Precision, TrainConfig, TrainerConfig, ViewsConfig
from dnl_video.cores import default_workers
from dnl_video.data.loaders import VideoDataModule
from dnl_video.spec import Architecture, Context, ModelSpec, Preprocessing
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.optim import make_optimizer
from memory import grown_by
from videos import KINDS, generate

STAGES = ("data", "input", "forward", "backward", "update")
# Small, so that the weights stay finite.
_LR = 1e-4
# Entries of the generated list per clip of a batch: an epoch lasts 64 batches.
_BATCHES = 64


@dataclass(frozen=True)
class TrainCase:
    """One row of the table: a network and trainer options, on clips [batch, 3, frames, size, size]."""

    architecture: Architecture = "slow_r50"
    context: Context = "dnl"
    precision: Precision = "32-true"
    compiled: bool = False
    checkpointed: bool = False  # trainer.activation_checkpointing
    channels_last: bool = False
    batch: int = 8
    frames: int = 8
    size: int = 224
    stem_channels: int = 64
    num_classes: int = 400

    @property
    def mode(self) -> str:
        """Its switches, for tables."""
        switched = (("channels_last", self.channels_last), ("checkpointed", self.checkpointed))
        return " ".join(["compiled" if self.compiled else "eager", *(name for name, on in switched if on)])

    def config(self) -> TrainConfig:
        """Return the configuration of a run that takes such steps."""
        return TrainConfig(
            model=ModelSpec(self.architecture, self.context, self.num_classes, stem_channels=self.stem_channels),
            optim=OptimConfig(),
            trainer=TrainerConfig(
                compile=self.compiled,
                activation_checkpointing=self.checkpointed,
                channels_last=self.channels_last,
                precision=self.precision,
            ),
        )


class Steps:
    """A network, its optimiser and endless batches, synthetic by default; each `run` continues after the last one."""

    def __init__(self, case: TrainCase, device: torch.device, batches: Iterator[dict[str, Any]] | None = None) -> None:
        torch.manual_seed(0)
        config = case.config()
        self.case, self.device, self.batches = case, device, batches or synthetic_batches(case, device)
        self.module = VideoTrainingModule(config, [str(i) for i in range(case.num_classes)]).to(device).train()
        self.optimizer = make_optimizer(self.module.network, config.optim, _LR)
        self.scaler = torch.amp.GradScaler(device.type, enabled=case.precision == "16-mixed")

    def run(self, count: int) -> dict[str, float]:
        """Take ``count`` steps and return the mean seconds of each stage.

        On a GPU these are times between events in its queue, so that "data" is its idle time. On a CPU they are CPU
        times of this process, but for "data" wall-clock time, since other processes read the videos.

        Raises:
            RuntimeError: A loss is NaN or infinite.
        """
        dtype = torch.float16 if self.case.precision == "16-mixed" else torch.bfloat16
        half = torch.autocast(self.device.type, dtype, enabled=self.case.precision != "32-true")
        clock = _Clock(self.device)
        for number in range(count):
            batch = next(self.batches)
            clock.stop("data")
            with half:
                batch = self.module.transfer_batch_to_device(batch, self.device, 0)
                clips, target = self.module.inputs(batch, number)
                clock.stop("input")
                loss, _ = self.module.loss(clips, target)
            if not bool(torch.isfinite(loss)):  # training synchronises here too, before each backward pass
                raise RuntimeError(f"the loss is {loss.item()} in a measured step")
            clock.stop("forward")
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            clock.stop("backward")
            self.scaler.step(self.optimizer)
            self.scaler.update()
            clock.stop("update")
        return {stage: total / count for stage, total in clock.seconds().items()}


class _Clock:
    """Adds up seconds by stage."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []
        if self._cuda:
            torch.cuda.synchronize()
        self.stop("start")

    def stop(self, stage: str) -> None:
        """End a stage; the next one begins."""
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((stage, event))
        else:
            self._marks.append((stage, (time.process_time(), time.perf_counter())))

    def seconds(self) -> dict[str, float]:
        """Return the sums."""
        if self._cuda:
            torch.cuda.synchronize()
        found = dict.fromkeys(STAGES, 0.0)
        for (_, before), (stage, after) in itertools.pairwise(self._marks):
            if self._cuda:
                found[stage] += before.elapsed_time(after) / 1e3
            else:
                wall = stage == "data"
                found[stage] += after[wall] - before[wall]
        return found


def synthetic_batches(case: TrainCase, device: torch.device) -> Iterator[dict[str, Any]]:
    """Return the same random clips again and again, on the device."""
    generator = torch.Generator().manual_seed(0)
    size = (case.batch, case.frames, case.size, case.size, 3)
    clips = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, case.num_classes, (case.batch,), generator=generator)
    return itertools.repeat({"clip": clips.to(device), "label": labels.to(device)})


def memory_here(case: TrainCase) -> int:
    """Return the bytes that network, optimiser and steps need on a CPU, in this process."""
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    # Libraries load their code on first use.
    small = dataclasses.replace(case, batch=2, frames=2, size=32)
    Steps(small, cpu).run(1)
    batches = synthetic_batches(case, cpu)
    return grown_by(lambda: Steps(case, cpu, batches).run(2))


class VideoBatches:
    """Endless batches of a training loader: clips of every 8th frame, with the crop (scaled) and flip of the recipes.

    Raises:
        InputError: The list of videos cannot be used.
    """

    def __init__(
        self, manifest: str, *, batch: int, frames: int, size: int, num_workers: int | None, root: str | None = None
    ) -> None:
        datamodule = VideoDataModule(
            DataConfig(manifest, manifest, root, root, batch_size=batch, num_workers=num_workers),
            Preprocessing(num_frames=frames),
            AugmentConfig(short_side=(size * 8 // 7, size * 10 // 7), crop_size=size),
            ViewsConfig(),
            seed=0,
        )
        loader = datamodule.train_dataloader()
        self.batches = itertools.chain.from_iterable(itertools.repeat(loader))
        self.workers = default_workers(num_workers)
        self.stock = self.workers * (loader.prefetch_factor or 0)  # batches that the worker processes keep ready
        self.num_classes = 1 + max(record.label for record in datamodule.train_records if record.label is not None)

    def rate(self, batch: int) -> float:
        """Return the clips per second of the loader alone."""
        for _ in range(self.stock):
            next(self.batches)
        count, start = max(self.stock, 3), time.perf_counter()
        for _ in range(count):
            next(self.batches)
        return count * batch / (time.perf_counter() - start)


def generated_list(folder: Path, batch: int) -> str:
    """Write a list of two generated videos (340 x 256, GOP 12) under many names into ``folder``."""
    videos = generate(KINDS["gop12"], None, count=2, seconds=10)
    lines = []
    for number in range(batch * _BATCHES):
        name = folder / f"{number:05d}.mp4"
        name.symlink_to(videos[number % len(videos)])
        lines.append(f"{name} {number % 2}\n")
    path = folder / "list.txt"
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)
