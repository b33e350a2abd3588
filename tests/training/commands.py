"""Script for torchrun: every process runs the same `dnl-video` commands and writes the outcomes to DIR/rank<r>.json.

    torchrun --standalone --nproc_per_node 2 commands.py DIR

DIR/jobs.json lists the commands: {"words": [...], "nan_in_step": null, or the step in which the clips of the second
process become NaN}.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dnl_video.cli.main import main
from dnl_video.training.module import VideoTrainingModule


@contextlib.contextmanager
def poisoned(step: int | None) -> Iterator[None]:
    """Replace the clips of the second process in a step by NaN."""
    original = VideoTrainingModule.normalized

    def poison(self: VideoTrainingModule, clips: Any) -> Any:
        return original(self, clips) * (float("nan") if self.global_step == step else 1.0)

    if step is not None and os.environ["RANK"] == "1":
        VideoTrainingModule.normalized = poison  # type: ignore[method-assign]
    yield
    VideoTrainingModule.normalized = original  # type: ignore[method-assign]


def run(words: list[str], nan_in_step: int | None = None) -> dict[str, Any]:
    """Run a command; return its exit status and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with poisoned(nan_in_step), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    outcomes = [run(**job) for job in json.loads((folder / "jobs.json").read_text(encoding="utf-8"))]
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(outcomes), encoding="utf-8")
