"""Tables on the terminal: one look for all commands."""

from __future__ import annotations

from collections.abc import Collection

from rich import box
from rich.table import Table
from rich.text import Text


def plain_table(*columns: str, numbers: Collection[str] = (), title: str = "", header: bool = True) -> Table:
    """Return an empty table without a frame.

    Args:
        columns: Headings.
        numbers: Those of them that stand right and never wrap.
        title: Stands above.
        header: Show the headings.
    """
    table = Table(box=box.SIMPLE, padding=(0, 1), pad_edge=False, show_header=header, title_justify="left")
    table.title = Text(title, style="bold") if title else None
    for name in columns:
        if name in numbers:
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(name, overflow="fold")
    return table
