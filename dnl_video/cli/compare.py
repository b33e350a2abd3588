"""`dnl-video compare`: networks on the same videos, by paired differences."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dnl_video.cli.results import add_foreign_arguments, read_results, refuse_foreign_arguments
from dnl_video.errors import InputError

DESCRIPTION = """Compare networks that were evaluated on the same videos.

The first is the reference. For each other: the differences of top-1, top-5 and mean class accuracy with 95% intervals
for paired videos, McNemar's exact test, classes won and lost, and videos that only one of the two gets right. With
more than two, p values are also adjusted for their number (Holm).

examples:
  dnl-video compare predictions/slow predictions/slow_dnl
  dnl-video compare predictions/slow predictions/slow_nl predictions/slow_dnl --output comparisons/slow
  dnl-video compare theirs.pkl predictions/slow_dnl --classes classes.txt --manifest val.csv     PySlowFast's results

Runs must have the same classes, videos and labels; otherwise the command says what differs. Videos that failed in one
run are left out of the main figures of all runs, and counted as wrong in the figures over listed videos.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="DIR",
        help="predictions directories, or files of other projects' results; the first is the reference",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="folder for compare.json, .md and .html (default: comparison, beside the first)"
    )
    add_foreign_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the comparison, show its figures, and return 0.

    Raises:
        InputError: Something cannot be read, or the runs cannot be compared; the message says what differs.
    """
    if len(args.runs) < 2:
        raise InputError(f"one run ({args.runs[0]}) is no comparison; give two or more, the reference first")
    if len({Path(path).resolve() for path in args.runs}) < len(args.runs):
        raise InputError("a run is given twice; give each once, the reference first")
    refuse_foreign_arguments(args, args.runs)
    from dnl_video.report.compare import build_comparison
    from dnl_video.report.compare_html import render_compare_html
    from dnl_video.report.compare_markdown import render_compare_markdown
    from dnl_video.report.write import write_files

    runs = [(str(path), read_results(path, args, clip_scores=False)) for path in args.runs]
    comparison = build_comparison(runs)
    output = Path(args.output) if args.output else Path(args.runs[0]).parent / "comparison"
    text = json.dumps(comparison, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    paths = write_files(
        output,
        {
            "compare.json": text,
            "compare.md": render_compare_markdown(comparison),
            "compare.html": render_compare_html(comparison),
        },
    )
    _print(comparison)
    print(*(f"wrote {path}" for path in paths), sep="\n")
    return 0


def _print(comparison: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    from dnl_video.cli.screen import plain_table
    from dnl_video.report.compare_markdown import FIGURES, compare_headline, difference_text
    from dnl_video.report.markdown import figure_text

    console = Console(highlight=False)
    names = ("top-1", "top-5", "mean class")
    table = plain_table("", *names, numbers=names)
    for described in comparison["runs"]:
        figures = described["accuracy"]["evaluated"]
        cells = (figure_text(figures[key]) for key, _ in FIGURES)
        table.add_row(described["letter"], *cells)
    for one in comparison["comparisons"]:
        figures = one["differences"]["evaluated"]
        cells = (difference_text(figures[key]) for key, _ in FIGURES)
        table.add_row(f"{one['run']} - {one['reference']}", *cells)
    console.print(table)
    for one in comparison["comparisons"]:
        console.print(Text(compare_headline(comparison, one)))
    for note in comparison["notes"]:
        console.print(Text(note, style="yellow"))
