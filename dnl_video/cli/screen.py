"""Tables and progress bars on the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from dnl_video.cli.terminal import log, write
from dnl_video.errors import visible
from dnl_video.progress_bar import progress_bar

if TYPE_CHECKING:
    from dnl_video.report import document
    from dnl_video.results.predictions import VideoPrediction

_LOG_EVERY_S = 60.0
_TEXT_WIDTH = 8  # characters in a line of a text column on a narrow terminal


def plain_table(*columns: str, numbers: Collection[str] = (), title: str = "", header: bool = True) -> Table:
    """Return an empty table without a frame; the columns in ``numbers`` are right-aligned and never wrap."""
    table = Table(box=box.SIMPLE, padding=(0, 1), pad_edge=False, show_header=header, title_justify="left")
    table.title = plain(title, "bold") if title else None
    for name in columns:
        if name in numbers:
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(name, overflow="fold")
    return table


def plain(text: str, style: str = "") -> Text:
    """Return text without markup; see `visible`."""
    return Text(visible(text), style=style)


def show(*parts: RenderableType, wrap: bool = True, width: int | None = None) -> None:
    """Print tables and texts on stdout; with ``wrap`` false, lines may be longer than the terminal is wide.

    On a narrow terminal a table is wider than the terminal, because rich would cut numbers off.
    """
    needed = [_least_width(part) for part in parts if isinstance(part, Table)]
    console = Console(highlight=False, width=max([width or Console().width, *needed]))
    with console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=not wrap)
    write(captured.get())


def _least_width(table: Table) -> int:
    """Return the width at which no number of a table is cut off."""
    widths = [
        max(cell_len(str(cell)) for cell in (column.header, *column.cells)) if column.no_wrap else _TEXT_WIDTH
        for column in table.columns
    ]
    return sum(widths) + 3 * len(widths) + 1


def print_nodes(nodes: Iterable[document.Text | document.Table]) -> None:
    """Print texts and tables of a report."""
    from dnl_video.report import document

    for node in nodes:
        if isinstance(node, document.Text):
            show(plain(node.text, "yellow" if node.style == "warning" else ""))
            continue
        numbers = [name for name, kind in zip(node.header, node.kinds, strict=True) if kind not in "lacs"]
        table = plain_table(*node.header, numbers=numbers, title=node.caption)
        for row in node.rows:
            table.add_row(*(plain(text) for text, _ in node.cells(row)))
        show(table)


class PredictionProgress:
    """Progress of `run_predictions`: videos done, videos/s and the time left; `clips` does the same for a long video.

    A log line is printed every ``log_every_s`` seconds; None prints none.
    """

    def __init__(self, bar: Progress, verb: str, log_every_s: float | None) -> None:
        self._bar = bar
        self._log_every_s = log_every_s
        self._logged = time.monotonic()
        self._videos = bar.add_task(verb, total=None, unit="videos", rate="")
        self._clips: TaskID | None = None

    def __call__(self, done: int, total: int, prediction: VideoPrediction | None) -> None:
        """Take the videos done, the videos of this process and the new prediction (None at the start)."""
        if prediction is None and done:
            log.info("%d of %d videos are already done", done, total)
        if prediction is not None and prediction.error is not None:
            log.warning("failed: %s: %s", prediction.path, prediction.error)
        if self._clips is not None:
            self._bar.remove_task(self._clips)
            self._clips = None
        self._update(self._videos, done, total)

    def clips(self, done: int, total: int) -> None:
        """Take the clips done and the clips of the current video."""
        if self._clips is None:
            self._clips = self._bar.add_task("  clips", total=total, unit="clips", rate="")
        self._update(self._clips, done, total)

    def _update(self, task: TaskID, done: int, total: int) -> None:
        self._bar.update(task, total=total, completed=done)
        state = next(one for one in self._bar.tasks if one.id == task)
        rate = f"{state.speed:.1f}/s" if state.speed else ""
        self._bar.update(task, rate=rate)
        if self._log_every_s is None or time.monotonic() - self._logged < self._log_every_s or not rate:
            return
        self._logged = time.monotonic()
        left = timedelta(seconds=state.time_remaining or 0)
        log.info(f"{state.description.strip()}: {done} of {total} {state.fields['unit']}, {rate}, {left} left")


@contextmanager
def prediction_progress(
    verb: str, *, quiet: bool = False, log_every_s: float = _LOG_EVERY_S
) -> Iterator[PredictionProgress]:
    """Show videos done, videos/s and the time left; print each failed video.

    Args:
        verb: Description of the bar.
        quiet: Print only failed videos.
        log_every_s: Seconds between the log lines that replace the bar if stderr is not a terminal.
    """
    terminal = sys.stderr.isatty()
    # A long video takes minutes: a shorter window would contain no finished video and show no rate.
    bar = progress_bar(
        "{task.fields[unit]} {task.fields[rate]}", disable=quiet or not terminal, speed_estimate_period=600
    )
    with bar:
        yield PredictionProgress(bar, verb, None if quiet or terminal else log_every_s)


@contextmanager
def file_progress() -> Iterator[Callable[[str, int, int, int], None]]:
    """Show the current stage, files done, files/s, the time left and the number of broken files."""
    text = "files {task.fields[rate]}  {task.fields[broken]} broken "
    with progress_bar(text, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None, rate="", broken=0)

        def update(verb: str, done: int, total: int, broken: int) -> None:
            if bar.tasks[0].description != verb:  # a new stage: restart the clock
                bar.reset(task, description=verb, total=total or None, completed=done, rate="", broken=broken)
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, rate=f"{speed:.1f}/s" if speed else "", broken=broken)

        yield update
