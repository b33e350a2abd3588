"""Options that several commands share."""

from __future__ import annotations

import argparse
from typing import get_args

from dnl_video.config import Decoder, EvaluationConfig


def add_checkpoint_argument(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="A checkpoint, an exported model, or the folder of a training run (its best).",
    )


def add_view_arguments(
    parser: argparse.ArgumentParser, defaults: EvaluationConfig, *, clip_scores: bool = True
) -> None:
    """Add the options of looking at many videos.

    Args:
        parser: The command's.
        defaults: What the help states.
        clip_scores: Whether the command stores scores of clips, which one may leave out.
    """
    views = parser.add_argument_group("views and device")
    views.add_argument("--num-clips", type=int, default=defaults.num_clips, help="Clips along time (%(default)s).")
    views.add_argument(
        "--num-crops", type=int, default=defaults.num_crops, help="Crops per clip, 1 or 3 (%(default)s)."
    )
    views.add_argument(
        "--views-per-forward", type=int, default=defaults.views_per_forward, help="Views at once (%(default)s)."
    )
    views.add_argument("--device", default=defaults.device, help="auto, cpu, cuda, cuda:N or mps (%(default)s).")
    views.add_argument(
        "--precision",
        default=defaults.precision,
        choices=("32-true", "16-mixed", "bf16-mixed"),
        help="Arithmetic of the network (%(default)s).",
    )
    views.add_argument("--num-workers", type=int, help="Decoding processes; default: the cores, 8 at most.")
    views.add_argument(
        "--decoder",
        choices=get_args(Decoder),
        default=defaults.decoder,
        help="What reads the videos: decord where it is exact, else PyAV (av); auto: the faster of those that are "
        "exact (%(default)s).",
    )
    if clip_scores:
        views.add_argument("--no-clip-scores", action="store_true", help="Store scores of whole videos only.")
    views.add_argument("--retry-failed", action="store_true", help="Try again the videos that failed in a former run.")


def add_output_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --output."""
    parser.add_argument("--output", metavar="DIR", help=f"Predictions directory; default: {default}.")


def view_options(arguments: argparse.Namespace) -> EvaluationConfig:
    """Return the options that `add_view_arguments` added."""
    return EvaluationConfig(
        num_clips=arguments.num_clips,
        num_crops=arguments.num_crops,
        views_per_forward=arguments.views_per_forward,
        device=arguments.device,
        precision=arguments.precision,
        num_workers=arguments.num_workers,
        decoder=arguments.decoder,
        clip_scores=not getattr(arguments, "no_clip_scores", False),
        frame_order=getattr(arguments, "frame_order", "natural"),
    )
