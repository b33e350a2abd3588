"""`dnl-video predict`: classify video files, folders or lists."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dnl_video.cli.evaluate import VIDEOS_FAILED, add_output_argument, add_view_arguments, view_options
from dnl_video.config import EvaluationConfig
from dnl_video.errors import InputError

if TYPE_CHECKING:
    from dnl_video.results.predictions import Predictions

DESCRIPTION = """Classify video files, folders or lists.

  dnl-video predict clip.mp4 --checkpoint runs/demo
  dnl-video predict clip.mp4 --checkpoint runs/demo --per-clip       what happens when
  dnl-video predict videos/ more.txt --checkpoint runs/demo --output predictions/mine

A list is a text file with a path a line. With --output the scores are kept, and a killed run goes on where it
stopped."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO|DIR|LIST", help="What to classify.")
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="A checkpoint, an exported model, or the folder of a training run (its best).",
    )
    parser.add_argument("--root", help="Folder that relative paths of lists are looked up in; default: the list's own.")
    parser.add_argument("--per-clip", action="store_true", help="Also show the best class of every clip along time.")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="Classes to show per video (%(default)s).")
    add_view_arguments(parser, EvaluationConfig(num_clips=10, num_crops=1))
    add_output_argument(parser, "nothing is kept")


def run(arguments: argparse.Namespace) -> int:
    """Classify, and show a table of the best classes per video."""
    import tempfile

    from dnl_video.cli.progress import prediction_progress
    from dnl_video.data.manifest import read_videos
    from dnl_video.inference.runner import run_predictions, shard_from_environment
    from dnl_video.models.weights.checkpoint import load_checkpoint
    from dnl_video.results.predictions import read_predictions

    if arguments.top < 1:
        raise InputError(f"--top is {arguments.top}; give at least 1")
    manifest = read_videos(arguments.videos, root=arguments.root)
    checkpoint = load_checkpoint(arguments.checkpoint)
    rank, world_size = shard_from_environment()
    with tempfile.TemporaryDirectory() as scratch, prediction_progress("predict", quiet=rank != 0) as progress:
        output = Path(arguments.output or scratch)
        complete = run_predictions(
            checkpoint,
            manifest,
            output,
            view_options(arguments),
            rank=rank,
            world_size=world_size,
            retry_failed=arguments.retry_failed,
            progress=progress,
        )
        if not complete:
            print(f"process {rank} of {world_size} is done; others are still at work in {output}")
            return 0
        predictions = read_predictions(output, order=[record.video_id for record in manifest.records])
    _print_table(predictions, arguments.top)
    if arguments.per_clip:
        _print_clips(predictions)
    if arguments.output:
        print(f"predictions: {arguments.output}")
    return VIDEOS_FAILED if any(predictions.error) else 0


def _print_table(predictions: Predictions, k: int) -> None:
    """Show the k best classes of every video, failed ones with their reason."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = predictions.meta.class_names
    table = Table()
    table.add_column("video", overflow="fold")
    table.add_column("class")
    table.add_column("score", justify="right")
    for path, error, scores in zip(predictions.path, predictions.error, predictions.scores, strict=True):
        if error is not None:
            table.add_row(Text(path), Text(f"failed: {error}", style="red"), "", end_section=True)
            continue
        best = np.argsort(-scores, kind="stable")[:k]
        for place, index in enumerate(best):
            name = Text(path) if place == 0 else ""
            table.add_row(name, names[index], f"{100 * scores[index]:.1f}%", end_section=place == len(best) - 1)
    Console().print(table)


def _print_clips(predictions: Predictions) -> None:
    """Show the best class of every clip, along time."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if predictions.clip_video is None or predictions.clip_scores is None:
        print("no clip scores were stored; drop --no-clip-scores to see them")
        return
    assert predictions.clip_start_s is not None
    assert predictions.clip_end_s is not None
    names = predictions.meta.class_names
    table = Table("video", "from s", "to s", "class", "score")
    table.columns[0].overflow = "fold"
    for row, video in enumerate(predictions.clip_video):
        best = int(predictions.clip_scores[row].argmax())
        first = row == 0 or predictions.clip_video[row - 1] != video
        table.add_row(
            Text(predictions.path[video]) if first else "",
            f"{predictions.clip_start_s[row]:.2f}",
            f"{predictions.clip_end_s[row]:.2f}",
            names[best],
            f"{100 * predictions.clip_scores[row, best]:.1f}%",
        )
    Console().print(table)
