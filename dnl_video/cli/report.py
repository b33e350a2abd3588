"""`dnl-video report`: the accuracy report of a predictions directory, or of another project's results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnl_video.cli.results import add_foreign_arguments, print_report, read_results, thumbnail_reader, video_links
from dnl_video.cli.terminal import say
from dnl_video.errors import InputError
from dnl_video.files import check_output, dump_json, walk

if TYPE_CHECKING:
    from dnl_video.results.predictions import Predictions

DESCRIPTION = """Turn an evaluation into accuracy tables and figures.

Compute top-1, top-5 and mean class accuracy with 95% intervals from the predictions of `dnl-video evaluate`:
video-level, centre-clip and clip-level (papers call all three top-1), by number of clips, by class, over the
evaluated videos and over all listed ones; with confused classes, confident mistakes, calibration and failed videos.
The output is report.json (for programs), report.md (for a paper or a model card) and report.html: one file with all
charts and with frames of the most confident mistakes, which opens offline and prints.

examples:
  dnl-video evaluate --checkpoint runs/slow_dnl --manifest val.csv --output predictions/slow_dnl
  dnl-video report predictions/slow_dnl
  dnl-video report predictions/slow_dnl --output reports/slow_dnl
  dnl-video report predictions/slow_dnl --video-root /mnt/kinetics400/val   # the videos have moved
  dnl-video report runs predictions/slow --index --output leaderboard.html  # one page for all runs in these folders
  dnl-video report results.pkl --classes classes.txt --manifest test.csv    # PySlowFast's or mmaction2's results

It also reads results of other projects: a CSV (video_id,label,score_0,score_1,...), PySlowFast's
TEST.SAVE_RESULTS_PATH and mmaction2's tools/test.py --dump. No code in a pickle is run.

A report needs labels. The report of an unfinished evaluation says that it is incomplete.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    runs = "predictions directory, or results file of another project; with --index several, also folders of runs"
    parser.add_argument("runs", nargs="+", metavar="DIR", help=runs)
    output = "folder (default: the same DIR; for NAME.pkl, NAME-report); with --index the page (default: index.html)"
    parser.add_argument("--output", metavar="DIR", help=output)
    parser.add_argument("--index", action="store_true", help="one page that ranks all runs and links to their reports")
    parser.add_argument("--video-root", metavar="DIR", help="folder that now holds the videos; matched by path or name")
    parser.add_argument("--no-thumbnails", action="store_true", help="leave frames of videos out of report.html")
    parser.add_argument("--json", action="store_true", help="print accuracy and coverage as JSON, as in report.json")
    add_foreign_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the report, print its figures, and return 0.

    Raises:
        InputError: There are no readable, labelled predictions, or the folder cannot be written.
    """
    if args.index:
        return _index(args)
    if len(args.runs) > 1:
        raise InputError(f"{len(args.runs)} runs were given; give one, or --index for one page that lists them all")
    source = Path(args.runs[0])
    is_file = source.is_file()
    output = args.output or (source.with_name(f"{source.stem}-report") if is_file else source)
    check_output(Path(output))
    has_paths = not is_file or args.manifest is not None or args.video_root is not None
    (predictions,) = read_results(args.runs, args)
    read_frames = thumbnail_reader(args.video_root) if has_paths and not args.no_thumbnails else None
    link = video_links(Path(output), args.video_root) if has_paths else None
    _write(predictions, source, Path(output), read_frames, link, as_json=args.json)
    return 0


def _index(args: argparse.Namespace) -> int:
    page = Path(args.output or "index.html")
    if page.suffix != ".html":
        raise InputError(f"--output {page} is not the name of a page; give a name that ends in .html")
    check_output(page, is_file=True)
    from dnl_video.cli.screen import print_nodes
    from dnl_video.report import save_index
    from dnl_video.report.index import build_index, index_summary
    from dnl_video.results.predictions import list_shards, read_meta

    found: list[str] = []
    for path in args.runs:
        below = walk(Path(path)) if Path(path).is_dir() else ()
        inside = [parent for parent, _, files in below if "meta.json" in files]
        # A folder of runs may hold predictions without labels, and evaluations that have just started.
        ready = [one for one in inside if one != path and read_meta(one).labelled and list_shards(Path(one))]
        found += ready or [path]
    runs = list(zip(found, read_results(found, args, clip_scores=False), strict=True))
    lists = build_index(runs)
    paths = save_index(lists, page)
    if args.json:
        say(dump_json({"files": [str(path) for path in paths], "lists": lists}, indent=1))
        return 0
    print_nodes(index_summary(lists))
    say(*(f"wrote {path}" for path in paths))
    return 0


def report_directory(directory: Path) -> None:
    """Write the report of a predictions directory into it, and print its figures."""
    from dnl_video.results.reader import read_predictions

    _write(read_predictions(directory), directory, directory, thumbnail_reader(), video_links(directory))


def _write(predictions: Predictions, source: Path, output: Path, *videos: Any, as_json: bool = False) -> None:
    from dnl_video.report import build_report, save_report
    from dnl_video.report.origin import curves_of

    report = build_report(predictions, curves_of(predictions, str(source)))
    paths = save_report(report, output, *videos)
    print_report(report, as_json, {"files": list(map(str, paths))}, *(f"wrote {path}" for path in paths))
