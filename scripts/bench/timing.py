"""Fair timing: variants take turns in one process, and medians count."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import torch

from command import progress

Key = TypeVar("Key")
Result = TypeVar("Result")


def median_seconds(
    variants: Mapping[str, Callable[[], object]], device: torch.device, *, repeats: int, budget_s: float, label: str
) -> dict[str, float]:
    """Return the median seconds of each variant, measured by `take_turns`."""
    rounds = take_turns(variants, device, repeats=repeats, budget_s=budget_s, label=label)
    return {name: statistics.median(seconds) for name, seconds in rounds.items()}


def take_turns(
    variants: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    repeats: int,
    budget_s: float,
    label: str = "",
    shuffle: bool = False,
) -> dict[str, list[float]]:
    """Time functions in turns and return the seconds of each in every round.

    On a CPU these are CPU times, which other programs disturb less than wall-clock times; on a GPU they are measured
    with CUDA events. Each function runs once unmeasured before the first round.

    Args:
        variants: Functions by name.
        device: Where they run.
        repeats: Measured rounds.
        budget_s: Seconds after which no round starts, but at least three rounds run.
        label: Shown before the name of the variant.
        shuffle: Change the order in every round, so that caches and freed memory affect all variants alike.
    """
    measure = _cuda_seconds if device.type == "cuda" else _cpu_seconds

    def timed(name: str) -> float:
        progress(f"{label} {name}".strip())
        return measure(variants[name])

    functions = {name: partial(timed, name) for name in variants}
    for function in functions.values():
        function()
    return rounds(functions, repeats=repeats, budget_s=budget_s, shuffle=shuffle)


def rounds(
    functions: Mapping[Key, Callable[[], Result]], *, repeats: int, budget_s: float, shuffle: bool
) -> dict[Key, list[Result]]:
    """Call functions in turns and return what each returned in every round; for the options see `take_turns`."""
    results: dict[Key, list[Result]] = {key: [] for key in functions}
    orders, start = random.Random(0), time.monotonic()
    for done in range(repeats):
        if done >= 3 and time.monotonic() - start > budget_s:
            break
        keys = list(functions)
        if shuffle:
            orders.shuffle(keys)
        for key in keys:
            results[key].append(functions[key]())
    return results


def _cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def _cuda_seconds(function: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3
