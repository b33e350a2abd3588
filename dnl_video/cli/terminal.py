"""Prints results on stdout and logs notes: control characters as escapes, and no error when the reader has ended."""

from __future__ import annotations

import logging
import os
import shlex
import sys

from dnl_video.errors import visible

log = logging.getLogger("dnl_video")


def command(*words: object) -> str:
    """Return a command of this program, quoted for a shell."""
    return shlex.join(["dnl-video", *map(str, words)])


def suggest(*words: object) -> None:
    """Log a command as the next step; words in capitals are for the user to replace."""
    log.info("next: %s", command(*words))


def say(*lines: object, error: bool = False) -> None:
    """Print lines on stdout, or stderr for `error`; see `visible`, whose escapes are valid in JSON."""
    write("".join(f"{visible(line)}\n" for line in lines), error=error)


def write(text: str, *, error: bool = False) -> None:
    """Write text unchanged. When the reader (head, less) has ended, the text is dropped and the work goes on."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(text, end="", file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
