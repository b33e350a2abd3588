"""`dnl-video evaluate`: score a labelled list with many views."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dnl_video.cli.main import VIDEOS_FAILED
from dnl_video.cli.options import add_checkpoint_argument, add_output_argument, add_view_options, config_from
from dnl_video.config import EvaluationConfig
from dnl_video.errors import InputError
from dnl_video.launcher import rank_and_world_size

DESCRIPTION = """Score every video of a labelled list with many views.

examples:
  dnl-video evaluate --checkpoint runs/demo --manifest data/demo/val.csv --output predictions/demo
  torchrun --nproc_per_node 8 -m dnl_video evaluate ...        eight processes; each scores its own part

To resume a killed run, give the same command again. Next: dnl-video report DIR."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_checkpoint_argument(parser)
    parser.add_argument("--manifest", required=True, help="Kinetics CSV, `path label` list or class folder.")
    parser.add_argument(
        "--root", help="Folder for relative paths and ids of the list. Default: the folder of the list."
    )
    parser.add_argument("--limit-videos", type=int, metavar="N", help="Use N videos of the list, evenly spaced.")
    parser.add_argument(
        "--allow-failed", action="store_true", help=f"Exit with 0, not {VIDEOS_FAILED}, if videos failed to decode."
    )
    add_view_options(parser, EvaluationConfig(), "clip_scores", "frame_order")
    add_output_argument(parser, "predictions/NAME_OF_LIST")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print the accuracy."""
    output = Path(arguments.output or Path("predictions") / Path(arguments.manifest).resolve().stem)
    rank, world_size = rank_and_world_size()
    complete = evaluate(
        arguments.checkpoint,
        arguments.manifest,
        output,
        config_from(arguments, EvaluationConfig),
        root=arguments.root,
        limit_videos=arguments.limit_videos,
        retry_failed=arguments.retry_failed,
        rank=rank,
        world_size=world_size,
    )
    if not complete:
        print(f"process {rank} of {world_size} is done; others are still at work in {output}")
        return 0
    from dnl_video.report import build_report
    from dnl_video.report.render_text import print_nodes
    from dnl_video.report.report_document import report_summary
    from dnl_video.results.reader import read_predictions

    predictions = read_predictions(output)
    print_nodes(report_summary(build_report(predictions)))
    print(f"predictions: {output}\nnext: dnl-video report {output}")
    return VIDEOS_FAILED if any(predictions.error) and not arguments.allow_failed else 0


def evaluate(
    checkpoint: str,
    manifest: str,
    output: Path,
    options: EvaluationConfig,
    *,
    root: str | None = None,
    limit_videos: int | None = None,
    rank: int = 0,
    **others: Any,
) -> bool:
    """Score a labelled list with a progress bar; return whether every listed video is in ``output``.

    Args:
        checkpoint: See --checkpoint.
        manifest: The labelled list.
        output: Predictions directory.
        options: Views and device.
        root: See `read_manifest`.
        limit_videos: Use this many videos.
        rank: Rank of this process.
        others: Further options of `run_predictions`.
    """
    from dnl_video.cli.screen import prediction_progress
    from dnl_video.data.manifest import read_manifest
    from dnl_video.inference.runner import run_predictions
    from dnl_video.models.weights.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    names, outputs = loaded.class_names, loaded.spec.num_classes
    videos = read_manifest(manifest, root=root, class_names=names, limit_videos=limit_videos)
    if len(names) != outputs:
        raise InputError(f"{loaded.path}: {len(names)} class names for {outputs} outputs; the file is damaged")
    with prediction_progress("evaluate", quiet=rank != 0) as progress:
        return run_predictions(loaded, videos, output, options, rank=rank, progress=progress, **others)
