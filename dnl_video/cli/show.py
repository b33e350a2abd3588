"""`dnl-video show`: what a person wants to know about what this package wrote."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

DESCRIPTION = """Show what a run, a checkpoint, an exported model, a predictions directory or a folder of features is.

Architecture and blocks, parameters, classes, preprocessing, the best epoch and its validation top-1, schedule, lists of
videos, size and sha256, where weights come from, last metrics, whether it is finished, and the commands that come next.

examples:
  dnl-video show runs/slow_dnl
  dnl-video show runs/slow_dnl/checkpoints/last.ckpt --gmacs
  dnl-video show slow_dnl.safetensors
  dnl-video show predictions/slow_dnl
  dnl-video show runs/slow_dnl --json
"""

_SHARES = {
    *("video-level top-1", "video-level top-5", "mean class accuracy", "validation top-1"),
    *("val/top1", "val/top5", "train/top1"),
}
_MOST_NAMES = 8  # class names shown; --json has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "path", metavar="PATH", help="a run's folder, a model file, a predictions directory or a folder of features"
    )
    parser.add_argument("--gmacs", action="store_true", help="count multiply-accumulates too (runs the network once)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the facts.

    Raises:
        InputError: There is nothing at the path that this package wrote.
    """
    from dnl_video.cli.run_facts import facts_of

    facts = facts_of(args.path, gmacs=args.gmacs)
    if args.json:
        print(json.dumps(facts, ensure_ascii=False, indent=1))
        return 0
    _print(facts)
    return 0


def _print(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    from dnl_video.cli.screen import plain_table

    # A file or a pipe has no width of its own; paths and checksums should be whole there.
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)
    state = {True: ", finished", False: ", unfinished", None: ""}[facts.get("finished")]
    console.print(Text(f"{facts['kind']} {facts['path']}{state}", style="bold"), soft_wrap=True)
    table = plain_table("part", "name", "value", header=False)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for part in ("model", "weights", "progress", "accuracy", "videos", "protocol", "preprocessing", "classes"):
        _add(table, part, facts.get(part))
    for part in ("training", "provenance", "run", "versions"):
        _add(table, part, facts.get(part))
    console.print(table)
    for path in facts.get("evaluations", []):
        console.print(Text(f"evaluated: {path}"), soft_wrap=True)
    for command in facts["next"]:
        # One line each, to be copied.
        console.print(Text(f"next: {command}"), soft_wrap=True)


def _add(table: Any, part: str, values: dict[str, Any] | None) -> None:
    from rich.text import Text

    flat: dict[str, Any] = {}
    for key, value in (values or {}).items():
        flat |= value if key == "metrics" else {key: value}
    for number, (key, value) in enumerate(flat.items()):
        table.add_row(part if number == 0 else "", key, Text(_text(key, value)))
    if flat:
        table.add_section()


def _text(key: str, value: Any) -> str:
    """Return a value as a person reads it."""
    if key == "bytes":
        return f"{value:,} ({value / 1e6:.1f} MB)"
    if key == "names":
        more = f", and {len(value) - _MOST_NAMES} more" if len(value) > _MOST_NAMES else ""
        return ", ".join(value[:_MOST_NAMES]) + more
    if key in _SHARES:
        return f"{100 * value:.2f}%"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(k, v)}" for k, v in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(_text("", v) for v in value) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
