"""`dnl-video models`: parameters and multiply-accumulates of networks."""

from __future__ import annotations

import argparse
from typing import get_args

from dnl_video.errors import InputError
from dnl_video.spec import Architecture, Context, ContextOptions

DESCRIPTION = """List parameters and multiply-accumulates (in billions, GMACs) of the networks for one clip.

examples:
  dnl-video models
  dnl-video models --architecture slowfast_r50 i3d_r50 --context none dnl --size 256
  dnl-video models --context nl dnl --unpooled

As in fvcore, convolutions, matrix products (also those of fused attention) and batch norms are counted; softmax
and max-pooling are not. Clips are those of the 8x8 recipes: 8 frames, 32 for SlowFast. The columns "added" and
"+256" show the share of the context blocks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    architectures, contexts = get_args(Architecture), get_args(Context)
    parser.add_argument(
        "--architecture", nargs="+", choices=architectures, default=["slow_r50"], help="Backbones. Default: slow_r50."
    )
    parser.add_argument("--context", nargs="+", choices=contexts, default=contexts, help="Blocks. Default: all.")
    parser.add_argument(
        "--size", nargs="+", type=int, default=[224, 256], help="Crop sides in pixels. Default: 224 256."
    )
    parser.add_argument("--unpooled", action="store_true", help="Use blocks without max-pooling of keys and values.")


def run(args: argparse.Namespace) -> int:
    """Print the table.

    Raises:
        InputError: A size is too small for the networks.
    """
    if min(args.size) < 32:
        raise InputError(f"--size {min(args.size)} is too small; give at least 32 pixels")
    from dnl_video.cli.screen import plain_table, show
    from dnl_video.models.create import create_model
    from dnl_video.models.inspect.flops import count

    options = ContextOptions(pool=None) if args.unpooled else ContextOptions()
    numbers = ["params", "added", *(f"{g}{size}" for size in args.size for g in ("GMACs ", "+"))]
    table = plain_table("network", "context", *numbers, numbers=numbers)
    for architecture in args.architecture:
        frames = 32 if architecture.startswith("slowfast") else 8
        counted = {}
        for context in dict.fromkeys(["none", *args.context]):
            model = create_model(architecture, context=context, context_options=options)
            counted[context] = [count(model, 1, 3, frames, size, size) for size in args.size]
        bare = counted["none"]
        for context in args.context:
            costs = counted[context]
            cells = [f"{costs[0].params / 1e6:.2f}M", f"{(costs[0].params - bare[0].params) / 1e6:.2f}M"]
            for cost, base in zip(costs, bare, strict=True):
                cells += [f"{cost.macs / 1e9:.2f}", f"{(cost.macs - base.macs) / 1e9:.2f}"]
            table.add_row(architecture, context, *cells)
    show(table, "One clip: 8 frames, 32 for SlowFast. added, +: share of the context blocks.")
    others = [name for name in get_args(Architecture) if name not in args.architecture]
    if others:
        show(f"other networks: --architecture {' '.join(others)}", wrap=False)
    return 0
