"""What people and programs read: results on stdout, notes on stderr.

Notes go through the logger ``dnl_video``, whose level --quiet and --verbose choose. Control characters are shown as
escapes, and a reader that has ended is no error.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from typing import Any

from dnl_video.errors import visible
from dnl_video.files import dump_json

log = logging.getLogger("dnl_video")


class Stderr(logging.Handler):
    """Writes log messages to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message as it is."""
        say(self.format(record), error=True)


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
    """Print a value as JSON; the escapes of `visible` are those of JSON."""
    say(dump_json(value, indent))


def write(text: str, *, error: bool = False) -> None:
    """Write text unchanged. When the reader (head, less) has ended, the text is dropped and the work goes on."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(text, end="", file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
