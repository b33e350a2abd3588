"""`dnl-video predict`: classify video files, folders and lists, and find segments in long videos."""

from __future__ import annotations

import argparse
import contextlib
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnl_video.cli.main import INTERRUPTED, VIDEOS_FAILED
from dnl_video.cli.options import add_checkpoint_argument, add_view_options, config_from
from dnl_video.cli.terminal import say
from dnl_video.config import EvaluationConfig
from dnl_video.errors import InputError
from dnl_video.files import check_output
from dnl_video.launcher import rank_and_world_size

if TYPE_CHECKING:
    from dnl_video.data.manifest import Manifest
    from dnl_video.models.weights.checkpoint import Checkpoint

DESCRIPTION = """Classify video files, folders or lists.

  dnl-video predict clip.mp4 --checkpoint runs/demo
  dnl-video predict clip.mp4 --checkpoint runs/demo --per-clip       also the best class of every clip
  dnl-video predict movie.mp4 --checkpoint runs/demo --sliding       segments and a timeline of a long video
  dnl-video predict movie.mp4 --checkpoint runs/demo --sliding --hop-s 0.5 --annotate seen.mp4
  dnl-video predict videos/ more.txt --checkpoint runs/demo --output predictions/mine
  torchrun --nproc_per_node 8 -m dnl_video predict millions.txt ...     eight processes; the last one merges

A list is a text file with one path per line. With --output the scores are kept, and predictions.csv lists the best
classes in the order of the list. To resume a killed run, give the same command again."""

_DEFAULT_HOP_S = 1.0
# Above this number of videos a summary replaces the table, and the scores are kept even without --output.
MANY_VIDEOS = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_video_arguments(parser)
    parser.add_argument("--per-clip", action="store_true", help="Also show the best class of every clip.")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="Classes to show per video. Default: 5.")
    long = parser.add_argument_group("long videos")
    sliding = "Slide clips over the whole video; write segments and a timeline."
    long.add_argument("--sliding", action="store_true", help=sliding)
    hop = f"Seconds from one sliding clip to the next. Default: {_DEFAULT_HOP_S:g}."
    long.add_argument("--hop-s", type=float, metavar="S", help=hop)
    annotate = "Also write a copy of the video (.mp4, ...) that shows its best classes."
    long.add_argument("--annotate", metavar="FILE", help=annotate)
    plot_format = "Format of the timelines. Default: png."
    long.add_argument("--plot-format", choices=("png", "svg"), default="png", help=plot_format)
    add_view_options(parser, EvaluationConfig(), "clip_scores")
    output = "Predictions directory. Default: nothing is kept; predictions/<name> with --sliding, several processes or "
    parser.add_argument("--output", metavar="DIR", help=f"{output}over {MANY_VIDEOS} videos.")


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the videos, --checkpoint and --root."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO|DIR|LIST", help="Video files, folders or lists.")
    add_checkpoint_argument(parser)
    parser.add_argument("--root", help="Folder of the relative paths in lists. Default: the folder of the list.")


