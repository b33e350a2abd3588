"""`dnl-video predict`: classify video files, folders and lists, and find segments in long videos."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnl_video.cli.main import INTERRUPTED, VIDEOS_FAILED
from dnl_video.cli.options import add_video_arguments, add_view_options, config_from, default_output, load
from dnl_video.cli.terminal import log, say
from dnl_video.config import EvaluationConfig
from dnl_video.errors import InputError
from dnl_video.files import check_output
from dnl_video.launcher import rank_and_world_size

if TYPE_CHECKING:
    from dnl_video.data.manifest import Manifest
    from dnl_video.models.weights.checkpoint import Checkpoint

DESCRIPTION = """Classify video files, folders or lists.

examples:
  dnl-video predict clip.mp4 --checkpoint runs/demo/i3d_dnl
  dnl-video predict clip.mp4 --checkpoint runs/demo/i3d_dnl --per-clip       also the best class of every clip
  dnl-video predict movie.mp4 --checkpoint runs/demo/i3d_dnl --sliding       segments and a timeline of a long video
  dnl-video predict movie.mp4 --checkpoint runs/demo/i3d_dnl --sliding --hop-s 0.5 --annotate seen.mp4
  dnl-video predict videos/ more.txt --checkpoint runs/demo/i3d_dnl --output predictions/mine
  torchrun --nproc_per_node 8 -m dnl_video predict millions.txt ...          eight processes; the last one merges

A terminal shows a table; a pipe or a file gets one line per video: path, class and score (0 to 1), separated by tabs,
and for --per-clip and --sliding lines that end with start and end in seconds. Failed videos go to stderr.

