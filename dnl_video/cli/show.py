"""`dnl-video show`: says what a file or folder is, its main facts, and the next command."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from dnl_video.cli.terminal import say

DESCRIPTION = """Say what a file or folder is, its main facts, and the next command.

It knows runs, checkpoints, exported models, predictions, reports, comparisons, studies, recipes, lists of videos and
classes, videos, folders of frames or videos, and weights of other projects.

examples:
  dnl-video show runs/slow_dnl
  dnl-video show runs/slow_dnl/checkpoints/last.ckpt --gmacs
  dnl-video show slow_dnl.safetensors
  dnl-video show predictions/slow_dnl
  dnl-video show data/demo/train.csv
  dnl-video show runs/slow_dnl --json

For a run that is the best epoch, the last metrics, and the attention of each block (entropies: 0 one key, 1 uniform).
"""

_SHARES = {
    *("video-level top-1", "video-level top-5", "mean class accuracy", "validation top-1"),
    *("val/top1", "val/top5", "train/top1"),
}
_ATTENTION = ("pairwise_entropy", "same_key_share", "unary_entropy")
_MOST_NAMES = 8  # class names shown; --json prints all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("path", metavar="PATH", help="The file or folder.")
    parser.add_argument("--gmacs", action="store_true", help="Also count multiply-accumulates (runs the network once).")
    parser.add_argument("--json", action="store_true", help="Print all facts as JSON.")


def run(args: argparse.Namespace) -> int:
    """Print the facts.

    Raises:
        InputError: The path does not exist, or holds nothing that is known.
    """
    from dnl_video.cli.run_facts import facts_of

    facts = facts_of(args.path, gmacs=args.gmacs)
    if args.json:
        say(json.dumps(facts, ensure_ascii=False, indent=1))
    else:
        _print(facts)
    return 0


def _print(facts: dict[str, Any]) -> None:
    from dnl_video.cli.screen import plain, plain_table, show

    state = {True: ", finished", False: ", unfinished", None: ""}[facts.get("finished")]
    show(plain(f"{facts['kind']} {facts['path']}{state}", "bold"), wrap=False)
    table = plain_table("part", "name", "value", header=False)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for part, values in facts.items():
        if not isinstance(values, dict) or part == "attention":
            continue
        values = dict(values)
        values |= values.pop("metrics", {})
        for number, (key, value) in enumerate(values.items()):
            table.add_row(part if number == 0 else "", plain(key), plain(_text(key, value)))
        if values:
            table.add_section()
    # Files and pipes have no width; a wide line keeps paths and checksums in one piece.
    show(table, width=None if sys.stdout.isatty() else 200)
    if blocks := facts.get("attention"):
        table = plain_table("attention", *_ATTENTION, numbers=_ATTENTION)
        for block, health in blocks.items():
            table.add_row(block, *(_text("", health.get(kind, "-")) for kind in _ATTENTION))
        show(table)
    say(*(f"evaluated: {path}" for path in facts.get("evaluations", [])))
    say(*(f"next: {command}" for command in facts["next"]))


def _text(key: str, value: Any) -> str:
    if key == "bytes":
        return f"{value:,} ({value / 1e6:.1f} MB)"
    if key == "names":
        more = f", and {len(value) - _MOST_NAMES} more" if len(value) > _MOST_NAMES else ""
        return ", ".join(value[:_MOST_NAMES]) + more
    if key in _SHARES:
        return f"{100 * value:.2f}%"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(k, v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text("", v) for v in value) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
