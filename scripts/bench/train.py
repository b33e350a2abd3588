"""Measure training steps: clips per second, milliseconds by stage, memory, and the share that context blocks add.

A step does what `dnl-video train` does with a batch: wait for it (data), copy it to the device and normalise it
(input), forward and loss, backward, optimiser (update). On a GPU the stages are times in its queue, so that data is its
idle time; on a CPU they are CPU times, and data is wall-clock time. The rows of the table take turns in one process.

  python scripts/bench/train.py --context none nl dnl --precision bf16-mixed --compile     eager and compiled
  python scripts/bench/train.py --context none dnl --activation-checkpointing              stored and recomputed
  python scripts/bench/train.py --input synthetic videos --num-workers 16                  also generated videos
  python scripts/bench/train.py --input videos --videos train.csv --root /data/k400/train  your videos
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from command import make_parser, positive, print_table, progress, run_benchmark
from dnl_video.config import Precision
from dnl_video.inference.device import check_cpu_precision
from dnl_video.spec import Architecture, Context
from dnl_video.training.precision import check_precision
from memory import of_child_process, on_cuda
from timing import rounds
from train_steps import STAGES, Steps, TrainCase, VideoBatches, generated_list, memory_here

_WARM_UP = 2
MEMORY_OF = "--memory-of"  # of the child process that measures memory


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """Medians over rounds, per step."""

    case: TrainCase
    source: str  # synthetic, or the origin of the videos
    step_s: float
    stages_s: dict[str, float]
    clips_per_s: float
    peak: int | None  # bytes of network, optimiser and steps; None if unknown
    added: float | None  # share of the step that the blocks add; None if the bare network was not measured


def measure_training(
    cases: Sequence[TrainCase],
    device: torch.device,
    videos: VideoBatches | None = None,
    *,
    source: str = "synthetic",
    steps: int,
    repeats: int,
    budget_s: float,
    memory: bool,
) -> list[TrainResult]:
    """Measure cases in turns, on the same videos or on synthetic clips, in another order every round."""
    started: list[Steps] = []
    peaks: list[int | None] = []
    for case in cases:
        progress(f"{case.context} {case.precision} {case.mode}, warm-up")
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        started.append(Steps(case, device, videos.batches if videos else None))
        started[-1].run(_WARM_UP)
        peaks.append(_peak(started[-1], before) if memory else None)

    def measured(index: int) -> dict[str, float]:
        case = cases[index]
        progress(f"{case.context} {case.precision} {case.mode}")
        if videos is not None:
            # A fast network must not profit from batches that were read during the steps of a slow one.
            for _ in range(videos.stock):
                next(videos.batches)
            started[index].run(1)
        return started[index].run(steps)

    functions = {index: partial(measured, index) for index in range(len(cases))}
    found = rounds(functions, repeats=repeats, budget_s=budget_s, shuffle=True)
    totals = {index: [sum(stages.values()) for stages in found[index]] for index in found}
    results = []
    for index, case in enumerate(cases):
        step_s, added = statistics.median(totals[index]), None
        bare = dataclasses.replace(case, context="none")
        if case != bare and bare in cases:
            pairs = zip(totals[cases.index(bare)], totals[index], strict=True)
            added = statistics.median(1 - without / total for without, total in pairs)
        stages_s = {stage: statistics.median(stages[stage] for stages in found[index]) for stage in STAGES}
        results.append(TrainResult(case, source, step_s, stages_s, case.batch / step_s, peaks[index], added))
    return results


def _peak(steps: Steps, before: int) -> int | None:
    """Return the peak bytes of a case: beyond ``before`` on a GPU, in a child process on a CPU."""
    if steps.device.type == "cuda":
        return on_cuda(lambda: steps.run(1), steps.device) - before
    return of_child_process(__file__, MEMORY_OF, json.dumps(dataclasses.asdict(steps.case)))


def measure(args: argparse.Namespace, device: torch.device) -> list[TrainResult]:
    """Measure all combinations of the options.

    Raises:
        InputError: The precision would be emulated or wrong, or the videos cannot be used.
    """
    on_gpu = device.type == "cuda"
    precisions = args.precision or (["bf16-mixed"] if on_gpu else ["32-true"])
    if device.type == "cpu":
        for precision in precisions:
            check_cpu_precision(precision)
            check_precision(precision, on_cpu=True)
    # As in training.
    torch.set_float32_matmul_precision("high")
    results: list[TrainResult] = []
    for source in args.input:
        for precision in precisions:
            results += _measure(args, device, source, _cases(args, precision, on_gpu))
            # The compiled code of this precision is not needed again.
            torch.compiler.reset()
    return results


def _cases(args: argparse.Namespace, precision: Precision, on_gpu: bool) -> list[TrainCase]:
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
        dataclasses.replace(plain, context=context, compiled=compiled, checkpointed=checkpointed)
        for checkpointed in ([False, True] if args.activation_checkpointing else [False])
        for compiled in ([False, True] if args.compile else [False])
        for context in args.context
    ]


def _measure(args: argparse.Namespace, device: torch.device, source: str, cases: list[TrainCase]) -> list[TrainResult]:
    case, videos = cases[0], None
    with tempfile.TemporaryDirectory() as folder:
        if source == "videos":
            manifest, source = args.videos or generated_list(Path(folder), case.batch), args.videos or "generated"
            progress("the loader alone")
            sizes = {"batch": case.batch, "frames": case.frames, "size": case.size}
            videos = VideoBatches(manifest, **sizes, num_workers=args.num_workers, root=args.root)
            rate = videos.rate(case.batch)
            print(f"{source} videos, loader alone with {videos.workers} processes: {rate:.1f} clips/s", flush=True)
            classes = max(case.num_classes, videos.num_classes)
            cases = [dataclasses.replace(case, num_classes=classes) for case in cases]
        return measure_training(
            cases,
            device,
            videos,
            source=source,
            steps=args.steps or (10 if device.type == "cuda" else 1),
            repeats=args.repeats,
            budget_s=args.budget_s,
            memory=args.memory,
        )


def show(args: argparse.Namespace, results: list[TrainResult]) -> None:
    """Print one row for each case."""
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
        f"{case.architecture}, stem of {case.stem_channels} channels; {case.batch} clips of "
        f"{case.frames} x {case.size} x {case.size} per step. Medians."
    )
    print(
        "data: waiting for a batch. input: copying and normalising it. MiB: peak of network, optimiser and steps. "
        "blocks: the share of the step that they add."
    )


def main(argv: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == [MEMORY_OF]:
        print(memory_here(TrainCase(**json.loads(words[1]))))
        return
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--architecture", choices=get_args(Architecture), default="slow_r50", help="Backbone (%(default)s).")
    contexts = {"choices": get_args(Context), "default": ["none", "nl", "dnl"], "help": "Blocks (none nl dnl)."}
    add("--context", nargs="+", **contexts)
    add("--precision", nargs="+", choices=get_args(Precision), help="Precisions (32-true; on a GPU bf16-mixed).")
    add("--compile", action="store_true", help="Also measure torch.compile.")
    add("--activation-checkpointing", action="store_true", help="Also measure recomputation in the backward pass.")
    add("--channels-last", action="store_true", help="Use the channels_last_3d layout in all rows.")
    add("--batch-size", type=positive, help="Clips per step (2; on a GPU 8).")
    add("--frames", type=positive, default=8, help="Frames of a clip (%(default)s).")
    add("--crop-size", type=positive, default=224, help="Side of a clip in pixels (%(default)s).")
    add("--stem-channels", type=positive, default=64, help="Width of the network (%(default)s).")
    inputs = ["synthetic", "videos"]
    add("--input", nargs="+", choices=inputs, default=inputs[:1], help="Clips on the device, or of videos (synthetic).")
    add("--videos", help="List or class folder of the videos (two generated ones).")
    add("--root", help="Folder of the paths in the list.")
    add("--num-workers", type=int, help="Loader processes (one per core, 8 at most).")
    add("--steps", type=positive, help="Steps per round (1; on a GPU 10).")
    add("--no-memory", dest="memory", action="store_false", help="Measure time only.")
    run_benchmark(parser, measure, show, argv)


if __name__ == "__main__":
    main()
