"""Strips of frames in a page: small, of bounded total size, and never a reason to fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dnl_video.report.figures import jpeg_data_uri
from dnl_video.report.html import Html, escape, image

FrameReader = Callable[[str], "NDArray[np.uint8] | str"]
"""Given a video's path, returns a few small frames [n, H, W, 3], or in a word why there are none.

The command passes it in: a report knows nothing of decoding.
"""

_MOST_BYTES = 3_000_000  # of all strips of a page, as base64
_MOST_PIXELS = 6 * 160 * 320  # of one strip
_GAP = 3  # white pixels between frames


class FilmStrips:
    """Makes the strips of one page.

    Args:
        read: Reads frames; None leaves every strip out.
    """

    def __init__(self, read: FrameReader | None) -> None:
        self._read = read
        self._bytes_left = _MOST_BYTES

    def strip(self, path: str, alt: str) -> Html:
        """Return a video's frames side by side, or a grey box that says why there are none; empty without reader."""
        if self._read is None:
            return Html("")
        frames = self._read(path) if self._bytes_left > 0 else "left out, to keep this file small"
        if isinstance(frames, str):
            return Html(f'<div class="no-frames">{escape(frames)}</div>')
        gap = np.full((frames.shape[1], _GAP, 3), 255, dtype=np.uint8)
        pixels = np.concatenate([part for frame in frames for part in (gap, frame)][1:], axis=1)
        if pixels.shape[0] * pixels.shape[1] > _MOST_PIXELS:
            step = int(np.ceil((pixels.shape[0] * pixels.shape[1] / _MOST_PIXELS) ** 0.5))
            pixels = np.ascontiguousarray(pixels[::step, ::step])
        uri = jpeg_data_uri(pixels)
        self._bytes_left -= len(uri)
        return image(uri, alt, pixels.shape[1], pixels.shape[0], min_width=560)
