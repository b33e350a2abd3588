from __future__ import annotations

import sys

import pytest
import torch

from dnl_video.bench.block import BlockCase
from dnl_video.bench.measure import growth_exponent, measure_growth
from dnl_video.bench.memory import peak_bytes
from dnl_video.bench.timing import alternate, take_turns

CPU = torch.device("cpu")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_growth_exponent_is_the_slope_in_logarithms() -> None:
    assert growth_exponent([2, 4, 8], [12.0, 48.0, 192.0]) == pytest.approx(2)
    assert growth_exponent([10, 1000], [5.0, 5.0]) == pytest.approx(0)


def test_variants_take_turns_and_medians_count() -> None:
    order: list[str] = []
    variants = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = alternate(variants, CPU, repeats=4, budget_s=1e9)
    assert order == ["a", "b"] * 5  # one round unmeasured
    assert set(seconds) == {"a", "b"}
    order.clear()
    alternate(variants, CPU, repeats=9, budget_s=0)
    assert order == ["a", "b"] * 4  # three measured ones whatever the budget


def test_shuffled_rounds_have_each_variant_once_in_changing_orders() -> None:
    order: list[str] = []
    variants = {name: (lambda name=name: order.append(name)) for name in "abcd"}
    rounds = take_turns(variants, CPU, repeats=10, budget_s=1e9, shuffle=True)
    assert {name: len(seconds) for name, seconds in rounds.items()} == dict.fromkeys("abcd", 10)
    turns = ["".join(order[i : i + 4]) for i in range(0, 44, 4)]
    assert turns[0] == "abcd"
    assert all(sorted(turn) == list("abcd") for turn in turns)
    assert len(set(turns)) > 4


@linux
def test_peak_is_at_least_the_map_the_literal_form_makes() -> None:
    case = BlockCase("dnl", 8, frames=1, height=56)  # N = 3136: a map of 37.5 MiB, and it scales and normalises it
    naive, ours = (peak_bytes(case, variant, CPU) for variant in ("naive", "ours"))
    assert naive is not None
    assert ours is not None
    assert naive >= 2 * 3136**2 * 4
    assert ours < 3136**2 * 4


@linux
@pytest.mark.full
def test_our_memory_grows_linearly_and_the_literal_form_s_quadratically(full_size: bool) -> None:
    channels, height, frames = (512, 28, (2, 4, 8, 16, 32)) if full_size else (64, 28, (4, 8))
    # Most of the time goes into starting processes.
    passes = (False, True) if full_size else (True,)
    results = measure_growth(
        "dnl",
        frames,
        CPU,
        channels=channels,
        height=height,
        largest_naive=12544 if full_size else 6272,
        advance=lambda _: None,
        backward=passes,
    )
    found = {(r.variant, r.backward): r for r in results}
    assert len(found) == 2 * len(passes)
    for backward in passes:
        ours, naive = found["ours", backward], found["naive", backward]
        assert ours.exponent <= 1.15
        assert naive.exponent >= 1.5
        at = ours.positions.index(6272)
        assert ours.peak[at] <= naive.peak[at] / 4
