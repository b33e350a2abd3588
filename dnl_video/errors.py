"""Errors that the command line prints as one line, and the stop requested by a signal."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class InputError(ValueError):
    """An expected error. The message names the value, the allowed values and the next step.

    The command line prints it as one line and exits with status 2.
    """


class Terminated(BaseException):
    """A signal asked this process to stop. Like KeyboardInterrupt, it passes through `except Exception`.

    Args:
        signum: The signal.
        saved: Description of what was saved before stopping; empty if nothing was.
    """

    def __init__(self, signum: signal.Signals, saved: str = "") -> None:
        super().__init__(signum.name)
        self.signum = signum
        self.saved = saved


def nearest(value: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest allowed word, or an empty string."""
    close = difflib.get_close_matches(value, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
