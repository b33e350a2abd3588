"""Errors that the command line prints as one line, the stop requested by a signal, and text that is safe to print."""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable

# ASCII and Latin-1 control characters except tab and line feed; marks that change the direction of text or end a line;
# surrogates, which stand for bytes of file names that are not Unicode.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


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


def visible(text: object) -> str:
    """Return text with escapes such as ``\\u001b`` for characters that control a terminal or turn the text around.

    Names of files and classes come from other people. Tabs and line feeds are kept.
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))
