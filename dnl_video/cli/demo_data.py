"""`dnl-video demo-data`: generate a small video data set to try everything on."""

from __future__ import annotations

import argparse
import shlex

DESCRIPTION = """Generate a small data set of H.264 videos in the official Kinetics layout (under a minute).

Eight classes: a textured shape moves left, right, up or down, grows, shrinks, or rotates clockwise or
counterclockwise before a textured background. One frame alone tells nothing about the class, so a network
that gets above 12.5 % has learned motion. Mirroring a video changes its class: train with augment.flip 0.

The folder has the official Kinetics layout, so the same commands work on Kinetics:
  DIR/train.csv, DIR/val.csv      label,youtube_id,time_start,time_end,split
  DIR/val_reversed.csv            the same videos with the classes that their reversed frames show
  DIR/train/CLASS/*.mp4           named ID_START_END.mp4
  DIR/val/CLASS/*.mp4

Run again after an interruption, and only what is missing is made; the same seed with more videos adds to it.

example:
  dnl-video demo-data data/demo
  dnl-video demo-data data/tiny --train-videos 16 --val-videos 8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("directory", metavar="DIR", help="folder to fill: new, empty, or from an earlier run")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all videos (default: %(default)s)")
    parser.add_argument(
        "--train-videos", type=int, default=400, metavar="N", help="training videos, at least 8 (default: %(default)s)"
    )
    parser.add_argument(
        "--val-videos", type=int, default=160, metavar="N", help="validation videos, at least 1 (default: %(default)s)"
    )
    parser.add_argument(
        "--num-workers", type=int, metavar="N", help="Processes. Default: one per available core, at most 8."
    )


def run(args: argparse.Namespace) -> int:
    """Generate the data set and say what to type next.

    Raises:
        InputError: An argument is out of range, or the folder holds something else or cannot be written.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from dnl_video.synthetic.demo_data import write_demo_data

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("generating videos", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        data = write_demo_data(
            args.directory,
            seed=args.seed,
            train_videos=args.train_videos,
            val_videos=args.val_videos,
            workers=args.num_workers,
            progress=show,
        )

    made = f"wrote {data.written} videos" if data.written else "nothing to do: all videos are there"
    print(f"{data.directory}: {data.train_videos} training and {data.val_videos} validation videos ({made})")
    print(f"  {data.train_csv}\n  {data.val_csv}")
    print(
        "next:\n"
        "  dnl-video train --config i3d_dnl"
        f" --data.train_manifest {shlex.quote(str(data.train_csv))}"
        f" --data.val_manifest {shlex.quote(str(data.val_csv))}"
    )
    return 0
