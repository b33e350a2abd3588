"""`dnl-video features`: pooled backbone features of every clip."""

from __future__ import annotations

import argparse

from dnl_video.cli.main import VIDEOS_FAILED
from dnl_video.cli.options import add_checkpoint_argument, add_view_options, config_from
from dnl_video.config import EvaluationConfig
from dnl_video.launcher import rank_and_world_size

DESCRIPTION = """Store the backbone's pooled features of every clip, one npz per video.

  dnl-video features clip.mp4 --checkpoint runs/demo/i3d_dnl --output features/demo
  dnl-video features videos/ more.txt --checkpoint runs/demo/i3d_dnl --output features/mine --num-clips 32
  torchrun --nproc_per_node 8 -m dnl_video features ...        eight processes; each does its own part

DIR/<video>.npz holds `features` [clips, channels], averaged over crops, with `clip_start_s`, `clip_end_s`, `video_id`
and `path`. A feature is what the final projection sees, averaged over positions; SlowFast's two pathways follow one
another. A list is a text file with a path a line. Videos that cannot be read are listed in DIR/failed-*.jsonl. A killed
run goes on where it stopped: give the same command again."""

_SHOWN_FAILURES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO|DIR|LIST", help="The videos.")
    add_checkpoint_argument(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="Folder for the files.")
    parser.add_argument("--root", help="Folder that relative paths of lists are looked up in; default: the list's own.")
    add_view_options(parser, EvaluationConfig(num_crops=1))


def run(arguments: argparse.Namespace) -> int:
    """Write the files and say how many; 3 when videos failed."""
    from dnl_video.cli.progress import prediction_progress
    from dnl_video.data.manifest import read_videos
    from dnl_video.inference.features import run_features
    from dnl_video.models.weights.checkpoint import load_checkpoint

    manifest = read_videos(arguments.videos, root=arguments.root)
    rank, world_size = rank_and_world_size()
    with prediction_progress("features", quiet=rank != 0) as progress:
        files = run_features(
            load_checkpoint(arguments.checkpoint),
            manifest,
            arguments.output,
            config_from(arguments, EvaluationConfig),
            rank=rank,
            world_size=world_size,
            retry_failed=arguments.retry_failed,
            progress=progress,
        )
    if files.missing:
        print(f"process {rank} of {world_size} is done; others are still at work in {arguments.output}")
        return 0
    for video_id, reason in list(files.failed.items())[:_SHOWN_FAILURES]:
        print(f"failed: {video_id}: {reason}")
    if len(files.failed) > _SHOWN_FAILURES:
        print(f"and {len(files.failed) - _SHOWN_FAILURES} more: see {arguments.output}/failed-*.jsonl")
    print(f"features of {files.written} of {len(manifest.records)} videos: {arguments.output}")
    return VIDEOS_FAILED if files.failed else 0
