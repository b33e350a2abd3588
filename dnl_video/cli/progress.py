"""The progress of long work: a bar on a terminal, for `evaluate` and `predict` a line a minute in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dnl_video.results.predictions import VideoPrediction

_LOG_EVERY_S = 60.0


class PredictionProgress:
    """Videos done, videos/s and the time left; call it after each video, and `clips` within a long one."""

    def __init__(self, bar: Progress, console: Console, verb: str, log_every_s: float | None) -> None:
        self._bar = bar
        self._console = console
        self._log_every_s = log_every_s
        self._logged = time.monotonic()
        self._videos = bar.add_task(verb, total=None, unit="videos", rate="")
        self._clips: TaskID | None = None

    def __call__(self, done: int, total: int, prediction: VideoPrediction | None) -> None:
        """Take (videos done, videos of this process, the new prediction; None at the start)."""
        if prediction is None and done:
            self._console.print(f"{done} of {total} videos are there already", highlight=False)
        if prediction is not None and prediction.error is not None:
            message = f"failed: {prediction.path}: {prediction.error}"
            self._console.print(message, highlight=False, markup=False, soft_wrap=True)
        if self._clips is not None:
            self._bar.remove_task(self._clips)
            self._clips = None
        self._update(self._videos, done, total)

    def clips(self, done: int, total: int) -> None:
        """Take (clips done, clips of the video at hand)."""
        if self._clips is None:
            self._clips = self._bar.add_task("  clips", total=total, unit="clips", rate="")
        self._update(self._clips, done, total)

    def _update(self, task: TaskID, done: int, total: int) -> None:
        self._bar.update(task, total=total, completed=done)
        state = next(t for t in self._bar.tasks if t.id == task)
        rate = f"{state.speed:.1f}/s" if state.speed else ""
        self._bar.update(task, rate=rate)
        now = time.monotonic()
        if self._log_every_s is None or now - self._logged < self._log_every_s or not rate:
            return
        self._logged = now
        left = timedelta(seconds=state.time_remaining or 0)
        line = f"{state.description.strip()}: {done} of {total} {state.fields['unit']}, {rate}, {left} left"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def prediction_progress(
    verb: str, *, quiet: bool = False, log_every_s: float = _LOG_EVERY_S
) -> Iterator[PredictionProgress]:
    """Show videos done, videos/s and the time left; name each failed video as it comes.

    Args:
        verb: What stands before the bar.
        quiet: Show nothing but failures.
        log_every_s: Seconds between the lines that take the bar's place where stderr is no terminal.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]} {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    terminal = sys.stderr.isatty()
    # Long videos come minutes apart; a short window would forget them and show no rate.
    bar = Progress(*columns, console=console, disable=quiet or not terminal, speed_estimate_period=600)
    with bar:
        yield PredictionProgress(bar, console, verb, None if quiet or terminal else log_every_s)


@contextmanager
def file_progress() -> Iterator[Callable[[str, int, int, int], None]]:
    """Show what is being done, files done, files/s, the time left, and how many files are broken."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files {task.fields[rate]}  {task.fields[broken]} broken "),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None, rate="", broken=0)

        def update(verb: str, done: int, total: int, broken: int) -> None:
            if bar.tasks[0].description != verb:  # another stage: its clock starts anew
                bar.reset(task, description=verb, total=total or None, completed=done, rate="", broken=broken)
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, rate=f"{speed:.1f}/s" if speed else "", broken=broken)

        yield update
