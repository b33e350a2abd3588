"""Fair timing: variants take turns in one process, medians count."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def alternate(
    variants: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    repeats: int,
    budget_s: float,
    advance: Callable[[str], None] = lambda name: None,
) -> dict[str, float]:
    """Time functions in turns and return each one's median in seconds.

    A CPU's times are CPU times, which other programs disturb less than a clock on the wall; a GPU's are taken by CUDA
    events. Each runs once unmeasured before.

    Args:
        variants: Functions by name.
        device: Where they run.
        repeats: Measured rounds.
        budget_s: Seconds after which no new round starts; three rounds are run all the same.
        advance: Told each variant's name before it runs.
    """
    rounds = take_turns(variants, device, repeats=repeats, budget_s=budget_s, advance=advance)
    return {name: statistics.median(values) for name, values in rounds.items()}


def take_turns(
    variants: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    repeats: int,
    budget_s: float,
    advance: Callable[[str], None] = lambda name: None,
    shuffle: bool = False,
) -> dict[str, list[float]]:
    """Time functions as `alternate` does and return each one's seconds in every round.

    Args:
        variants: Functions by name.
        device: Where they run.
        repeats: Measured rounds.
        budget_s: Seconds after which no new round starts; three rounds are run all the same.
        advance: Told each variant's name before it runs.
        shuffle: Another order every round: what one leaves behind (caches, freed memory) then meets all others alike.
    """
    measure = _cuda_seconds if device.type == "cuda" else _cpu_seconds
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for name, function in variants.items():
        advance(name)
        measure(function)
    orders = random.Random(0)
    start = time.monotonic()
    for done in range(repeats):
        if done >= 3 and time.monotonic() - start > budget_s:
            break
        names = list(variants)
        if shuffle:
            orders.shuffle(names)
        for name in names:
            advance(name)
            seconds[name].append(measure(variants[name]))
    return seconds


def describe(device: torch.device) -> str:
    """Return the device, threads and versions a figure was measured with."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}, CPU time"
    return f"{name}; torch {torch.__version__}"


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


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else "CPU"
