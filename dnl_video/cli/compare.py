"""`dnl-video compare`: paired differences of networks on the same videos."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from dnl_video.cli.results import add_foreign_arguments, read_results
from dnl_video.cli.terminal import say
from dnl_video.errors import InputError
from dnl_video.files import check_output, encode

DESCRIPTION = """Compare networks that were evaluated on the same videos.

The first network is the reference. For each other network: the differences of top-1, top-5 and mean class accuracy
with 95% intervals for paired videos, McNemar's exact test, classes won and lost, and videos that only one of the two
gets right. With more than two networks, p values are also adjusted for the number of tests (Holm).

examples:
  dnl-video compare predictions/slow predictions/slow_dnl
  dnl-video compare predictions/slow predictions/slow_nl predictions/slow_dnl --output comparisons/slow
  dnl-video compare theirs.pkl predictions/slow_dnl --classes classes.txt --manifest val.csv     PySlowFast's results

Runs must have the same classes, videos and labels; otherwise the command names the difference. Videos that failed in
one run are left out of the main figures of all runs, and count as wrong in the figures over listed videos.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    runs = "predictions directories, or results files of other projects; the first is the reference"
    parser.add_argument("runs", nargs="+", metavar="DIR", help=runs)
    output = "folder for compare.json, .md and .html (default: comparison-DIGITS of these runs, beside the first)"
    parser.add_argument("--output", metavar="DIR", help=output)
    add_foreign_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the comparison, print its figures, and return 0.

    Raises:
        InputError: An input cannot be read, or the runs cannot be compared.
    """
    if len(args.runs) < 2:
        raise InputError(f"only one run was given ({args.runs[0]}); give two or more, the reference first")
    if len({Path(path).resolve() for path in args.runs}) < len(args.runs):
        raise InputError("a run is given twice; give each once, the reference first")
    digits = hashlib.sha256(encode("\n".join(str(Path(path).resolve()) for path in args.runs))).hexdigest()[:8]
    output = Path(args.output or Path(args.runs[0]).parent / f"comparison-{digits}")
    check_output(output)
    from dnl_video.cli.screen import print_nodes
    from dnl_video.report import save_comparison
    from dnl_video.report.compare import build_comparison
    from dnl_video.report.compare_document import compare_summary

    runs = read_results(args.runs, args, clip_scores=False)
    comparison = build_comparison(list(zip(args.runs, runs, strict=True)))
    paths = save_comparison(comparison, output)
    print_nodes(compare_summary(comparison))
    say(*(f"wrote {path}" for path in paths))
    return 0
