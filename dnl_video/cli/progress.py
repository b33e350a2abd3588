"""The progress bars of long work: `evaluate` and `predict`, `prepare`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dnl_video.results.predictions import VideoPrediction


@contextmanager
def prediction_progress(
    verb: str, *, quiet: bool = False
) -> Iterator[Callable[[int, int, VideoPrediction | None], None]]:
    """Show videos done, videos/s and the time left; name each failed video as it comes.

    Args:
        verb: What stands before the bar.
        quiet: Show nothing but failures.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("videos {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=quiet or not sys.stderr.isatty()) as bar:
        task = bar.add_task(verb, total=None, rate="")

        def update(done: int, total: int, prediction: VideoPrediction | None) -> None:
            if prediction is None and done:
                console.print(f"{done} of {total} videos are there already", highlight=False)
            if prediction is not None and prediction.error is not None:
                message = f"failed: {prediction.path}: {prediction.error}"
                console.print(message, highlight=False, markup=False, soft_wrap=True)
            speed = bar.tasks[0].speed
            bar.update(task, total=total, completed=done, rate=f"{speed:.1f}/s" if speed else "")

        yield update


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
