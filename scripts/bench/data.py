"""Measure how fast one core makes training clips and evaluation views of videos.

Compared with this package: `plain`, the get_batch of decord alone, and `float`, the order of other code bases (read,
convert to float, normalise, resize, crop). In evaluation: `separate`, one read for each of the 30 views.

  python scripts/bench/data.py                                  generated videos of 340 x 256
  python scripts/bench/data.py --videos gop12 gop250 720p
  python scripts/bench/data.py --files a.mp4 b.mp4 --decoder auto --json data.json
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from command import make_parser, positive, print_table, progress, run_benchmark
from data_variants import BASELINES, STAGES, DataCase, evaluation_variants, stage_seconds, training_variants
from dnl_video.config import Decoder
from dnl_video.errors import InputError
from timing import take_turns
from videos import KINDS, generate

CPU = torch.device("cpu")


@dataclass(frozen=True)
class DataResult:
    """Median CPU seconds: of a training clip and of a video's views by variant, of a clip's stages by decoder.

    All variants read the same clips in a round. ``faster`` is the median over rounds of the baseline's seconds divided
    by ours, by baseline and decoder. ``float_normalised`` compares with ours plus its normalisation on the same core.
    """

    case: DataCase
    clip_s: dict[str, float]
    stages_s: dict[str, dict[str, float]]
    video_s: dict[str, float]
    faster: dict[str, dict[str, float]]


def measure_data(case: DataCase, *, repeats: int, budget_s: float, evaluation: bool) -> DataResult:
    """Measure a case; each of its three parts takes about ``budget_s`` seconds at most, or three rounds."""
    label = f"{case.name}: training clips,"
    clips = take_turns(training_variants(case), CPU, repeats=repeats, budget_s=budget_s, label=label, shuffle=True)
    stages: dict[str, dict[str, float]] = {}
    for decoder in case.decoders:
        progress(f"{case.name}: stages, {decoder}")
        rounds = [stage_seconds(case, decoder, epoch) for epoch in range(max(min(repeats, 5), 2))][1:]
        stages[decoder] = {stage: statistics.median(r[stage] for r in rounds) / case.batch for stage in STAGES}

    def faster(seconds: dict[str, list[float]], baseline: str, *, normalised: bool = False) -> dict[str, float]:
        added = {d: stages[d]["normalise"] * case.batch if normalised else 0.0 for d in case.decoders}
        return {
            decoder: statistics.median(
                b / (ours + added[decoder]) for b, ours in zip(seconds[baseline], seconds[decoder], strict=True)
            )
            for decoder in case.decoders
        }

    ratios = {name: faster(clips, name) for name in BASELINES}
    ratios["float_normalised"] = faster(clips, "float", normalised=True)
    videos: dict[str, list[float]] = {}
    if evaluation:
        fewer, label = max(repeats // 3, 1), f"{case.name}: evaluation,"
        videos = take_turns(evaluation_variants(case), CPU, repeats=fewer, budget_s=budget_s, label=label, shuffle=True)
        ratios["separate"] = faster(videos, "separate")
    clip_s = {name: statistics.median(values) / case.batch for name, values in clips.items()}
    return DataResult(case, clip_s, stages, {n: statistics.median(values) for n, values in videos.items()}, ratios)


def measure(args: argparse.Namespace, device: torch.device) -> list[DataResult]:
    """Measure all kinds of videos.

    Raises:
        InputError: A file of --files is missing.
    """
    results = []
    for name in ["files"] if args.files else args.videos:
        paths = args.files or generate(KINDS[name], args.folder, count=2, seconds=args.seconds)
        for path in paths:
            if not path.is_file():
                raise InputError(f"--files: {path} is not a file")
        case = DataCase(name, tuple(map(str, paths)), tuple(args.decoder), args.clips)
        results.append(measure_data(case, repeats=args.repeats, budget_s=args.budget_s, evaluation=args.evaluation))
    return results


def show(args: argparse.Namespace, results: list[DataResult]) -> None:
    """Print the tables of training clips, their stages, and evaluation views."""
    clips, stages, views = [], [], []
    for result in results:
        seconds, faster, case = result.clip_s, result.faster, result.case
        title = KINDS[case.name].title if case.name in KINDS else case.name
        for decoder in case.decoders:
            cells = [title, decoder, *(f"{seconds[name] * 1e3:.1f}" for name in ("plain", "float", decoder))]
            cells.append(f"{1 / seconds[decoder]:.1f}")
            clips.append([*cells, *(f"{faster[b][decoder]:.2f}" for b in ("plain", "float", "float_normalised"))])
            stages.append([title, decoder, *(f"{result.stages_s[decoder][stage] * 1e3:.2f}" for stage in STAGES)])
            if result.video_s:
                ours, separate = result.video_s[decoder], result.video_s["separate"]
                cells = [title, decoder, f"{separate * 1e3:.0f}", f"{ours * 1e3:.0f}"]
                cells.append(f"{case.num_clips * case.num_crops / ours:.0f}")
                views.append([*cells, f"{faster['separate'][decoder]:.1f}"])
    columns = ("plain ms", "float ms", "ours ms", "clips/s", "x plain", "x float", "on CPU")
    print_table(("training clips", "decoder", *columns), clips)
    print("plain: decord's get_batch alone. float: the same, then float, normalise, resize, crop, batch.")
    print("ours: uint8 batches, which the training device normalises. on CPU: x float if this core normalises them.")
    print_table(("ms of a training clip", "decoder", *STAGES), stages)
    if views:
        columns = ("30 reads ms", "ours ms", "ours views/s", "faster")
        print_table(("evaluation, 10 x 3 views", "decoder", *columns), views)
    for result in results:
        files = result.case.files
        size = sum(Path(file).stat().st_size for file in files) / len(files)
        print(f"{result.case.name}: {files[0]} and {len(files) - 1} more, {size / 1e3:.0f} kB on average")


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, repeats=15, cpu_only=True)
    kinds, ours = list(KINDS), ["decord", "auto"]
    parser.add_argument("--videos", nargs="+", choices=kinds, default=kinds[:2], help="Generated (gop12 gop250).")
    parser.add_argument("--files", nargs="+", type=Path, help="Measure these videos instead of generated ones.")
    parser.add_argument("--decoder", nargs="+", choices=get_args(Decoder), default=ours, help="Ours (decord auto).")
    parser.add_argument("--clips", type=positive, default=8, help="Clips per batch (%(default)s).")
    parser.add_argument("--seconds", type=positive, default=10, help="Length of generated videos (%(default)s).")
    parser.add_argument("--folder", type=Path, help="Folder of generated videos (in the system's temporary folder).")
    parser.add_argument("--no-evaluation", dest="evaluation", action="store_false", help="Measure training clips only.")
    run_benchmark(parser, measure, show, argv)


if __name__ == "__main__":
    main()
