"""Compare whole networks: with naive blocks, with ours, compiled, and folded for inference on a CPU.

The variants of a network take turns in one process; the table shows medians. On a CPU times are CPU times of one
thread.

  python scripts/bench/network.py --context none nl dnl
  python scripts/bench/network.py --architecture slowfast_r50 --context dnl --frames 32 --training
  python scripts/bench/network.py --device cuda --context dnl --compile --json network.json
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import nn

from block import Precision, add_size_options, precisions
from command import make_parser, positive, print_table, run_benchmark
from dnl_video.models.create import create_model
from dnl_video.models.runtime.folding import optimize_for_inference
from dnl_video.spec import Architecture, Context
from memory import on_cuda
from naive import with_naive_blocks
from timing import median_seconds

# Contexts that have a naive form.
NAIVE = ("nl", "dnl", "pairwise")


@dataclass(frozen=True)
class NetworkCase:
    """One row of the table: a network on clips [batch, 3, frames, size, size]."""

    architecture: Architecture = "slow_r50"
    context: Context = "dnl"
    pooled: bool = True  # max-pool keys and values by (1, 2, 2)
    training: bool = False  # forward, loss, backward and an SGD step; otherwise a forward pass in evaluation mode
    batch: int = 1
    frames: int = 8
    size: int = 224
    precision: Precision = "fp32"  # bf16 is autocast
    compiled: bool = False  # also measure torch.compile of ours

    def passes(self, device: torch.device) -> dict[str, Callable[[], object]]:
        """Return a function for each variant: naive, ours, compiled if asked; folded on a CPU in evaluation."""
        torch.manual_seed(0)
        pool = (1, 2, 2) if self.pooled else None
        ours = create_model(self.architecture, context=self.context, dropout=0.0, pool=pool, zero_init=False).to(device)
        networks: dict[str, nn.Module] = {}
        if self.context in NAIVE:
            networks["naive"] = with_naive_blocks(copy.deepcopy(ours))
        networks["ours"] = ours
        if self.compiled:
            networks["compiled"] = torch.compile(copy.deepcopy(ours))
        if not self.training and device.type == "cpu" and self.precision == "fp32":
            networks["folded"] = optimize_for_inference(ours)
        clip = torch.randn(self.batch, 3, self.frames, self.size, self.size, device=device)
        labels = torch.zeros(self.batch, dtype=torch.long, device=device)
        return {
            name: self._step(network.train(), clip, labels) if self.training else self._forward(network.eval(), clip)
            for name, network in networks.items()
        }

    def _forward(self, network: nn.Module, clip: torch.Tensor) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode(), self._autocast(clip):
                return network(clip)

        return run

    def _step(self, network: nn.Module, clip: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

        def run() -> None:
            with self._autocast(clip):
                loss = F.cross_entropy(network(clip), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return run

    def _autocast(self, clip: torch.Tensor) -> torch.autocast:
        return torch.autocast(clip.device.type, torch.bfloat16, enabled=self.precision == "bf16")


@dataclass(frozen=True)
class NetworkResult:
    """Seconds of a pass and, on a GPU, peak bytes, by variant."""

    case: NetworkCase
    seconds: dict[str, float]
    peak: dict[str, int]


def measure(args: argparse.Namespace, device: torch.device) -> list[NetworkResult]:
    """Measure all combinations of the options."""
    sizes = {"frames": args.frames, "size": args.size, "training": args.training, "compiled": args.compile}
    cases = [
        NetworkCase(args.architecture, context, keys == "pooled", batch=batch, precision=precision, **sizes)
        for precision, batch in precisions(args, device)
        for context in args.context
        # A network without blocks has no keys.
        for keys in (args.keys if context != "none" else args.keys[:1])
    ]
    results = []
    for case in cases:
        passes = case.passes(device)
        seconds = median_seconds(passes, device, repeats=args.repeats, budget_s=args.budget_s, label=case.context)
        peak = {name: on_cuda(run, device) for name, run in passes.items()} if device.type == "cuda" else {}
        results.append(NetworkResult(case, seconds, peak))
    return results


def show(args: argparse.Namespace, results: list[NetworkResult]) -> None:
    """Print one row for each case."""
    measured = {name for result in results for name in result.seconds}
    names = [name for name in ("naive", "ours", "compiled", "folded") if name in measured]
    rows = []
    for result in results:
        case = result.case
        keys = "" if case.context == "none" else "pooled" if case.pooled else "unpooled"
        cells = [case.architecture, case.context, keys, f"{case.batch} x {case.precision}"]
        cells += [f"{result.seconds[name] * 1e3:.1f}" if name in result.seconds else "" for name in names]
        cells.append(f"{case.batch / result.seconds['ours']:.2f}")
        cells += [" / ".join(f"{peak / 2**30:.2f}" for peak in result.peak.values())] if result.peak else []
        rows.append(cells)
    memory = ["GiB"] if results[0].peak else []
    print_table(("network", "context", "keys", "", *(f"{name} ms" for name in names), "ours clips/s", *memory), rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    contexts, names = get_args(Context), get_args(Architecture)
    parser.add_argument("--architecture", choices=names, default="slow_r50", help="Backbone (%(default)s).")
    parser.add_argument(
        "--context", nargs="+", choices=contexts, default=["none", "nl", "dnl"], help="Blocks (none nl dnl)."
    )
    parser.add_argument("--training", action="store_true", help="Measure training steps instead of inference.")
    parser.add_argument("--frames", type=positive, default=8, help="Frames of a clip (%(default)s).")
    parser.add_argument("--size", type=positive, default=224, help="Side of a clip in pixels (%(default)s).")
    parser.add_argument("--compile", action="store_true", help="Also measure torch.compile.")
    add_size_options(parser)
    run_benchmark(parser, measure, show, argv)


if __name__ == "__main__":
    main()
