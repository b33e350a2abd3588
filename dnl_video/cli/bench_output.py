"""How `dnl-video bench` shows what it measures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is left-aligned."""
    from rich.console import Console

    from dnl_video.cli.screen import plain_table

    table = plain_table(*columns, numbers=columns[1:])
    for row in rows:
        table.add_row(*row)
    # A file or a pipe has no width of its own.
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=120)
    console.print(table)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show what is being measured."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:
        yield lambda text: status.update(text)
