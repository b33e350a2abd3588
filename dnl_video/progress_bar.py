"""The progress bar of all commands and of training, which fits the width of the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

_SHORTEST, _LONGEST = 5, 40  # characters of the bar


def is_quiet() -> bool:
    """Return whether only results, warnings and errors are printed: with --quiet."""
    return logging.getLogger("dnl_video").level == logging.WARNING


def progress_bar(*texts: str, **options: Any) -> Progress:
    """Return a progress bar on stderr; on a narrow terminal, the least important columns are left out.

    Args:
        *texts: Formats of more columns, for example "{task.fields[rate]}"; the most important one first.
        **options: Of `rich.progress.Progress`. A task's field `left` replaces the times that rich measures.
    """
    description, bar, count, elapsed, left = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Elapsed(),
        _TimeLeft(),
    )
    more = [TextColumn(text) for text in texts]
    columns = (description, bar, count, *more, elapsed, left)
    quiet = {"disable": True} if is_quiet() else {}
    progress = _FittingProgress(*columns, **({"console": Console(stderr=True)} | options | quiet))
    progress.by_importance = [description, left, *more[:1], count, *more[1:], bar, elapsed]
    return progress


class _Elapsed(TimeElapsedColumn):
    def render(self, task: Task) -> Text:
        """Return the time since the start."""
        return Text() if "left" in task.fields else super().render(task)


class _TimeLeft(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        """Return the time left, after the word."""
        return Text(f"left {task.fields.get('left') or super().render(task)}")


class _FittingProgress(Progress):
    by_importance: list[ProgressColumn]

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Return a table of the most important columns that fit into one line."""
        tasks, every = list(tasks), self.columns
        if not tasks:  # also the call of Progress.__init__
            return super().make_tasks_table(tasks)
        room = self.console.width - 2  # for ^C, which must not wrap
        chosen: list[ProgressColumn] = []
        for column in self.by_importance:
            width = _SHORTEST
            if not isinstance(column, BarColumn):
                width = max(self.console.measure(column(task)).maximum for task in tasks)
            if 0 < width < room or not chosen:
                chosen.append(column)
                room -= width + 1
        for column in chosen:
            if isinstance(column, BarColumn):
                column.bar_width = min(_SHORTEST + max(room, 0), _LONGEST)
        self.columns = tuple(column for column in every if column in chosen)
        try:
            return super().make_tasks_table(tasks)
        finally:
            self.columns = every
