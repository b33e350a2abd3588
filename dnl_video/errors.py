"""Errors that the command line prints as one line, the stop requested by a signal, and text that is safe to print."""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable

# ASCII and Latin-1 control characters except tab and line feed; marks that change the direction of text or end a line;
# surrogates, which stand for bytes of file names that are not Unicode.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MOST_HINTS = 3


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
    """Return ``"; did you mean 'x'?"`` for allowed words that are near, or an empty string.

    A word is near if at most two letters differ (one for values of two or three letters). Without such a word, names
    with the same last part are near, such as optim.lr for lr, unless they are many. Case, "-" and "_" do not count.
    """
    words, wanted, differing = {word: _plain(word) for word in allowed}, _plain(value), {}
    for word, plain in words.items():
        blocks = difflib.SequenceMatcher(None, wanted, plain, autojunk=False).get_matching_blocks()
        differing[word] = max(len(wanted), len(plain)) - sum(block.size for block in blocks)
    best = min(reversed(differing), key=differing.__getitem__, default="")
    near = best and differing[best] <= min(len(wanted) // 2, 2)
    shared = [word for word, plain in words.items() if plain.rpartition(".")[2] == wanted.rpartition(".")[2]]
    hints = [best] if near else shared
    return f"; did you mean {' or '.join(map(repr, hints))}?" if 0 < len(hints) <= _MOST_HINTS else ""


def _plain(word: str) -> str:
    return word.lower().replace("_", " ").replace("-", " ").strip()


def visible(text: object) -> str:
    """Return text with escapes such as ``\\u001b`` for characters that control a terminal or turn the text around.

    Names of files and classes come from other people. Tabs and line feeds are kept.
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))
