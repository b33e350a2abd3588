"""`dnl-video report`: the accuracy report of a predictions directory, or of another project's results."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnl_video.cli.results import add_foreign_arguments, read_results, refuse_foreign_arguments

if TYPE_CHECKING:
    from dnl_video.results.predictions import Predictions

DESCRIPTION = """Turn an evaluation into accuracy tables and figures.

Compute top-1, top-5 and mean class accuracy with 95% intervals from what `dnl-video evaluate` wrote:
video-level, centre-clip and clip-level (papers call all three top-1), by number of clips, by class, over the
evaluated videos and over all listed ones; with confused classes, confident mistakes, calibration and failed videos.
Written are report.json (for programs), report.md (for a paper or a model card) and report.html: one file with all
figures and with frames of the most confident mistakes, which opens offline and prints.

examples:
  dnl-video evaluate --checkpoint runs/slow_dnl --manifest val.csv --output predictions/slow_dnl
  dnl-video report predictions/slow_dnl
  dnl-video report predictions/slow_dnl --output reports/slow_dnl
  dnl-video report predictions/slow_dnl --video-root /mnt/kinetics400/val   # the videos have moved
  dnl-video report results.pkl --classes classes.txt --manifest test.csv    # PySlowFast's or mmaction2's results

Results of other projects are read as well: a CSV (video_id,label,score_0,score_1,...), what PySlowFast writes for
TEST.SAVE_RESULTS_PATH, and what mmaction2's tools/test.py writes for --dump. Nothing in a pickle is run.

A report needs labels. An evaluation that is still running can be reported, and the report says that it is incomplete.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "directory",
        metavar="DIR",
        help="predictions directory, as written by `dnl-video evaluate`, or a file of another project's results",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder for the report (default: the same DIR; for a file NAME.pkl, NAME-report beside it)",
    )
    parser.add_argument(
        "--video-root",
        metavar="DIR",
        help="where the videos are now: looked for below it by path and by name (default: where they were evaluated)",
    )
    parser.add_argument("--no-thumbnails", action="store_true", help="no frames of videos in report.html")
    add_foreign_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the report, show its headline, and return 0.

    Raises:
        InputError: There are no readable, labelled predictions, or the folder cannot be written.
    """
    refuse_foreign_arguments(args, [args.directory])
    source = Path(args.directory)
    beside = source.with_name(f"{source.stem}-report") if source.is_file() else source
    without_paths = source.is_file() and args.manifest is None and args.video_root is None
    thumbnails = not args.no_thumbnails and not without_paths
    _report(read_results(source, args), args.output or beside, args.video_root, thumbnails)
    return 0


def report_directory(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    video_root: str | None = None,
    thumbnails: bool = True,
) -> None:
    """Write the report of a predictions directory, into it or into ``output``, and show its headline."""
    from dnl_video.results.reader import read_predictions

    _report(read_predictions(directory), output or directory, video_root, thumbnails)


def _report(predictions: Predictions, output: str | os.PathLike[str], video_root: str | None, thumbnails: bool) -> None:
    from dnl_video.cli.thumbnails import thumbnail_reader
    from dnl_video.report import build_report, save_report

    read_frames = thumbnail_reader(video_root) if thumbnails else None
    report = build_report(predictions)
    paths = save_report(report, output, read_frames)
    print_report(report)
    print(*(f"wrote {path}" for path in paths), sep="\n")


def print_report(report: dict[str, Any]) -> None:
    """Show a report's figures, coverage and notes on the terminal."""
    from rich.console import Console
    from rich.text import Text

    from dnl_video.cli.screen import plain_table
    from dnl_video.report.markdown import figure_text, levels, model_name

    console, coverage = Console(highlight=False), report["coverage"]
    names = ("top-1", "top-5", "mean class")
    table = plain_table("", *names, numbers=names, title=f"{model_name(report)}, {report['protocol']['text']}")
    for name, _, figures in levels(report):
        table.add_row(Text(name), *(figure_text(figures.get(k)) for k in ("top1", "top5", "mean_class_accuracy")))
    console.print(table)
    console.print(
        ("" if coverage["listed"] is None else f"{coverage['listed']:,} videos listed, ")
        + f"{coverage['evaluated']:,} evaluated, {coverage['failed']:,} failed; brackets are 95% intervals"
    )
    if coverage["failed"] and coverage["listed"] is not None:
        console.print('Failed videos count as wrong in the row "listed".')
    for failure in coverage["failures"][:5]:
        console.print(Text(f"  {failure['videos']} failed: {failure['reason']} (such as {failure['example']})"))
    for note in report["notes"]:
        console.print(Text(note, style="yellow"))
