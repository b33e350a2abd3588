"""`dnl-video evaluate`: score a labelled list with many views."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dnl_video.cli.main import VIDEOS_FAILED
from dnl_video.cli.options import add_checkpoint_argument, add_view_options, config_from, default_output, load
from dnl_video.cli.predict import score_videos
from dnl_video.cli.results import print_report
from dnl_video.cli.terminal import suggest
from dnl_video.config import EvaluationConfig

DESCRIPTION = """Score every video of a labelled list with many views.

examples:
  dnl-video evaluate --checkpoint runs/demo/i3d_dnl --manifest data/demo/val.csv
  torchrun --nproc_per_node 8 -m dnl_video evaluate ...        eight processes; each scores its own part

It prints top-1, top-5 (with more than five classes) and mean class accuracy with 95% intervals, and the directory of
the scores. To resume a killed run, give the same command again. Next: dnl-video report DIR."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_checkpoint_argument(parser)
    parser.add_argument("--manifest", required=True, help="Kinetics CSV, `path label` list or class folder.")
    parser.add_argument("--root", help="Folder of the relative paths in the list. Default: the folder of the list.")
    parser.add_argument("--limit-videos", type=int, metavar="N", help="Use N videos of the list, evenly spaced.")
    failed = f"Exit with 0, not {VIDEOS_FAILED}, if videos failed."
    parser.add_argument("--allow-failed", action="store_true", help=failed)
    add_view_options(parser, "clip_scores", "frame_order")
    parser.add_argument("--json", action="store_true", help="Print accuracy and coverage as JSON, as in report.json.")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print the accuracy."""
    options = config_from(arguments, EvaluationConfig)
    more = {name: getattr(arguments, name) for name in ("root", "limit_videos", "retry_failed")}
    output = evaluate(arguments.checkpoint, arguments.manifest, arguments.output, options, **more)
    if output is None:
        return 0
    from dnl_video.report import build_report
    from dnl_video.results.reader import read_predictions

    predictions = read_predictions(output)
    print_report(build_report(predictions), arguments.json, {"predictions": str(output)}, f"predictions: {output}")
    suggest("report", output)
    return VIDEOS_FAILED if any(predictions.error) and not arguments.allow_failed else 0


def evaluate(
    checkpoint: str,
    manifest: str,
    output: str | Path | None,
    options: EvaluationConfig,
    *,
    root: str | None = None,
    limit_videos: int | None = None,
    **more: Any,
) -> Path | None:
    """Score a labelled list, read as by `read_manifest`, with `score_videos`.

    Return the predictions directory, by default `default_output`; None if other processes are still at work.

    Raises:
        InputError: A file cannot be used, or the directory belongs to another run.
    """
    from dnl_video.data.manifest import find_manifest, read_manifest

    find_manifest(manifest)
    loaded = load(checkpoint)
    videos = read_manifest(manifest, root=root, class_names=loaded.class_names, limit_videos=limit_videos, split="val")
    folder = Path(output or default_output("predictions", loaded, videos, manifest))
    return folder if score_videos("evaluate", loaded, videos, folder, options, **more) else None
