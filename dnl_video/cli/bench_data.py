"""`dnl-video bench data`: how fast videos become batches here, against plain decord and other code bases' order."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from dnl_video.cli.bench_output import print_table, progress
from dnl_video.config import Decoder
from dnl_video.errors import InputError

if TYPE_CHECKING:
    import torch

    from dnl_video.bench.data import DataResult

# Keys of dnl_video.bench.data_videos.KINDS, which loads torch.
_KINDS = ("gop12", "gop250", "720p")
_NAMES = {"gop12": "340 x 256, GOP 12", "gop250": "340 x 256, GOP 250", "720p": "1280 x 720, GOP 12"}


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench data`."""
    parser.add_argument("--videos", nargs="+", choices=_KINDS, default=list(_KINDS[:2]), help="Generated videos.")
    parser.add_argument("--files", nargs="+", help="Measure these videos instead of generated ones.")
    parser.add_argument(
        "--decoder", nargs="+", choices=get_args(Decoder), default=["decord", "auto"], help="Ours (decord auto)."
    )
    parser.add_argument("--clips", type=int, default=8, help="Clips a batch (%(default)s).")
    parser.add_argument("--seconds", type=int, default=10, help="Length of generated videos (%(default)s).")
    parser.add_argument("--folder", help="Where generated videos lie (the system's temporary folder).")
    parser.add_argument("--no-evaluation", dest="evaluation", action="store_false", help="Training clips only.")
    parser.add_argument("--repeats", type=int, default=15, help="Measured rounds (%(default)s; evaluation: a third).")
    parser.add_argument("--budget-s", type=float, default=60.0, help="Seconds each part may take (%(default)s).")


def bench_data(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Measure, print tables and return the figures.

    Raises:
        InputError: A file of --files is missing.
    """
    from dnl_video.bench.data import DataCase, measure_data
    from dnl_video.bench.data_videos import KINDS, generate

    results: list[DataResult] = []
    with progress() as advance:
        for name in ["files"] if args.files else args.videos:
            if args.files:
                paths = [Path(file) for file in args.files]
                for path in paths:
                    if not path.is_file():
                        raise InputError(f"--files: {path} is no file")
            else:
                folder = Path(args.folder) if args.folder else None
                paths = generate(KINDS[name], folder, count=2, seconds=args.seconds, advance=advance)
            case = DataCase(name, tuple(map(str, paths)), tuple(args.decoder), args.clips)
            results.append(
                measure_data(
                    case, repeats=args.repeats, budget_s=args.budget_s, evaluation=args.evaluation, advance=advance
                )
            )
    _print_clips(results)
    _print_stages(results)
    if args.evaluation:
        _print_videos(results)
    for result in results:
        sizes = sum(Path(file).stat().st_size for file in result.case.files) / len(result.case.files)
        print(f"{_name(result)}: {result.case.files[0]} and others, {sizes / 1e3:.0f} kB each")
    return [asdict(result) for result in results]


def _name(result: DataResult) -> str:
    return _NAMES.get(result.case.name, "files")


def _print_clips(results: list[DataResult]) -> None:
    rows = []
    for result in results:
        seconds, faster = result.clip_s, result.faster
        for decoder in result.case.decoders:
            cells = [_name(result), decoder, *(f"{seconds[name] * 1e3:.1f}" for name in ("plain", "float", decoder))]
            cells.append(f"{1 / seconds[decoder]:.1f}")
            rows.append([*cells, *(f"{faster[b][decoder]:.2f}" for b in ("plain", "float", "float_normalised"))])
    columns = (
        "training clips",
        "decoder",
        "plain ms",
        "float ms",
        "ours ms",
        "clips/s",
        "x plain",
        "x float",
        "on CPU",
    )
    print_table(columns, rows)
    print("plain: decord's get_batch alone. float: the same, then float, normalise, resize, crop, batch.")
    print("ours: uint8 batches, which the training device normalises; on CPU: x float where this core does that too.")


def _print_stages(results: list[DataResult]) -> None:
    from dnl_video.bench.data import STAGES

    rows = [
        [_name(result), decoder, *(f"{stages[stage] * 1e3:.2f}" for stage in STAGES)]
        for result in results
        for decoder, stages in result.stages_s.items()
    ]
    print_table(("ms of a training clip", "decoder", *STAGES), rows)


def _print_videos(results: list[DataResult]) -> None:
    rows = []
    for result in results:
        seconds = result.video_s
        for decoder in result.case.decoders:
            views = result.case.num_clips * result.case.num_crops
            cells = [_name(result), decoder, f"{seconds['separate'] * 1e3:.0f}", f"{seconds[decoder] * 1e3:.0f}"]
            rows.append([*cells, f"{views / seconds[decoder]:.0f}", f"{result.faster['separate'][decoder]:.1f}"])
    columns = ("evaluation, 10 x 3 views", "decoder", "30 reads ms", "ours ms", "ours views/s", "faster")
    print_table(columns, rows)