def run(arguments: argparse.Namespace) -> int:
    """Classify; write and show the best classes of each video and, with --sliding, of each segment."""
    from dnl_video.data.manifest import read_videos
    from dnl_video.models.weights.find import find_checkpoint
    from dnl_video.results.tables import merging

    hop_s = _check(arguments)
    manifest = read_videos(arguments.videos, root=arguments.root)
    if arguments.annotate:
        if len(manifest.records) > 1:
            raise InputError(f"--annotate writes one video, and {len(manifest.records)} were given; give one")
        if Path(arguments.annotate).resolve() == Path(manifest.records[0].path).resolve():
            raise InputError(f"--annotate {arguments.annotate} is the video itself; give another name")
        check_output(Path(arguments.annotate), is_file=True)
    file, options = find_checkpoint(arguments.checkpoint), config_from(arguments, EvaluationConfig)
    from dnl_video.models.weights.checkpoint import load_checkpoint

    rank, world_size = rank_and_world_size()
    keep = bool(arguments.output) or hop_s is not None or world_size > 1 or len(manifest.records) > MANY_VIDEOS
    default = Path("predictions") / Path(arguments.videos[0]).resolve().stem
    folder: Any = contextlib.nullcontext(arguments.output or default) if keep else tempfile.TemporaryDirectory()
    with folder as name:
        output = Path(name)
        try:
            checkpoint = load_checkpoint(file)
            more = {"hop_s": hop_s, "retry_failed": arguments.retry_failed}
            if not score_videos("predict", checkpoint, manifest, output, options, **more):
                return 0
            with merging(output, f"top {arguments.top} plots {arguments.plot_format}") as needed:
                # Several processes come here if they finish at the same time; one of them merges.
                if needed or world_size == 1:
                    return _finish(arguments, manifest, output, keep)
            say(f"process {rank} of {world_size} is done; another one merged {output}")
            return 0
        except KeyboardInterrupt:
            kept = f"finished videos are kept in {output}; give the same command again to continue"
            say(f"dnl-video: interrupted; {kept if keep else 'nothing is kept without --output'}", error=True)
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
        say(f"note: {note}", error=True)
    verb = command if world_size == 1 else f"{command} (process {rank} of {world_size})"
    with prediction_progress(verb, quiet=rank != 0) as progress:
        more |= {"rank": rank, "world_size": world_size, "progress": progress, "clip_progress": progress.clips}
        complete = run_predictions(checkpoint, manifest, output, options, **more)
    if not complete:
        say(f"process {rank} of {world_size} is done; others are still at work in {output}")
    return complete


def _check(arguments: argparse.Namespace) -> float | None:
    """Refuse options that exclude each other; return the hop, or None if clips do not slide."""
    if arguments.top < 1:
        raise InputError(f"--top is {arguments.top}; give at least 1")
    if not arguments.sliding:
        for option, given in (("--hop-s", arguments.hop_s is not None), ("--annotate", arguments.annotate)):
            if given:
                raise InputError(f"{option} is for sliding clips; add --sliding")
        return None
    hop_s = _DEFAULT_HOP_S if arguments.hop_s is None else arguments.hop_s
    if not (math.isfinite(hop_s) and hop_s > 0):
        raise InputError(f"--hop-s is {hop_s:g}; give seconds above 0")
    if arguments.num_clips != EvaluationConfig.num_clips:
        raise InputError("--num-clips is for short videos; with --sliding give --hop-s")
    if not arguments.clip_scores:
        raise InputError("--sliding needs clip scores; drop --no-clip-scores or --sliding")
    if arguments.annotate:
        from dnl_video.data.encoding import container_of

        container_of(arguments.annotate)
    return hop_s


def _finish(arguments: argparse.Namespace, manifest: Manifest, output: Path, keep: bool) -> int:
    """Write the tables and pictures, and print a short table or a summary."""
    from dnl_video.cli import predict_output as show
    from dnl_video.results.predictions import read_meta
    from dnl_video.results.tables import read_top_classes, write_top_classes

    records = manifest.records
    names = read_meta(output).class_names
    top = read_top_classes(output, [record.video_id for record in records], len(names), arguments.top)
    paths = [record.path for record in records]
    if len(records) <= MANY_VIDEOS:
        show.print_table(paths, top, names)
        if arguments.per_clip:
            show.print_clips(output, records, names)
    else:
        show.print_summary(top, names)
    if keep:
        write_top_classes(output / "predictions.csv", paths, top, names)
        say(f"wrote {output / 'predictions.csv'}")
    if arguments.sliding:
        show.write_and_print_timelines(output, records, names, arguments.plot_format, MANY_VIDEOS)
        if arguments.annotate and not top.errors:
            show.annotate(output, records[0], names, Path(arguments.annotate))
    if keep:
        say(f"predictions: {output}")
    return VIDEOS_FAILED if top.errors else 0
