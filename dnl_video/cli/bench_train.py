"""`dnl-video bench train`: training steps a second, where their time goes, and what context blocks add."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from dnl_video.cli.bench_output import print_table, progress
from dnl_video.config import Precision
from dnl_video.spec import Architecture, Context

if TYPE_CHECKING:
    import torch

    from dnl_video.bench.train import TrainCase
    from dnl_video.bench.train_measure import TrainResult

EXAMPLES = """Training steps: clips a second, milliseconds by stage, memory, and the share that context blocks add.

  dnl-video bench train --context none nl dnl --precision bf16-mixed --compile     eager and compiled
  dnl-video bench train --context none dnl --activation-checkpointing              stored and recomputed activations
  dnl-video bench train --input synthetic videos --num-workers 16                  with generated videos
  dnl-video bench train --input videos --videos train.csv --root /data/k400/train  with your own

A step is what `dnl-video train` does with a batch: wait for it (data), copy to the device and normalise
(input), forward and loss, backward, optimiser (update). On a GPU the stages are times in its queue, so that data is
how long it has nothing to do; on a CPU they are CPU times, and data is on the wall."""


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench train`."""
    parser.add_argument("--architecture", choices=get_args(Architecture), default="slow_r50")
    parser.add_argument("--context", nargs="+", choices=get_args(Context), default=["none", "nl", "dnl"])
    parser.add_argument(
        "--precision", nargs="+", choices=get_args(Precision), help="Precisions (32-true; GPU: bf16-mixed)."
    )
    parser.add_argument("--compile", action="store_true", help="Also measure torch.compile.")
    parser.add_argument(
        "--activation-checkpointing", action="store_true", help="Also measure blocks recomputed in the backward pass."
    )
    parser.add_argument("--channels-last", action="store_true", help="Lay weights out as channels_last_3d in all rows.")
    parser.add_argument("--batch-size", type=int, help="Clips a step (2; on a GPU 8).")
    parser.add_argument("--frames", type=int, default=8, help="Frames of a clip (%(default)s).")
    parser.add_argument("--crop-size", type=int, default=224, help="Side of a clip in pixels (%(default)s).")
    parser.add_argument("--stem-channels", type=int, default=64, help="Width of the network (%(default)s).")
    parser.add_argument(
        "--input",
        nargs="+",
        choices=["synthetic", "videos"],
        default=["synthetic"],
        help="Clips that lie on the device, or come from videos through the training loader (synthetic).",
    )
    parser.add_argument("--videos", help="List or class folder of the videos (two generated ones).")
    parser.add_argument("--root", help="Folder that the list's paths are looked up in.")
    parser.add_argument("--num-workers", type=int, help="Loader processes (the cores available, 8 at most).")
    parser.add_argument("--steps", type=int, help="Steps a round (1; on a GPU 10).")
    parser.add_argument("--repeats", type=int, default=9, help="Measured rounds (%(default)s).")
    parser.add_argument("--budget-s", type=float, default=60.0, help="Seconds a precision may take (%(default)s).")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="Time only.")


def bench_train(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Measure, print a table and return the figures.

    Raises:
        InputError: The precision would be emulated or wrong, or the videos cannot be used.
    """
    import torch

    from dnl_video.inference.device import check_cpu_precision
    from dnl_video.training.precision import check_precision

    on_gpu = device.type == "cuda"
    precisions = args.precision or (["bf16-mixed"] if on_gpu else ["32-true"])
    if device.type == "cpu":
        for precision in precisions:
            check_cpu_precision(precision)
            check_precision(precision, on_cpu=True)
    # As training does.
    torch.set_float32_matmul_precision("high")
    results: list[TrainResult] = []
    for source in args.input:
        for precision in precisions:
            results += _measure(args, device, source, precision)
            # Compiled code of the last precision is not needed any more.
            torch.compiler.reset()
    _print(results)
    return [asdict(result) for result in results]


def _cases(args: argparse.Namespace, precision: Precision, on_gpu: bool) -> list[TrainCase]:
    from dnl_video.bench.train import TrainCase

    plain = TrainCase(
        architecture=args.architecture,
        precision=precision,
        channels_last=args.channels_last,
        batch=args.batch_size or (8 if on_gpu else 2),
        frames=args.frames,
        size=args.crop_size,
        stem_channels=args.stem_channels,
    )
    return [
        replace(plain, context=context, compiled=compiled, checkpointed=checkpointed)
        for checkpointed in ([False, True] if args.activation_checkpointing else [False])
        for compiled in ([False, True] if args.compile else [False])
        for context in args.context
    ]


def _measure(args: argparse.Namespace, device: torch.device, source: str, precision: Precision) -> list[TrainResult]:
    from dnl_video.bench.train_measure import measure_training
    from dnl_video.bench.train_videos import generated_list, loader_rate, video_batches

    on_gpu = device.type == "cuda"
    cases = _cases(args, precision, on_gpu)
    batch, videos, stock = cases[0].batch, None, 0
    with tempfile.TemporaryDirectory() as folder, progress() as advance:
        if source == "videos":
            manifest = args.videos or generated_list(Path(folder), batch, advance)
            advance("the loader alone")
            found = video_batches(
                manifest,
                batch=batch,
                frames=args.frames,
                size=args.crop_size,
                num_workers=args.num_workers,
                root=args.root,
            )
            source = args.videos or "generated"
            rate = loader_rate(found, batch)
            print(f"{source} videos, loader alone with {found.workers} processes: {rate:.1f} clips/s", flush=True)
            cases = [replace(case, num_classes=max(case.num_classes, found.num_classes)) for case in cases]
            videos, stock = found.batches, found.stock
        return measure_training(
            cases,
            device,
            videos,
            source=source,
            stock=stock,
            steps=args.steps or (10 if on_gpu else 1),
            repeats=args.repeats,
            budget_s=args.budget_s,
            memory=args.memory,
            advance=advance,
        )


def _print(results: list[TrainResult]) -> None:
    from dnl_video.bench.train import STAGES

    rows = []
    for result in results:
        case = result.case
        videos = [] if result.source == "synthetic" else ["videos"]
        cells = [" ".join([case.context, case.precision, case.mode, *videos])]
        cells += [f"{result.clips_per_s:.2f}", f"{result.step_s * 1e3:.1f}"]
        cells += [f"{result.stages_s[stage] * 1e3:.1f}" for stage in STAGES]
        cells.append("" if result.peak is None else f"{result.peak / 2**20:.0f}")
        rows.append([*cells, "" if result.added is None else f"{100 * result.added:.1f} %"])
    print_table(("ms of a step", "clips/s", "step", *STAGES, "MiB", "blocks"), rows)
    case = results[0].case
    print(
        f"{case.architecture}, stem of {case.stem_channels} channels; {case.batch} clips of {case.frames} x "
        f"{case.size} x {case.size} a step. Medians."
    )
    print(
        "data: waiting for a batch; input: copying and normalising it. MiB: peak of all that training needs. blocks: "
        "what they add, as a share of the step."
    )
