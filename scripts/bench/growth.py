"""Measure how the peak memory of an unpooled block grows with the number of positions N.

The exponent p is that of the least-squares fit bytes = c * N^p: about 1 for our blocks, about 2 for the naive form,
which makes the N x N attention matrix. Memory is what one pass needs beyond weights and input.

  python scripts/bench/growth.py
  python scripts/bench/growth.py --block nl --frames 2 4 8 --channels 256
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from block import BLOCKS, PASSES, VARIANTS, BlockCase, Variant, peak_bytes
from command import make_parser, positive, print_table, progress, run_benchmark
from dnl_video.errors import InputError


@dataclass(frozen=True)
class GrowthResult:
    """Peak bytes of a pass at several numbers of positions N, and the exponent of their growth."""

    variant: Variant
    backward: bool
    positions: tuple[int, ...]
    peak: tuple[int, ...]
    exponent: float


def growth_exponent(positions: Sequence[int], values: Sequence[float]) -> float:
    """Return the p of the least-squares fit ``log value = p log positions + c``."""
    x, y = [math.log(n) for n in positions], [math.log(v) for v in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread


def measure(args: argparse.Namespace, device: torch.device) -> list[GrowthResult]:
    """Measure both variants.

    Raises:
        InputError: There is nothing to fit, or memory cannot be measured here.
    """
    if len(args.frames) < 2:
        raise InputError(f"--frames is {args.frames}; give at least two numbers to fit a growth")
    results = []
    for one_pass in args.passes:
        training = one_pass == "training"
        for variant in VARIANTS:
            cases = [
                BlockCase(args.block, args.channels, args.height, t, backward=training) for t in sorted(args.frames)
            ]
            cases = [c for c in cases if variant == "ours" or c.positions <= args.largest_naive]
            found = []
            for case in cases:
                progress(f"{variant} N={case.positions}")
                peak = peak_bytes(case, variant, device)
                if peak is None:
                    raise InputError("memory of a CPU pass can be measured on Linux only")
                found.append(peak)
            positions = tuple(case.positions for case in cases)
            exponent = growth_exponent(positions, found)
            results.append(GrowthResult(variant, training, positions, tuple(found), exponent))
    return results


def show(args: argparse.Namespace, results: list[GrowthResult]) -> None:
    """Print one row for each variant and pass."""
    rows = []
    for result in results:
        sizes = [f"{peak / 2**20:.0f}" for peak in result.peak]
        sizes += ["-"] * (len(args.frames) - len(sizes))
        rows.append([result.variant, "training" if result.backward else "forward", *sizes, f"N^{result.exponent:.2f}"])
    print_table(("variant", "pass", *(f"N={t * args.height**2}" for t in sorted(args.frames)), "grows as"), rows)
    print("Peak MiB of a pass, beyond weights and input.")


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, repeats=None)
    parser.add_argument("--block", choices=BLOCKS, default="dnl", help="Block (%(default)s), unpooled.")
    parser.add_argument("--frames", nargs="+", type=positive, default=[2, 4, 8, 16, 32], help="Frames (2 4 8 16 32).")
    parser.add_argument("--channels", type=positive, default=512, help="Channels (%(default)s).")
    parser.add_argument("--height", type=positive, default=28, help="Height and width of the input (%(default)s).")
    parser.add_argument("--pass", dest="passes", nargs="+", choices=PASSES, default=PASSES, help="Passes (both).")
    help_naive = "Largest N at which the naive form is measured (%(default)s)."
    parser.add_argument("--largest-naive", type=positive, default=12544, help=help_naive)
    run_benchmark(parser, measure, show, argv)


if __name__ == "__main__":
    main()
