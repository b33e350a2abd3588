"""Training steps: what `dnl-video train` does with a batch, and where its time goes.

`python -m dnl_video.bench.train CASE` prints the memory that a case's steps need on a CPU, in a process of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from dnl_video.bench.memory import grown_by
from dnl_video.config import OptimConfig, Precision, TrainConfig, TrainerConfig
from dnl_video.spec import Architecture, Context, ModelSpec
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.optim import make_optimizer

STAGES = ("data", "input", "forward", "backward", "update")
# Small: what the weights become does not matter, and they stay finite.
_LR = 1e-4


@dataclass(frozen=True)
class TrainCase:
    """What is measured.

    Attributes:
        architecture: Backbone.
        context: Its blocks, in their default form.
        precision: As trainer.precision.
        compiled: As trainer.compile.
        checkpointed: As trainer.activation_checkpointing.
        channels_last: As trainer.channels_last.
        batch: Clips a step.
        frames: Frames of a clip.
        size: Side of a clip in pixels.
        stem_channels: Width of the stem; 64 is the published network.
        num_classes: Outputs.
    """

    architecture: Architecture = "slow_r50"
    context: Context = "dnl"
    precision: Precision = "32-true"
    compiled: bool = False
    checkpointed: bool = False
    channels_last: bool = False
    batch: int = 8
    frames: int = 8
    size: int = 224
    stem_channels: int = 64
    num_classes: int = 400

    @property
    def mode(self) -> str:
        """What tables call its switches."""
        switched = (("channels_last", self.channels_last), ("checkpointed", self.checkpointed))
        return " ".join(["compiled" if self.compiled else "eager", *(name for name, on in switched if on)])

    def config(self) -> TrainConfig:
        """Return the run that takes such steps."""
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
    """A network, its optimiser and the batches it trains on; each `run` goes on where the last one stopped.

    Args:
        case: What is measured.
        device: Where.
        batches: Endless batches, as the training loader makes them.
    """

    def __init__(self, case: TrainCase, device: torch.device, batches: Iterator[dict[str, Any]]) -> None:
        torch.manual_seed(0)
        config = case.config()
        self.case, self.device, self.batches = case, device, batches
        self.module = VideoTrainingModule(config, [str(i) for i in range(case.num_classes)], {}).to(device).train()
        self.optimizer = make_optimizer(self.module.network, config.optim, _LR)
        self.scaler = torch.amp.GradScaler(device.type, enabled=case.precision == "16-mixed")

    def run(self, count: int) -> dict[str, float]:
        """Take ``count`` steps and return the mean seconds of each stage.

        On a GPU these are times between events in its own queue: "data" is how long it waits for a batch. On a CPU they
        are CPU times of this process, and for "data" the time on the wall, since other processes read videos.

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
            if not bool(torch.isfinite(loss)):  # training asks before each backward pass, and so waits
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
    """Return the same random clips again and again, on the device already."""
    generator = torch.Generator().manual_seed(0)
    size = (case.batch, case.frames, case.size, case.size, 3)
    clips = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, case.num_classes, (case.batch,), generator=generator)
    return itertools.repeat({"clip": clips.to(device), "label": labels.to(device)})


def _memory(case: TrainCase) -> int:
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    # Libraries load their code on first use.
    small = dataclasses.replace(case, batch=2, frames=2, size=32)
    Steps(small, cpu, synthetic_batches(small, cpu)).run(1)
    batches = synthetic_batches(case, cpu)
    return grown_by(lambda: Steps(case, cpu, batches).run(2))


if __name__ == "__main__":
    print(_memory(TrainCase(**json.loads(sys.argv[1]))))
