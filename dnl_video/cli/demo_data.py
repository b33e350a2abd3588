"""`dnl-video demo-data`: generate a small video data set."""

from __future__ import annotations

import argparse

from dnl_video.cli.terminal import say, suggest

DESCRIPTION = """Generate a small data set of H.264 videos in the official Kinetics layout (under a minute).

examples:
  dnl-video demo-data --output data/demo
  dnl-video demo-data --output data/tiny --train-videos 16 --val-videos 8

Eight classes: a textured shape moves left, right, up or down, grows, shrinks, or rotates clockwise or
counterclockwise in front of a textured background. A single frame does not show the class, so a network with
more than 12.5 % accuracy has learned motion. Mirroring a video changes its class: train with augment.flip 0.

The same commands work on this folder and on Kinetics:
  DIR/train.csv, DIR/val.csv      label,youtube_id,time_start,time_end,split
  DIR/val_reversed.csv            the validation videos with the classes of their reversed frames
  DIR/train/CLASS/*.mp4           files named ID_START_END.mp4
  DIR/val/CLASS/*.mp4

A second run makes only the missing videos, for example after an interruption or with larger numbers.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="Folder to fill: new, empty, or from an earlier run."
    )
    for option, default, text in (
        ("--seed", 0, "Seed of all videos. Default: 0."),
        ("--train-videos", 400, "Training videos, at least 8. Default: 400."),
        ("--val-videos", 160, "Validation videos, at least 1. Default: 160."),
        ("--num-workers", None, "Processes. Default: one per available core, at most 8."),
    ):
        parser.add_argument(option, type=int, default=default, metavar="N", help=text)


def run(args: argparse.Namespace) -> int:
    """Generate the data set; print its folder and the next command.

    Raises:
        InputError: An argument is out of range, or the folder holds something else or cannot be written.
    """
    from dnl_video.progress_bar import progress_bar
    from dnl_video.synthetic.demo_data import write_demo_data

    with progress_bar() as bar:
        task = bar.add_task("generating videos", total=None, visible=False)
        data = write_demo_data(
            args.output,
            seed=args.seed,
            train_videos=args.train_videos,
            val_videos=args.val_videos,
            workers=args.num_workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True),
        )
    made = f"wrote {data.written} videos" if data.written else "nothing to do: all videos exist"
    say(f"{data.directory}: {data.train_videos} training and {data.val_videos} validation videos ({made})")
    say(f"  {data.train_csv}", f"  {data.val_csv}")
    lists = ("--data.train_manifest", data.train_csv, "--data.val_manifest", data.val_csv)
    suggest("train", "--config", "i3d_dnl", *lists)
    return 0
