"""One video file looked at as training will read it, or transcoded: what `prepare` runs in processes of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dnl_video.data.decoding import VideoDecodeError, open_video
from dnl_video.data.encoding import resize_frames, write_video
from dnl_video.data.probing import probe_video
from dnl_video.errors import InputError

_FRAME_FOLDER_CODEC = "images"
GOP = 16
"""Frames between key frames of resized files: a read begins at one, so half of them are decoded in vain; x264's 250
make that 125 frames where a clip of 8 frames, 8 apart, needs 57. Still shorter groups gain little and cost space."""
_HEAD_BYTES = 1 << 16
_READ_AT_ONCE = 256


@dataclass(frozen=True)
class CheckJob:
    """A file to look at.

    Args:
        path: The file, or folder of frames.
        fps: Frames a second of a folder of frames.
        sample: Frames to decode, evenly spaced, the first and the last included.
    """

    path: str
    fps: float
    sample: int


@dataclass(frozen=True)
class TranscodeJob:
    """A file to make smaller.

    Args:
        source: As `CheckJob`.
        target: The file to write, .mp4.
        short_side: Short side in pixels; smaller videos keep their size.
        crf: Constant rate factor of x264.
    """

    source: CheckJob
    target: str
    short_side: int
    crf: int


def check_file(job: CheckJob) -> dict[str, Any]:
    """Open a video, decode a sample of its frames and return what it is, or ``{"error": reason}``.

    Returns:
        num_frames, fps, width, height (after rotation), codec, duration_s, decoder; bytes: its size; head: SHA-256 of
        its first 64 KiB (folders of frames have neither).
    """
    try:
        with open_video(job.path, frames_fps=job.fps) as video:
            wanted = np.linspace(0, video.num_frames - 1, min(job.sample, video.num_frames)).round().astype(int)
            video.read(wanted, resize=_corner)
            facts: dict[str, Any] = {"num_frames": video.num_frames, "fps": round(video.fps, 6)}
            facts |= {"width": video.width, "height": video.height}
        if Path(job.path).is_dir():
            seconds = facts["num_frames"] / facts["fps"]
            return facts | {"codec": _FRAME_FOLDER_CODEC, "duration_s": round(seconds, 3), "decoder": ""}
        probe = probe_video(job.path)
        facts |= {"codec": probe.codec, "duration_s": round(probe.duration_s, 3), "decoder": probe.decoder}
        with Path(job.path).open("rb") as file:
            head = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()
        return facts | {"bytes": Path(job.path).stat().st_size, "head": head}
    except VideoDecodeError as error:
        return {"error": error.reason}
    except OSError as error:
        return {"error": error.strerror or type(error).__name__}


def transcode_file(job: TranscodeJob) -> dict[str, Any]:
    """Write a video's frames, all of them and at its rate, as H.264 of a smaller size; return what `check_file` says.

    Groups of pictures are closed and short (`GOP`), frames are turned upright, and there is no sound.
    """
    try:
        with open_video(job.source.path, frames_fps=job.source.fps) as video:
            num_frames = video.num_frames
            size = resized(video.width, video.height, job.short_side)
            options = {"preset": "fast", "threads": "1"}
            write_video(job.target, _frames(video, size), video.fps, crf=job.crf, gop=GOP, options=options)
    except VideoDecodeError as error:
        return {"error": error.reason}
    except (InputError, OSError) as error:
        return {"error": f"cannot be transcoded ({error})"}
    facts = check_file(CheckJob(job.target, 0.0, job.source.sample))
    if "error" not in facts and facts["num_frames"] != num_frames:
        return {"error": f"cannot be transcoded ({facts['num_frames']} of {num_frames} frames arrived)"}
    return facts


def resized(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return the even (width, height) with the given short side; sizes below it stay, but for an odd last pixel."""
    scale = min(short_side / min(width, height), 1.0)
    across, down = (max(2 * round(side * scale / 2), 2) for side in (width, height))
    return across, down


def _frames(video: Any, size: tuple[int, int]) -> Iterator[npt.NDArray[np.uint8]]:
    for first in range(0, video.num_frames, _READ_AT_ONCE):
        last = min(first + _READ_AT_ONCE, video.num_frames)
        yield from video.read(range(first, last), resize=lambda frames: resize_frames(frames, *size))


def _corner(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Keep next to nothing: the decoder has done its work."""
    return frames[:, :1, :1]