A list is a text file with one path per line. With --output the scores are kept, and predictions.csv lists the best
classes in the order of the list. To resume a killed run, give the same command again."""

# Above this number of videos, a terminal shows lines and no table, and the scores are kept even without --output.
MANY_VIDEOS = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_video_arguments(parser)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--table", action="store_true", help="Print a table, as on a terminal for up to 50 videos.")
    shown.add_argument("--json", action="store_true", help="Print an object a line: scores of all classes and clips.")
    parser.add_argument("--per-clip", action="store_true", help="Also print the best class of every clip.")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="Best classes in tables. Default: 5.")
    long = parser.add_argument_group("long videos")
    sliding = f"Slide clips over the whole video; write segments, and timelines of the first {MANY_VIDEOS} videos."
    long.add_argument("--sliding", action="store_true", help=sliding)
    long.add_argument("--hop-s", type=float, metavar="S", help="Seconds between the starts of clips. Default: 1.")
    long.add_argument("--annotate", metavar="FILE", help="Also write a copy of the video that shows its best classes.")
    long.add_argument("--plot-format", choices=("png", "svg"), default="png", help="Of the timelines. Default: png.")
    add_view_options(parser, "clip_scores", when=f" with --sliding, torchrun or over {MANY_VIDEOS} videos, else none")


def run(arguments: argparse.Namespace) -> int:
    """Classify; write and show the best classes of each video and, with --sliding, of each segment."""
    from dnl_video.data.manifest import read_videos
    from dnl_video.results.tables import merging

    hop_s = _check(arguments)
    manifest = read_videos(arguments.videos, root=arguments.root)
    if arguments.annotate:
        if len(manifest.records) > 1:
            raise InputError(f"--annotate writes one video, and {len(manifest.records)} were given; give one")
        if Path(arguments.annotate).resolve() == Path(manifest.records[0].path).resolve():
            raise InputError(f"--annotate {arguments.annotate} is the video itself; give another name")
        check_output(Path(arguments.annotate), is_file=True)
    options, checkpoint = config_from(arguments, EvaluationConfig), load(arguments.checkpoint)
    rank, world_size = rank_and_world_size()
    keep = bool(arguments.output) or hop_s is not None or world_size > 1 or len(manifest.records) > MANY_VIDEOS
    kept = arguments.output or (keep and default_output("predictions", checkpoint, manifest, arguments.videos[0]))
    folder: Any = contextlib.nullcontext(kept) if keep else tempfile.TemporaryDirectory()
    with folder as name:
        output = Path(name)
        try:
            more = {"hop_s": hop_s, "retry_failed": arguments.retry_failed}
            if not score_videos("predict", checkpoint, manifest, output, options, **more):
                return 0
            with merging(output, f"top {arguments.top} plots {arguments.plot_format}") as needed:
                # Several processes come here if they finish at the same time; one of them merges.
                if needed or world_size == 1:
                    return _finish(arguments, manifest, output, keep)
            log.info(f"process {rank} of {world_size} is done; another one merged {output}")
            return 0
        except KeyboardInterrupt:
            advice = f"finished videos are kept in {output}; give the same command again to continue"
            say(f"dnl-video: interrupted; {advice if keep else 'nothing is kept without --output'}", error=True)
            return INTERRUPTED


def score_videos(
    command: str,
    checkpoint: Checkpoint,
    manifest: Manifest,
    output: str | Path,
    options: EvaluationConfig,
    *,
    process: tuple[int, int] | None = None,
    **more: Any,
) -> bool:
    """Run `run_predictions` with a progress bar; return whether every listed video is done, by any process.

    ``process`` is (rank, world size), by default that of the launcher; ``more`` goes to `run_predictions`.
    """
    from dnl_video.cli.screen import prediction_progress
    from dnl_video.inference.runner import run_predictions

    rank, world_size = process or rank_and_world_size()
    for note in manifest.notes if rank == 0 else ():
        log.info(f"note: {note}")
    verb = command if world_size == 1 else f"{command} (process {rank} of {world_size})"
    log.debug(f"read {manifest.source} and {checkpoint.path}")
    with prediction_progress(verb, quiet=rank != 0) as progress:
        more |= {"rank": rank, "world_size": world_size, "progress": progress, "clip_progress": progress.clips}
        complete = run_predictions(checkpoint, manifest, output, options, **more)
    if not complete:
        log.info(f"process {rank} of {world_size} is done; others are still at work in {output}")
    return complete


def _check(arguments: argparse.Namespace) -> float | None:
    """Refuse options that exclude each other; return the hop, or None if clips do not slide."""
    if arguments.top < 1:
        raise InputError(f"--top is {arguments.top}; give at least 1")
    if (arguments.sliding or arguments.per_clip) and not arguments.clip_scores:
        wanted = "--sliding" if arguments.sliding else "--per-clip"
        raise InputError(f"{wanted} needs clip scores; drop --no-clip-scores or {wanted}")
    if not arguments.sliding:
        for option, given in (("--hop-s", arguments.hop_s is not None), ("--annotate", arguments.annotate)):
            if given:
                raise InputError(f"{option} is for sliding clips; add --sliding")
        return None
    hop_s = 1.0 if arguments.hop_s is None else arguments.hop_s
    if not (math.isfinite(hop_s) and hop_s > 0):
        raise InputError(f"--hop-s is {hop_s:g}; give seconds above 0")
    if arguments.num_clips != EvaluationConfig.num_clips:
        raise InputError("--num-clips is for short videos; with --sliding give --hop-s")
    if arguments.annotate:
        from dnl_video.data.encoding import container_of

        container_of(arguments.annotate)
    return hop_s


def _finish(arguments: argparse.Namespace, manifest: Manifest, output: Path, keep: bool) -> int:
    """Print the best classes; write the tables and pictures."""
    from dnl_video.cli import predict_output as show
    from dnl_video.results.predictions import read_meta
    from dnl_video.results.reader import finished_ids
    from dnl_video.results.tables import iter_in_order, write_top_classes

    records, names = manifest.records, read_meta(output).class_names
    ids = [record.video_id for record in records]
    shown = "clips" if arguments.per_clip else "segments" if arguments.sliding else ""
    videos = show.read_videos(output, ids, names, shown, clip_scores=bool(shown) or arguments.json)
    if arguments.json:
        show.print_json(videos, shown)
    elif arguments.table or (sys.stdout.isatty() and len(records) <= MANY_VIDEOS):
        show.print_table(videos, arguments.top, with_times=bool(shown))
    else:
        show.print_lines(videos)
    failed = len(ids) - len(finished_ids(output, retry_failed=True))
    if failed and keep:
        log.warning(f"{failed} of {len(ids)} videos failed; --retry-failed tries them again: {output}")
    if keep:
        write_top_classes(output / "predictions.csv", iter_in_order(output, ids), names, arguments.top)
        log.info(f"wrote {output / 'predictions.csv'}")
    if arguments.sliding:
        show.write_segments_and_timelines(output, records, names, arguments.plot_format, MANY_VIDEOS)
    if arguments.annotate and not failed:
        show.annotate(output, records[0], names, Path(arguments.annotate))
    if keep:
        log.info(f"predictions: {output}")
    return VIDEOS_FAILED if failed else 0
