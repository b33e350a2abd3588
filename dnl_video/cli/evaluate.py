"""`dnl-video evaluate`: score a labelled list with many views."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dnl_video.cli.main import VIDEOS_FAILED
from dnl_video.cli.options import add_checkpoint_argument, add_view_options, config_from
from dnl_video.cli.predict import score_videos
from dnl_video.cli.terminal import say, suggest
from dnl_video.config import EvaluationConfig

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
    output = "Predictions directory. Default: predictions/NAME_OF_LIST."
    parser.add_argument("--output", metavar="DIR", help=output)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print the accuracy."""
    output = Path(arguments.output or Path("predictions") / Path(arguments.manifest).resolve().stem)
    options = config_from(arguments, EvaluationConfig)
    more = {name: getattr(arguments, name) for name in ("root", "limit_videos", "retry_failed")}
    if not evaluate(arguments.checkpoint, arguments.manifest, output, options, **more):
        return 0
    from dnl_video.cli.screen import print_nodes
    from dnl_video.report import build_report
    from dnl_video.report.report_document import report_summary
    from dnl_video.results.reader import read_predictions

    predictions = read_predictions(output)
    print_nodes(report_summary(build_report(predictions)))
    say(f"predictions: {output}")
    suggest("report", output)
    return VIDEOS_FAILED if any(predictions.error) and not arguments.allow_failed else 0


def evaluate(
    checkpoint: str,
    manifest: str,
    output: Path,
    options: EvaluationConfig,
    *,
    root: str | None = None,
    limit_videos: int | None = None,
    **more: Any,
) -> bool:
    """Score a labelled list into ``output`` with `score_videos`; ``root`` and ``limit_videos`` as in `read_manifest`.

    Raises:
        InputError: A file cannot be used, or the directory belongs to another run.
    """
    from dnl_video.data.manifest import find_manifest, read_manifest
    from dnl_video.models.weights.find import find_checkpoint

    file, _ = find_checkpoint(checkpoint), find_manifest(manifest)
    from dnl_video.models.weights.checkpoint import load_checkpoint

    loaded = load_checkpoint(file)
    videos = read_manifest(manifest, root=root, class_names=loaded.class_names, limit_videos=limit_videos, split="val")
    return score_videos("evaluate", loaded, videos, output, options, **more)
