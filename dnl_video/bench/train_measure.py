"""Training steps of several cases in turns: seconds by stage, memory, and what context blocks add."""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dnl_video.bench.memory import of_own_process
from dnl_video.bench.train import STAGES, Steps, TrainCase, synthetic_batches

_WARM_UP = 2


@dataclass(frozen=True)
class TrainResult:
    """Medians over rounds, of one step.

    Attributes:
        case: What was measured.
        source: synthetic, or where the videos are from.
        step_s: Seconds.
        stages_s: Seconds of each stage.
        clips_per_s: Clips a second.
        peak: Most bytes that network, optimiser and steps need; None where unknown.
        added: Share of the step that the blocks add to the network without them; None without such a row.
    """

    case: TrainCase
    source: str
    step_s: float
    stages_s: dict[str, float]
    clips_per_s: float
    peak: int | None
    added: float | None


def measure_training(
    cases: Sequence[TrainCase],
    device: torch.device,
    videos: Iterator[dict[str, Any]] | None = None,
    *,
    source: str = "synthetic",
    stock: int = 0,
    steps: int,
    repeats: int,
    budget_s: float,
    memory: bool,
    advance: Callable[[str], None],
) -> list[TrainResult]:
    """Measure cases in turns, another order every round.

    Args:
        cases: What is measured; all of the same clips.
        device: Where.
        videos: Endless batches of videos, which the cases share; None for synthetic ones.
        source: What the batches are called.
        stock: Batches that loaders keep ready; they are thrown away before each measurement, so that a fast network
            does not live on what was read during a slow one's steps.
        steps: Steps a round.
        repeats: Rounds.
        budget_s: Seconds after which no new round starts; three are run all the same.
        memory: Measure memory, too.
        advance: Told what is measured next.
    """
    started: list[Steps] = []
    peaks: list[int | None] = []
    for case in cases:
        advance(f"{case.context} {case.precision} {case.mode}, warming up")
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        started.append(Steps(case, device, videos or synthetic_batches(case, device)))
        started[-1].run(_WARM_UP)
        peaks.append(_peak(started[-1], before) if memory else None)
    rounds: list[dict[int, dict[str, float]]] = []
    orders, start = random.Random(0), time.monotonic()
    for done in range(repeats):
        if done >= 3 and time.monotonic() - start > budget_s:
            break
        rounds.append({})
        for index in orders.sample(range(len(cases)), len(cases)):
            case = cases[index]
            advance(f"{case.context} {case.precision} {case.mode}, round {done + 1}")
            if videos is not None:
                for _ in range(stock):
                    next(videos)
                started[index].run(1)
            rounds[-1][index] = started[index].run(steps)
    return [_result(index, cases, source, rounds, peaks[index]) for index in range(len(cases))]


def _result(
    index: int, cases: Sequence[TrainCase], source: str, rounds: list[dict[int, dict[str, float]]], peak: int | None
) -> TrainResult:
    case = cases[index]
    step_s = statistics.median(sum(found[index].values()) for found in rounds)
    bare = dataclasses.replace(case, context="none")
    added = None
    if case != bare and bare in cases:
        without = cases.index(bare)
        added = statistics.median(1 - sum(found[without].values()) / sum(found[index].values()) for found in rounds)
    stages = {stage: statistics.median(found[index][stage] for found in rounds) for stage in STAGES}
    return TrainResult(case, source, step_s, stages, case.batch / step_s, peak, added)


def _peak(steps: Steps, before: int) -> int | None:
    """Return the most bytes a case needs: beyond ``before`` on a GPU, in a process of its own on a CPU."""
    if steps.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(steps.device)
        steps.run(1)
        return torch.cuda.max_memory_allocated(steps.device) - before
    return of_own_process("dnl_video.bench.train", json.dumps(dataclasses.asdict(steps.case)))
