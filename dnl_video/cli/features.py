"""`dnl-video features`: pooled backbone features of every clip."""

from __future__ import annotations

import argparse

from dnl_video.cli.main import VIDEOS_FAILED
from dnl_video.cli.options import add_video_arguments, add_view_options, config_from, default_output, load
from dnl_video.cli.predict import score_videos
from dnl_video.cli.terminal import say
from dnl_video.config import EvaluationConfig

DESCRIPTION = """Store the pooled backbone features of every clip in a predictions directory.

examples:
  dnl-video features clip.mp4 --checkpoint runs/demo/i3d_dnl
  dnl-video features videos/ more.txt --checkpoint runs/demo/i3d_dnl --output features/mine --num-clips 32
  torchrun --nproc_per_node 8 -m dnl_video features ...        eight processes; each scores its own part

In Python, `dnl_video.results.reader.read_predictions(DIR)` has `clip_features` [clips, channels] with `clip_video`,
`clip_start_s` and `clip_end_s`. The features are the input of the final projection, averaged over positions and crops;
for SlowFast, those of the slow pathway come first. The scores of predict are stored, too.

A list is a text file with one path per line. To resume a killed run, give the same command again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_video_arguments(parser)
    add_view_options(parser, kind="features")


def run(arguments: argparse.Namespace) -> int:
    """Write the features and print their number; 3 when videos failed."""
    from dnl_video.data.manifest import read_videos
    from dnl_video.results.reader import finished_ids

    manifest = read_videos(arguments.videos, root=arguments.root)
    options, checkpoint = config_from(arguments, EvaluationConfig), load(arguments.checkpoint)
    output = arguments.output or default_output("features", checkpoint, manifest, arguments.videos[0])
    more = {"features": True, "retry_failed": arguments.retry_failed}
    if not score_videos("features", checkpoint, manifest, output, options, **more):
        return 0
    total, done = len(manifest.records), len(finished_ids(output, retry_failed=True))
    say(f"features of {done} of {total} videos: {output}")
    return VIDEOS_FAILED if done < total else 0
