"""`dnl-video features`: pooled backbone features of every clip."""

from __future__ import annotations

import argparse

from dnl_video.cli.main import VIDEOS_FAILED
from dnl_video.cli.options import add_view_options, config_from
from dnl_video.cli.predict import add_video_arguments, score_videos
from dnl_video.cli.terminal import say
from dnl_video.config import EvaluationConfig

DESCRIPTION = """Store the pooled backbone features of every clip in a predictions directory.

  dnl-video features clip.mp4 --checkpoint runs/demo/i3d_dnl --output features/demo
  dnl-video features videos/ more.txt --checkpoint runs/demo/i3d_dnl --output features/mine --num-clips 32
  torchrun --nproc_per_node 8 -m dnl_video features ...        eight processes; each scores its own part

In Python, `dnl_video.results.reader.read_predictions(DIR)` has `clip_features` [clips, channels] with `clip_video`,
`clip_start_s` and `clip_end_s`. The features are the input of the final projection, averaged over positions and crops;
for SlowFast, those of the slow pathway come first. The scores of predict are stored, too.

A list is a text file with one path per line. To resume a killed run, give the same command again."""

_MOST_FAILURES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_video_arguments(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="Predictions directory.")
    add_view_options(parser, EvaluationConfig())


def run(arguments: argparse.Namespace) -> int:
    """Write the features and print their number; 3 when videos failed."""
    from dnl_video.data.manifest import read_videos
    from dnl_video.models.weights.find import find_checkpoint
    from dnl_video.results.reader import iter_predictions

    manifest = read_videos(arguments.videos, root=arguments.root)
    file, options = find_checkpoint(arguments.checkpoint), config_from(arguments, EvaluationConfig)
    from dnl_video.models.weights.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(file)
    more = {"features": True, "retry_failed": arguments.retry_failed}
    if not score_videos("features", checkpoint, manifest, arguments.output, options, **more):
        return 0
    failed = [video for video in iter_predictions(arguments.output) if video.error is not None]
    for video in failed[:_MOST_FAILURES]:
        say(f"failed: {video.video_id}: {video.error}")
    if len(failed) > _MOST_FAILURES:
        say(f"and {len(failed) - _MOST_FAILURES} more: see {arguments.output}/videos-*.jsonl")
    num_videos = len(manifest.records)
    say(f"features of {num_videos - len(failed)} of {num_videos} videos: {arguments.output}")
    return VIDEOS_FAILED if failed else 0
