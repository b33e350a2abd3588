"""Prints on the terminal: control characters as escapes, and no error when the reader has ended."""

from __future__ import annotations

import os
import sys

from dnl_video.errors import visible


def say(*lines: object, error: bool = False) -> None:
    """Print lines on stdout, or stderr for `error`; see `visible`."""
    write("".join(f"{visible(line)}\n" for line in lines), error=error)


def write(text: str, *, error: bool = False) -> None:
    """Write text unchanged. When the reader (head, less) has ended, the text is dropped and the work goes on."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(text, end="", file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
