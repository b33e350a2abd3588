"""What people and programs read: results on stdout, notes on stderr.

Notes go through the logger ``dnl_video``, whose level --quiet and --verbose choose. Control characters are shown as
escapes, and a reader that has ended is no error.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dnl_video.errors import visible

log = logging.getLogger("dnl_video")


class Stderr(logging.Handler):
    """Writes log messages to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message as it is."""
        say(self.format(record), error=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Log how long a step takes, for --verbose."""
    start = time.perf_counter()
    yield
    log.debug("%s: %.2f s", name, time.perf_counter() - start)


def command(*words: object) -> str:
    """Return a command of this program, quoted for a shell."""
    return shlex.join(["dnl-video", *map(str, words)])


def suggest(*words: object) -> None:
    """Log a command as the next step; words in capitals are for the user to replace."""
    log.info("next: %s", command(*words))


def say(*lines: object, error: bool = False) -> None:
    """Print lines on stdout, or stderr for `error`; see `visible`."""
    write("".join(f"{visible(line)}\n" for line in lines), error=error)


def say_json(value: Any, indent: int | None = None) -> None:
    """Print a value as JSON in ASCII, which is valid in every encoding and cannot control a terminal."""
    write(json.dumps(value, allow_nan=False, indent=indent) + "\n")


def write(text: str, *, error: bool = False) -> None:
    """Write text unchanged. When the reader (head, less) has ended, the text is dropped and the work goes on."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(text, end="", file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
