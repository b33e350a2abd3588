"""Compare one context block with its naive form, which makes the N x M attention matrix.

Both forms have the same weights and take turns in one process; the table shows medians. On a CPU times are CPU times
of one thread and memory is the peak of a child process; on a GPU both are CUDA's.

  python scripts/bench/block.py                                              nl and dnl at the sizes of res3 and res4
  python scripts/bench/block.py --block dnl --stage res4 --frames 8 --no-memory
  python scripts/bench/block.py --device cuda --precision fp32 bf16 --json block.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from command import make_parser, positive, print_table, progress, run_benchmark
from dnl_video.inference.device import check_cpu_precision
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from memory import grown_by, of_child_process, on_cuda
from naive import NaiveBlock3d
from timing import median_seconds

Variant = Literal["ours", "naive"]
Block = Literal["nl", "dnl", "dot_product"]
Precision = Literal["fp32", "bf16"]
VARIANTS: tuple[Variant, ...] = ("ours", "naive")
BLOCKS = ("nl", "dnl", "dot_product")
PASSES = ("forward", "training")
# Channels and side of the feature maps of a 224 x 224 clip, in the stages that have blocks.
STAGES = {"res3": (512, 28), "res4": (1024, 14)}
PEAK_OF = "--peak-of"  # of the child process that measures memory


@dataclass(frozen=True)
class BlockCase:
    """One row of the table: a block on an input [batch, channels, frames, height, height]."""

    block: Block
    channels: int
    height: int
    frames: int
    pooled: bool = False  # max-pool keys and values by (1, 2, 2)
    backward: bool = False  # forward and backward pass; otherwise forward without gradients
    batch: int = 1
    precision: Precision = "fp32"  # bf16 is autocast with a bf16 input

    @property
    def positions(self) -> int:
        """Positions N = T * H * W of one clip."""
        return self.frames * self.height**2

    def modules(self, device: torch.device) -> dict[Variant, nn.Module]:
        """Return our block and its naive form with the same weights, none of which is zero."""
        torch.manual_seed(0)
        pool = (1, 2, 2) if self.pooled else None
        ours: NonLocalBlock3d | DisentangledNonLocalBlock3d
        if self.block == "dnl":
            ours = DisentangledNonLocalBlock3d(self.channels, pool=pool, zero_init=False)
        else:
            similarity: Any = "embedded_gaussian" if self.block == "nl" else "dot_product"
            ours = NonLocalBlock3d(self.channels, pool=pool, attention=similarity, zero_init=False)
        ours.train(self.backward)
        return {"ours": ours.to(device), "naive": NaiveBlock3d(ours).train(self.backward).to(device)}

    def passes(self, device: torch.device) -> dict[Variant, Callable[[], Tensor]]:
        """Return a function for each variant that runs one pass over the same input [B, C, T, H, W]."""
        size = (self.batch, self.channels, self.frames, self.height, self.height)
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        x = torch.randn(size, device=device, dtype=dtype, requires_grad=self.backward)
        gradient = torch.randn(size, device=device, dtype=dtype) if self.backward else None
        return {name: self._pass(module, x, gradient) for name, module in self.modules(device).items()}

    def _pass(self, module: nn.Module, x: Tensor, gradient: Tensor | None) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                if gradient is None:
                    with torch.no_grad():
                        return module(x)
                y = module(x)
            x.grad = None
            module.zero_grad(set_to_none=True)
            y.backward(gradient)
            return y

        return run


@dataclass(frozen=True)
class BlockResult:
    """Seconds and peak bytes of a pass, by variant; bytes are None if they were not measured."""

    case: BlockCase
    seconds: dict[str, float]
    peak: dict[str, int | None]


def peak_bytes(case: BlockCase, variant: Variant, device: torch.device) -> int | None:
    """Return the peak memory of a pass beyond weights, input and the gradient of the output; None if unknown."""
    if device.type == "cuda":
        one_pass = case.passes(device)[variant]
        one_pass()  # allocates the workspace of cuBLAS, which is not counted
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated(device)
        return on_cuda(one_pass, device) - before
    return of_child_process(__file__, PEAK_OF, json.dumps(asdict(case)), variant)


def _peak_here(case: BlockCase, variant: Variant) -> int:
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    # Libraries load their code on first use, which is not the block's memory.
    BlockCase(**(asdict(case) | {"frames": 1, "height": 4})).passes(cpu)[variant]()
    return grown_by(case.passes(cpu)[variant])


def precisions(args: argparse.Namespace, device: torch.device) -> list[tuple[Any, int]]:
    """Return the precisions to measure with their batch sizes.

    Raises:
        InputError: The CPU would only emulate a precision.
    """
    on_gpu = device.type == "cuda"
    chosen = args.precision or (["bf16"] if on_gpu else ["fp32"])
    if device.type == "cpu" and "bf16" in chosen:
        check_cpu_precision("bf16-mixed")
    return [(precision, args.batch or (8 if on_gpu else 1)) for precision in chosen]


def add_size_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of block.py and network.py for keys, batch size and precision."""
    pools = ["unpooled", "pooled"]
    parser.add_argument("--keys", nargs="+", choices=pools, default=pools, help="Max-pooling of keys, values (both).")
    parser.add_argument("--batch", type=positive, help="Clips at once (1; on a GPU 8).")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], help="Precisions (fp32; on a GPU bf16).")


