"""Options, progress, tables and the JSON file of a benchmark script."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.status import Status

from dnl_video.cli.screen import plain_table
from dnl_video.cores import processor_name
from dnl_video.errors import InputError
from dnl_video.inference.device import resolve_device

Measure = Callable[[argparse.Namespace, torch.device], list[Any]]
Show = Callable[[argparse.Namespace, list[Any]], None]
_status: Status | None = None


def make_parser(description: str | None, *, repeats: int | None = 9, cpu_only: bool = False) -> argparse.ArgumentParser:
    """Return a parser with the shared options; None for ``repeats`` leaves out --repeats and --budget-s."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter, allow_abbrev=False)
    if repeats is not None:
        parser.add_argument("--repeats", type=positive, default=repeats, help="Measured rounds (%(default)s).")
        parser.add_argument("--budget-s", type=float, default=60.0, help="Seconds after which no round starts (60).")
    if not cpu_only:
        parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s).")
        parser.add_argument("--threads", type=positive, default=1, help="Threads on a CPU (%(default)s).")
    parser.add_argument("--json", type=Path, help="Also write the figures to this file.")
    return parser


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def run_benchmark(parser: argparse.ArgumentParser, measure: Measure, show: Show, argv: Sequence[str] | None) -> None:
    """Measure, show the results (dataclasses) and the machine, and write the JSON file; bad input exits with 2."""
    global _status
    args = parser.parse_args(argv)
    try:
        device = resolve_device(getattr(args, "device", "cpu"))
        torch.set_num_threads(getattr(args, "threads", 1))
        with Console(stderr=True).status("starting") as _status:
            results = measure(args, device)
    except InputError as error:
        parser.error(str(error))
    finally:
        _status = None
    show(args, results)
    machine = describe(device)
    print(f"measured on {machine}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        figures = {"measured_on": machine, "results": [asdict(result) for result in results]}
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        print(f"figures: {args.json}")


def progress(text: str) -> None:
    """Show what is being measured, if a script runs."""
    if _status is not None:
        _status.update(text)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is left-aligned."""
    table = plain_table(*columns, numbers=columns[1:])
    for row in rows:
        table.add_row(*row)
    # Files and pipes have no width.
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=120)
    console.print(table)


def describe(device: torch.device) -> str:
    """Return the device, threads and torch version of a measurement."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{processor_name()}, {threads} thread{'s' if threads > 1 else ''}, CPU time"
    return f"{name}; torch {torch.__version__}"
