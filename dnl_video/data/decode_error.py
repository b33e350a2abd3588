"""What a video that cannot be read raises."""

from __future__ import annotations

import re


class VideoDecodeError(Exception):
    """A video that cannot be read.

    Args:
        path: The file.
        reason: Why, in one line.
    """

    def __init__(self, path: str, reason: str = "") -> None:
        # DataLoader rebuilds a worker's exception as `type(error)("Caught … Original Traceback …")`; the person wants
        # the message, which is its last line.
        if not reason and "\nOriginal Traceback" in path:
            path = path.strip().splitlines()[-1].partition("VideoDecodeError: ")[2] or path
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path


def one_line(error: Exception) -> str:
    """Return an error's text without decord's clock times and source lines, so that the same fault reads the same."""
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+?:\d+: ", "", str(error)) or type(error).__name__
    return " ".join(text.split())[:300]
