"""The progress bar on terminals of every width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dnl_video.progress_bar import progress_bar

TEXTS = ("loss {task.fields[loss]}", "top1 {task.fields[top1]}", "{task.fields[rate]} clips/s")
VALUES = {"loss": "2.081", "top1": "100.0%", "rate": "1234", "left": "10:12:34"}


def drawn(width: int, *texts: str, **fields: str) -> str:
    """Return the line of a task; the console would break a longer one."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False, color_system=None)
    bar = progress_bar(*texts, elapsed="left" not in fields, console=console, auto_refresh=False)
    bar.add_task("epoch 12/32", total=250, completed=250, **fields)
    console.print(bar.get_renderable())
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", range(30, 130))
def test_the_bar_is_one_line_on_every_terminal(width: int) -> None:
    for line in (drawn(width, *TEXTS, **VALUES), drawn(width, "videos {task.fields[rate]}", rate="3.2/s")):
        assert line.count("\n") == 1
        assert len(line.rstrip("\n")) < width - 2  # the terminal prints ^C on the same line
        assert line.startswith("epoch 12/32"[: width - 24])


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (100, "epoch 12/32 ━━━━━━━━━━━━━━━━━━━━━━━━━━━ 250/250 loss 2.081 top1 100.0% 1234 clips/s left 10:12:34"),
        (80, "epoch 12/32 ━━━━━━━ 250/250 loss 2.081 top1 100.0% 1234 clips/s left 10:12:34"),
        (60, "epoch 12/32 ━━━━━━━━━━━━ 250/250 loss 2.081 left 10:12:34"),
        (40, "epoch 12/32 ━━━━━━━━━━━ left 10:12:34"),
    ],
)
def test_a_narrow_terminal_shows_the_most_important_values(width: int, line: str) -> None:
    assert drawn(width, *TEXTS, **VALUES).rstrip("\n") == line


def test_tasks_without_a_time_of_their_own_have_that_of_rich() -> None:
    assert drawn(70).endswith("250/250 0:00:00 left -:--:--\n")
