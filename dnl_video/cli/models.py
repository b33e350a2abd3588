"""`dnl-video models`: parameters and multiply-accumulates of networks."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import get_args

from dnl_video.cli.terminal import log
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

# Counts for the default options; a test compares them with the networks. scripts/bench/costs.py writes the file.
_COUNTED = Path(__file__).parents[1] / "models" / "inspect" / "costs.csv"


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

    numbers = ["params", "added", *(f"{g}{size}" for size in args.size for g in ("GMACs ", "+"))]
    table = plain_table("network", "context", *numbers, numbers=numbers)
    for architecture in args.architecture:
        bare = _costs(architecture, "none", args)
        for context in args.context:
            (params, bare_params), *macs = zip(_costs(architecture, context, args), bare, strict=True)
            cells = [f"{params / 1e6:.2f}M", f"{(params - bare_params) / 1e6:.2f}M"]
            cells += [f"{n / 1e9:.2f}" for cost, base in macs for n in (cost, cost - base)]
            table.add_row(architecture, context, *cells)
    show(table, "One clip: 8 frames, 32 for SlowFast. added, +: share of the context blocks.")
    others = [name for name in get_args(Architecture) if name not in args.architecture]
    if others:
        show(f"other networks: --architecture {' '.join(others)}", wrap=False)
    return 0


def _costs(architecture: Architecture, context: Context, args: argparse.Namespace) -> list[int]:
    """Return the parameters, then the multiply-accumulates by size; for the usual options from the file."""
    if not args.unpooled and set(args.size) <= {224, 256}:
        with _COUNTED.open(encoding="utf-8") as file:
            row = next(r for r in csv.DictReader(file) if (r["architecture"], r["context"]) == (architecture, context))
        return [int(row["params"]), *(int(row[f"macs_{size}"]) for size in args.size)]
    from dnl_video.models.create import create_model
    from dnl_video.models.inspect.flops import count

    log.info("counting %s, context %s", architecture, context)
    options = ContextOptions(pool=None) if args.unpooled else ContextOptions()
    model = create_model(architecture, context=context, context_options=options)
    frames = 32 if architecture.startswith("slowfast") else 8
    costs = [count(model, 1, 3, frames, size, size) for size in args.size]
    return [costs[0].params, *(cost.macs for cost in costs)]
