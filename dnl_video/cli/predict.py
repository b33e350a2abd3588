"""`dnl-video predict`: classify video files, folders, lists, and what happens when in long videos."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dnl_video.cli.main import INTERRUPTED, VIDEOS_FAILED
from dnl_video.cli.options import add_checkpoint_argument, add_output_argument, add_view_options, config_from
from dnl_video.config import EvaluationConfig
from dnl_video.errors import InputError
from dnl_video.launcher import rank_and_world_size

if TYPE_CHECKING:
    from dnl_video.data.manifest import Manifest

DESCRIPTION = """Classify video files, folders or lists.

  dnl-video predict clip.mp4 --checkpoint runs/demo
  dnl-video predict clip.mp4 --checkpoint runs/demo --per-clip       the clips' classes along time
  dnl-video predict movie.mp4 --checkpoint runs/demo --sliding       what happens when: segments, timeline
  dnl-video predict movie.mp4 --checkpoint runs/demo --sliding --hop-s 0.5 --annotate seen.mp4
  dnl-video predict videos/ more.txt --checkpoint runs/demo --output predictions/mine
  torchrun --nproc_per_node 8 -m dnl_video predict millions.txt ...     eight processes; the last one merges

A list is a text file with a path a line. With --output the scores are kept, predictions.csv lists the best classes in
the order given, and a killed run goes on where it stopped: give the same command again."""

_DEFAULT_HOP_S = 1.0
_NUM_CLIPS = 10
# More videos than this make no table on the screen, and are kept even without --output.
MANY_VIDEOS = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO|DIR|LIST", help="What to classify.")
    add_checkpoint_argument(parser)
    parser.add_argument("--root", help="Folder that relative paths of lists are looked up in; default: the list's own.")
    parser.add_argument("--per-clip", action="store_true", help="Also show the best class of every clip along time.")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="Classes to show per video (%(default)s).")
    long = parser.add_argument_group("long videos")
    long.add_argument(
        "--sliding", action="store_true", help="Slide clips over the whole video; write segments and a timeline."
    )
    long.add_argument(
        "--hop-s", type=float, metavar="S", help=f"Seconds from one sliding clip to the next ({_DEFAULT_HOP_S:g})."
    )
    long.add_argument(
        "--annotate", metavar="FILE", help="Also write one video's copy (.mp4, ...) with its current best classes."
    )
    long.add_argument(
        "--plot-format", choices=("png", "svg"), default="png", help="Format of the timelines (%(default)s)."
    )
    add_view_options(parser, EvaluationConfig(num_clips=_NUM_CLIPS, num_crops=1), "clip_scores")
    add_output_argument(
        parser,
        f"nothing is kept; predictions/<name> with --sliding, several processes or over {MANY_VIDEOS} videos",
    )


def run(arguments: argparse.Namespace) -> int:
    """Classify; write and show the best classes per video and, with --sliding, per stretch of time."""
    from dnl_video.data.manifest import read_videos

    hop_s = _check(arguments)
    manifest = read_videos(arguments.videos, root=arguments.root)
    if arguments.annotate:
        if len(manifest.records) > 1:
            raise InputError(f"--annotate writes one video, and {len(manifest.records)} were given; give one")
        if Path(arguments.annotate).resolve() == Path(manifest.records[0].path).resolve():
            raise InputError(f"--annotate {arguments.annotate} is the video itself; give another name")
    rank, world_size = rank_and_world_size()
    keep = bool(arguments.output) or hop_s is not None or world_size > 1 or len(manifest.records) > MANY_VIDEOS
    with _output_folder(arguments, keep) as output:
        try:
            return _run(arguments, manifest, output, hop_s, rank, world_size, keep)
        except KeyboardInterrupt:
            what = (
                f"what was finished is kept in {output}; the same command goes on there"
                if keep
                else "nothing was kept, for want of --output"
            )
            print(f"dnl-video: interrupted; {what}", file=sys.stderr)
            return INTERRUPTED


def _check(arguments: argparse.Namespace) -> float | None:
    """Refuse options that do not go together; return the hop, or None where clips do not slide."""
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
    if arguments.num_clips != _NUM_CLIPS:
        raise InputError("--num-clips spreads clips over a short video; with --sliding give --hop-s")
    if not arguments.clip_scores:
        raise InputError("--no-clip-scores leaves nothing to make segments of; drop it or --sliding")
    if arguments.annotate:
        from dnl_video.data.encoding import container_of

        container_of(arguments.annotate)
    return hop_s


@contextlib.contextmanager
def _output_folder(arguments: argparse.Namespace, keep: bool) -> Iterator[Path]:
    import tempfile

    if keep:
        yield Path(arguments.output or Path("predictions") / Path(arguments.videos[0]).resolve().stem)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def _run(
    arguments: argparse.Namespace,
    manifest: Manifest,
    output: Path,
    hop_s: float | None,
    rank: int,
    world_size: int,
    keep: bool,
) -> int:
    from dnl_video.cli.progress import prediction_progress
    from dnl_video.inference.runner import run_predictions
    from dnl_video.models.weights.checkpoint import load_checkpoint
    from dnl_video.results.tables import merging

    verb = "predict" if world_size == 1 else f"predict (process {rank} of {world_size})"
    with prediction_progress(verb, quiet=rank != 0) as progress:
        complete = run_predictions(
            load_checkpoint(arguments.checkpoint),
            manifest,
            output,
            config_from(arguments, EvaluationConfig),
            hop_s=hop_s,
            rank=rank,
            world_size=world_size,
            retry_failed=arguments.retry_failed,
            progress=progress,
            clip_progress=progress.clips,
        )
    if not complete:
        print(f"process {rank} of {world_size} is done; others are still at work in {output}")
        return 0
    with merging(output, f"top {arguments.top} plots {arguments.plot_format}") as fresh:
        # Of several processes the last one to finish comes here, now and then more than one.
        if fresh or world_size == 1:
            return _finish(arguments, manifest, output, hop_s, keep)
    print(f"process {rank} of {world_size} is done; another one merged {output}")
    return 0


def _finish(arguments: argparse.Namespace, manifest: Manifest, output: Path, hop_s: float | None, keep: bool) -> int:
    """Write the tables and pictures, and show as much as a screen holds."""
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
            show.print_clips(output, records)
    else:
        show.print_summary(top, names)
    if keep:
        write_top_classes(output / "predictions.csv", paths, top, names)
        print(f"wrote {output / 'predictions.csv'}")
    if hop_s is not None:
        show.write_and_print_timelines(output, records, arguments.plot_format, MANY_VIDEOS)
        if arguments.annotate and not top.errors:
            show.annotate(output, records[0], Path(arguments.annotate))
    if keep:
        print(f"predictions: {output}")
    return VIDEOS_FAILED if top.errors else 0