def measure(args: argparse.Namespace, device: torch.device) -> list[BlockResult]:
    """Measure all combinations of the options."""
    cases = [
        BlockCase(block, *STAGES[stage], frames, keys == "pooled", one_pass == "training", batch, precision)
        for precision, batch in precisions(args, device)
        for one_pass in args.passes
        for block in args.block
        for stage in args.stage
        for keys in args.keys
        for frames in args.frames
    ]
    results = []
    for case in cases:
        label = f"{case.block} N={case.positions}"
        passes: Any = case.passes(device)
        seconds = median_seconds(passes, device, repeats=args.repeats, budget_s=args.budget_s, label=label)
        peak: dict[str, int | None] = dict.fromkeys(VARIANTS)
        for variant in VARIANTS if args.memory else ():
            progress(f"{label} {variant}, memory")
            peak[variant] = peak_bytes(case, variant, device)
        results.append(BlockResult(case, seconds, peak))
    return results


def show(args: argparse.Namespace, results: list[BlockResult]) -> None:
    """Print one row for each case."""
    rows = []
    for result in results:
        case, ours, naive = result.case, result.seconds["ours"], result.seconds["naive"]
        keys = case.positions // 4 if case.pooled else case.positions
        cells = [case.block, f"{case.positions} x {keys}", str(case.channels)]
        cells += ["training" if case.backward else "forward", f"{case.batch} x {case.precision}"]
        cells += [f"{ours * 1e3:.1f}", f"{naive * 1e3:.1f}", f"{naive / ours:.2f}"]
        mine, theirs = result.peak["ours"], result.peak["naive"]
        if mine is not None and theirs is not None:
            cells += [f"{mine / 2**20:.0f}", f"{theirs / 2**20:.0f}", f"{mine / max(theirs, 1):.2f}"]
        rows.append(cells)
    memory = ("MiB", "naive MiB", "share") if args.memory else ()
    print_table(("block", "N x M", "C", "pass", "clips", "ms", "naive ms", "faster", *memory), rows)


def main(argv: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == [PEAK_OF]:
        print(_peak_here(BlockCase(**json.loads(words[1])), words[2]))
        return
    parser = make_parser(__doc__)
    parser.add_argument("--block", nargs="+", choices=BLOCKS, default=["nl", "dnl"], help="Blocks (nl dnl).")
    parser.add_argument("--stage", nargs="+", choices=list(STAGES), default=list(STAGES), help="Sizes (both).")
    parser.add_argument("--frames", nargs="+", type=positive, default=[8, 32], help="Frames of the input (8 32).")
    parser.add_argument("--pass", dest="passes", nargs="+", choices=PASSES, default=PASSES, help="Passes (both).")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="Measure time only.")
    add_size_options(parser)
    run_benchmark(parser, measure, show, argv)


if __name__ == "__main__":
    main()
