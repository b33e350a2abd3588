"""The progress bar of all commands and of training, which fits the width of the terminal."""

from __future__ import annotations

import logging
from typing import Any

from rich import progress
from rich.console import Console
from rich.table import Column
from rich.text import Text


def is_quiet() -> bool:
    """Return whether only results, warnings and errors are printed: with --quiet."""
    return logging.getLogger("dnl_video").level == logging.WARNING


def progress_bar(*texts: str, elapsed: bool = True, **options: Any) -> progress.Progress:
    """Return a progress bar on stderr; a narrow terminal gets a shorter bar and fewer columns.

    Args:
        *texts: Formats of more columns, for example "{task.fields[rate]}"; the most important one first.
        elapsed: Show the time since the start.
        **options: Of `rich.progress.Progress`. A task's field `left` replaces the time left that rich computes.
    """
    console = options.setdefault("console", Console(stderr=True))
    console.width -= 3  # for ^C, which must not wrap
    room = console.width - 38
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),  # the only column that shrinks
        *([progress.MofNCompleteColumn(table_column=Column(no_wrap=True))] if room > 0 else []),
        *(progress.TextColumn(text) for text in texts[: max(room // 13, 0)]),
        *([progress.TimeElapsedColumn(table_column=Column(no_wrap=True))] if elapsed and room > 20 else []),
        _TimeLeft(table_column=Column(no_wrap=True)),
    )
    return progress.Progress(*columns, **options | ({"disable": True} if is_quiet() else {}))


class _TimeLeft(progress.TimeRemainingColumn):
    def render(self, task: progress.Task) -> Text:
        """Return the time left, after the word."""
        return Text(f"left {task.fields.get('left') or super().render(task)}")
