from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dnl_video.data.encoding import write_video


@pytest.fixture(scope="session")
def write_coloured() -> Callable[..., Path]:
    """Return a writer of small videos: red identifies the video, green the frame."""

    def write(path: Path, red: int, num_frames: int = 24, *, height: int = 48, width: int = 64) -> Path:
        frames = np.zeros((num_frames, height, width, 3), np.uint8)
        frames[..., 0] = red
        frames[..., 1] = 10 * np.arange(num_frames)[:, None, None]
        write_video(path, frames, 10.0, crf=1, options={"preset": "ultrafast", "threads": "1"})
        return path

    return write
