"""`dnl-video bench`: how fast the blocks and networks are here, against the form that public code has."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from dnl_video.cli.bench_data import add_data_arguments, bench_data
from dnl_video.cli.bench_output import print_table, progress
from dnl_video.cli.bench_train import EXAMPLES, add_train_arguments, bench_train
from dnl_video.errors import InputError
from dnl_video.spec import Architecture, Context

if TYPE_CHECKING:
    import torch

DESCRIPTION = """Measure speed and memory on this machine.

  dnl-video bench block                        one block against its literal form, which makes the N x M map
  dnl-video bench growth                       how its memory grows with the number of positions
  dnl-video bench network --context nl dnl     whole networks: literal blocks, ours, and folded for inference
  dnl-video bench train --context none dnl     training steps by stage, eager and compiled, and what the blocks add
  dnl-video bench data                         clips a second a core: reading, cropping and batching videos

Variants take turns in one process and medians are shown. On a CPU times are CPU times of one thread, and memory is the
peak of a process of its own; on a GPU both are CUDA's. `dnl-video bench block --help` explains the options of one."""

_BLOCKS = ("nl", "dnl", "dot_product")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be measured, each with its options."""
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    block = subjects.add_parser("block", help="One block against its literal form.")
    block.add_argument("--block", nargs="+", choices=_BLOCKS, default=["nl", "dnl"], help="Blocks (nl dnl).")
    block.add_argument("--stage", nargs="+", choices=["res3", "res4"], default=["res3", "res4"], help="Sizes (both).")
    block.add_argument("--frames", nargs="+", type=int, default=[8, 32], help="Frames (8 32).")
    block.add_argument("--keys", nargs="+", choices=["unpooled", "pooled"], default=["unpooled", "pooled"])
    block.add_argument("--pass", dest="passes", nargs="+", choices=["forward", "training"], help="Passes (both).")
    block.add_argument("--no-memory", dest="memory", action="store_false", help="Time only.")
    growth = subjects.add_parser("growth", help="Memory against the number of positions.")
    growth.add_argument("--block", choices=_BLOCKS, default="dnl", help="Block (%(default)s), unpooled.")
    growth.add_argument("--frames", nargs="+", type=int, default=[2, 4, 8, 16, 32], help="Frames of 28 x 28 positions.")
    growth.add_argument("--channels", type=int, default=512, help="Channels (%(default)s).")
    growth.add_argument("--height", type=int, default=28, help="Height and width of the maps (%(default)s).")
    growth.add_argument(
        "--largest-naive", type=int, default=12544, help="Positions beyond which the literal form is left out."
    )
    network = subjects.add_parser("network", help="Whole networks.")
    network.add_argument("--architecture", choices=get_args(Architecture), default="slow_r50")
    network.add_argument("--context", nargs="+", choices=get_args(Context), default=["none", "nl", "dnl"])
    network.add_argument("--keys", nargs="+", choices=["unpooled", "pooled"], default=["unpooled", "pooled"])
    network.add_argument("--training", action="store_true", help="Training steps instead of inference.")
    network.add_argument("--frames", type=int, default=8, help="Frames of a clip (%(default)s).")
    network.add_argument("--size", type=int, default=224, help="Side of a clip in pixels (%(default)s).")
    network.add_argument("--compile", action="store_true", help="Also measure torch.compile.")
    data = subjects.add_parser(
        "data",
        help="Reading videos: training clips and evaluation views.",
        description="How many training clips and evaluation views one core makes in a second, of generated videos or "
        "of yours: dnl-video bench data --files a.mp4 b.mp4.",
    )
    add_data_arguments(data)
    train = subjects.add_parser(
        "train",
        help="Training steps: where their time goes, and what blocks add.",
        description=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_train_arguments(train)
    for subject in (block, network):
        subject.add_argument("--batch", type=int, help="Clips at once (1; on a GPU 8).")
        subject.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], help="Precisions (fp32; GPU: bf16).")
        subject.add_argument("--repeats", type=int, default=9, help="Measured rounds (%(default)s).")
        subject.add_argument("--budget-s", type=float, default=60.0, help="Seconds a case may take (%(default)s).")
    for subject in (block, growth, network, train, data):
        subject.add_argument("--json", help="Also write the figures to this file.")
    for subject in (block, growth, network, train):
        subject.add_argument("--device", default="auto", help="auto, cpu, cuda (or cuda:N) (%(default)s).")
        subject.add_argument("--threads", type=int, default=1, help="Threads on a CPU (%(default)s).")


def run(args: argparse.Namespace) -> int:
    """Measure and print a table.

    Raises:
        InputError: A number is out of range, or the device is not here.
    """
    import torch

    from dnl_video.bench.timing import describe
    from dnl_video.inference.device import resolve_device

    numbers = ("frames", "batch", "repeats", "threads", "size", "channels", "height", "seconds", "clips")
    for name in (*numbers, "batch_size", "crop_size", "stem_channels", "steps"):
        given = getattr(args, name, None)
        if given is not None and min(given if isinstance(given, list) else [given]) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {given}; give at least 1")
    if args.subject == "growth" and len(args.frames) < 2:
        raise InputError(f"--frames is {args.frames}; give at least two numbers to fit a growth")
    on_cpu = args.subject == "data"
    device = torch.device("cpu") if on_cpu else resolve_device(args.device)
    torch.set_num_threads(1 if on_cpu else args.threads)
    where = describe(device)
    subjects = {"block": _block, "growth": _growth, "network": _network, "train": bench_train, "data": bench_data}
    records = subjects[args.subject](args, device)
    print(f"measured on {where}")
    if args.json:
        path = Path(args.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"measured_on": where, "results": records}, indent=1) + "\n", encoding="utf-8")
        print(f"figures: {path}")
    return 0


def _block(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    from dnl_video.bench.block import STAGES, BlockCase
    from dnl_video.bench.measure import measure_blocks

    cases = [
        BlockCase(
            block, STAGES[stage][0], frames, STAGES[stage][1], keys == "pooled", which == "training", batch, precision
        )
        for precision, batch in _precisions(args, device)
        for which in args.passes or ("forward", "training")
        for block in args.block
        for stage in args.stage
        for keys in args.keys
        for frames in args.frames
    ]
    rows, records = [], []
    with progress() as advance:
        for result in measure_blocks(
            cases, device, repeats=args.repeats, budget_s=args.budget_s, memory=args.memory, advance=advance
        ):
            case, ours, naive = result.case, result.seconds["ours"], result.seconds["naive"]
            keys = case.positions // 4 if case.pooled else case.positions
            cells = [case.block, f"{case.positions} x {keys}", str(case.channels)]
            cells += ["training" if case.backward else "forward", f"{case.batch} x {case.precision}"]
            cells += [f"{ours * 1e3:.1f}", f"{naive * 1e3:.1f}", f"{naive / ours:.2f}"]
            mine, theirs = result.peak["ours"], result.peak["naive"]
            if mine is not None and theirs is not None:
                cells += [f"{mine / 2**20:.0f}", f"{theirs / 2**20:.0f}", f"{mine / max(theirs, 1):.2f}"]
            rows.append(cells)
            records.append(asdict(result))
    memory = ("MiB", "literal", "share") if args.memory else ()
    print_table(("block", "N x M", "C", "pass", "clips", "ms", "literal", "faster", *memory), rows)
    return records


def _growth(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    from dnl_video.bench.measure import measure_growth

    rows, records = [], []
    with progress() as advance:
        results = measure_growth(
            args.block,
            sorted(args.frames),
            device,
            channels=args.channels,
            height=args.height,
            largest_naive=args.largest_naive,
            advance=advance,
        )
        for result in results:
            sizes = [f"{peak / 2**20:.0f}" for peak in result.peak]
            sizes += ["-"] * (len(args.frames) - len(sizes))
            name = "literal" if result.variant == "naive" else "ours"
            rows.append([name, "training" if result.backward else "forward", *sizes, f"L^{result.exponent:.2f}"])
            records.append(asdict(result))
    if not records:
        raise InputError("memory of a CPU pass can be measured on Linux only")
    print_table(("variant", "pass", *(f"L={t * args.height**2}" for t in sorted(args.frames)), "grows as"), rows)
    print("peak MiB of a pass beyond weights and input")
    return records


def _network(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    from dnl_video.bench.measure import measure_networks
    from dnl_video.bench.network import NetworkCase

    cases = [
        NetworkCase(
            args.architecture,
            context,
            keys == "pooled",
            args.training,
            batch,
            args.frames,
            args.size,
            precision,
            args.compile,
        )
        for precision, batch in _precisions(args, device)
        for context in args.context
        # A network without blocks has no keys.
        for keys in (args.keys if context != "none" else args.keys[:1])
    ]
    names = ["naive", "ours", *(["compiled"] if args.compile else []), *(["folded"] if device.type == "cpu" else [])]
    rows, records = [], []
    with progress() as advance:
        for result in measure_networks(cases, device, repeats=args.repeats, budget_s=args.budget_s, advance=advance):
            case = result.case
            keys = "" if case.context == "none" else "pooled" if case.pooled else "unpooled"
            cells = [case.architecture, case.context, keys, f"{case.batch} x {case.precision}"]
            for name in names:
                seconds = result.seconds.get(name)
                cells.append("" if seconds is None else f"{seconds * 1e3:.1f}")
            cells += [f"{case.batch / result.seconds['ours']:.2f}"]
            cells += [" / ".join(f"{peak / 2**30:.2f}" for peak in result.peak.values())] if result.peak else []
            rows.append(cells)
            records.append(asdict(result))
    shown = ["literal" if name == "naive" else name for name in names]
    memory = ["GiB"] if device.type == "cuda" else []
    print_table(("network", "context", "keys", "", *(f"{name} ms" for name in shown), "ours clips/s", *memory), rows)
    return records


def _precisions(args: argparse.Namespace, device: torch.device) -> list[tuple[Any, int]]:
    """Return precisions with their batch sizes; a CPU that would emulate one is refused."""
    from dnl_video.inference.device import check_cpu_precision

    on_gpu = device.type == "cuda"
    chosen = args.precision or (["bf16"] if on_gpu else ["fp32"])
    if device.type == "cpu" and "bf16" in chosen:
        check_cpu_precision("bf16-mixed")
    return [(precision, args.batch or (8 if on_gpu else 1)) for precision in chosen]
