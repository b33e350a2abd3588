"""Timing in turns, peak memory, and the growth of memory with the number of positions."""

from __future__ import annotations

import json
import mmap
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import growth
from block import BlockCase, peak_bytes
from memory import grown_by
from timing import median_seconds, take_turns

CPU = torch.device("cpu")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_growth_exponent_is_the_slope_in_logarithms() -> None:
    assert growth.growth_exponent([2, 4, 8], [12.0, 48.0, 192.0]) == pytest.approx(2)
    assert growth.growth_exponent([10, 1000], [5.0, 5.0]) == pytest.approx(0)


def test_variants_take_turns_within_the_budget() -> None:
    order: list[str] = []
    variants = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = median_seconds(variants, CPU, repeats=4, budget_s=1e9, label="")
    assert order == ["a", "b"] * 5  # one round unmeasured
    assert set(seconds) == {"a", "b"}
    order.clear()
    median_seconds(variants, CPU, repeats=9, budget_s=0, label="")
    assert order == ["a", "b"] * 4  # at least three measured rounds


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
def test_memory_growth_is_the_peak_during_the_call() -> None:
    def hold() -> None:
        # New mappings: an allocator may reuse memory that the process already has.
        pages = [mmap.mmap(-1, 2**26) for _ in range(2)]
        for page in pages:
            np.frombuffer(page, dtype=np.uint8)[:] = 1

    assert grown_by(hold) == pytest.approx(2 * 2**26, rel=0.1)


@linux
def test_peak_of_the_naive_form_includes_its_attention_matrix() -> None:
    case = BlockCase("dnl", 8, height=56, frames=1)  # N = 3136: a map of 37.5 MiB, which it scales and normalises
    naive, ours = (peak_bytes(case, variant, CPU) for variant in ("naive", "ours"))
    assert naive is not None
    assert ours is not None
    assert naive >= 2 * 3136**2 * 4
    assert ours < 3136**2 * 4


@linux
@pytest.mark.full
def test_our_memory_grows_linearly_and_that_of_the_naive_form_quadratically(
    full_size: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--device cpu --channels 64 --frames 4 8 --largest-naive 6272"
    if full_size:
        words = "--device cpu --channels 512 --frames 2 4 8 16 32 --largest-naive 12544"
    # Most of the time is the start of processes.
    passes = ["forward", "training"] if full_size else ["training"]
    growth.main([*words.split(), "--pass", *passes, "--json", str(tmp_path / "growth.json")])
    assert "N=6272" in capsys.readouterr().out
    results = json.loads((tmp_path / "growth.json").read_text())["results"]
    found = {(r["variant"], r["backward"]): r for r in results}
    assert len(found) == 2 * len(passes)
    for backward in [one == "training" for one in passes]:
        ours, naive = found["ours", backward], found["naive", backward]
        assert ours["exponent"] <= 1.15
        assert naive["exponent"] >= 1.5
        at = ours["positions"].index(6272)
        assert ours["peak"][at] <= naive["peak"][at] / 4
