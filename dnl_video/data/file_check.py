"""Checks or transcodes one video file; `prepare` runs these functions in isolated processes."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dnl_video.data.decoding import Video, VideoDecodeError, open_video
from dnl_video.data.encoding import resize_frames, write_video
from dnl_video.data.probing import probe_video
from dnl_video.errors import InputError
from dnl_video.files import remove_partial

GOP = 16
"""Frames between key frames of transcoded files. A read starts at a key frame, so it decodes half a group of extra
frames. With x264's default of 250, a clip of 8 frames with stride 8 decodes 125 extra frames for a span of 57. Shorter
groups gain little and cost space."""
_HEAD_BYTES = 1 << 16
_FRAMES_PER_READ = 256


def check_file(path: str, fps: float, sample: int) -> dict[str, Any]:
    """Open a video as training does and decode a sample of its frames.

    Args:
        path: The file, or folder of frames.
        fps: Frames per second of a folder of frames.
        sample: Number of frames to decode, evenly spaced, first and last included.

    Returns:
        num_frames, fps, width, height (after rotation), codec, duration_s, decoder; for files also bytes (the size) and
        head (SHA-256 of the first 64 KiB). Or ``{"error": reason}``.
    """
    try:
        with open_video(path, frames_fps=fps) as video:
            wanted = np.linspace(0, video.num_frames - 1, min(sample, video.num_frames)).round().astype(int)
            video.read(wanted, resize=lambda frames: frames[:, :1, :1])  # keeps memory small
            facts: dict[str, Any] = {"num_frames": video.num_frames, "fps": round(video.fps, 6)}
            facts["height"], facts["width"] = video.size
        if Path(path).is_dir():
            seconds = facts["num_frames"] / facts["fps"]
            return facts | {"codec": "images", "duration_s": round(seconds, 3), "decoder": ""}
        probe = probe_video(path)
        facts |= {"codec": probe.packets.codec, "duration_s": round(probe.packets.duration_s, 3)}
        with Path(path).open("rb") as file:
            head = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()
        return facts | {"decoder": probe.decoder, "bytes": Path(path).stat().st_size, "head": head}
    except VideoDecodeError as error:
        return {"error": error.reason}
    except OSError as error:
        return {"error": error.strerror or type(error).__name__}


def transcode_file(path: str, fps: float, sample: int, target: str, short_side: int, crf: int) -> dict[str, Any]:
    """Write all frames of a video as a smaller H.264 file with the same frame rate.

    Groups of pictures are closed and short (`GOP`), frames are upright, and there is no sound. Pixels that are not
    square stay so: the file keeps the shape in which players show it.

    Args:
        path: See `check_file`.
        fps: See `check_file`.
        sample: Number of frames of the new file to decode.
        target: The file to write, .mp4.
        short_side: Short side in pixels; smaller videos keep their size.
        crf: Constant rate factor of x264.

    Returns:
        The facts of `check_file` about the new file, or ``{"error": reason}``.
    """
    remove_partial(Path(target).parent, glob.escape(Path(target).name))
    try:
        with open_video(path, frames_fps=fps) as video:
            num_frames = video.num_frames
            write_video(
                target,
                _resized_frames(video, short_side),
                video.fps,
                crf=crf,
                gop=GOP,
                sample_aspect=_resized_aspect(video, short_side),
                options={"preset": "fast", "threads": "1"},
            )
    except VideoDecodeError as error:
        return {"error": error.reason}
    except (InputError, OSError) as error:
        return {"error": f"cannot be transcoded ({error})"}
    facts = check_file(target, 0.0, sample)
    if "error" not in facts and facts["num_frames"] != num_frames:
        return {"error": f"cannot be transcoded ({facts['num_frames']} of {num_frames} frames arrived)"}
    return facts


def resized(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return the even (width, height) with the given short side; smaller sizes stay, rounded to even."""
    scale = min(short_side / min(width, height), 1.0)
    new_width, new_height = (max(2 * round(side * scale / 2), 2) for side in (width, height))
    return new_width, new_height


def _resized_frames(video: Video, short_side: int) -> Iterator[npt.NDArray[np.uint8]]:
    height, width = video.size
    size = resized(width, height, short_side)
    for first in range(0, video.num_frames, _FRAMES_PER_READ):
        last = min(first + _FRAMES_PER_READ, video.num_frames)
        yield from video.read(range(first, last), resize=lambda frames: resize_frames(frames, *size))


def _resized_aspect(video: Video, short_side: int) -> Fraction | None:
    """Return the width of a resized pixel divided by its height; None for square pixels."""
    picture = None if Path(video.path).is_dir() else probe_video(video.path).picture
    if picture is None or picture.sample_aspect == 1:
        return None
    height, width = video.size
    new_width, new_height = resized(width, height, short_side)
    aspect = 1 / picture.sample_aspect if picture.orientation.transpose else picture.sample_aspect
    return aspect * Fraction(width * new_height, height * new_width)
