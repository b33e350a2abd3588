"""Checks or transcodes one video file; `prepare` runs these functions in isolated processes."""

from __future__ import annotations

import glob
import hashlib
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dnl_video.data.decoding import Video, VideoDecodeError, open_video
from dnl_video.data.encoding import resize_frames, write_video
from dnl_video.data.frame_folders import FrameFolderReader
from dnl_video.data.probing import one_line, probe_video
from dnl_video.errors import InputError
from dnl_video.files import file_sha256, remove_partial

GOP = 16
"""Frames between key frames of transcoded files. A read starts at a key frame, so it decodes half a group of extra
frames. With x264's default of 250, a clip of 8 frames with stride 8 decodes 125 extra frames for a span of 57. Shorter
groups gain little and cost space."""
_HEAD_BYTES = 1 << 16
_FRAMES_PER_READ = 256
_TICK_S = 1e-3
"""Matroska's tick, the longest of common containers."""


def check_file(path: str, fps: float, sample: int) -> dict[str, Any]:
    """Open a video as training does and decode a sample of its frames.

    Args:
        path: The file, or folder of frames.
        fps: Frames per second of a folder of frames.
        sample: Number of frames to decode, evenly spaced, first and last included; of a folder also the smallest image,
            which may be cut off.

    Returns:
        num_frames, fps, variable_rate (true or false), width, height (after rotation), codec, duration_s, decoder; for
        files also bytes (the size) and head (SHA-256 of the first 64 KiB). Or ``{"error": reason}``.
    """
    try:
        with open_video(path, frames_fps=fps) as video:
            wanted = np.linspace(0, video.num_frames - 1, min(sample, video.num_frames)).round().astype(int)
            if is_folder := Path(path).is_dir():
                images = FrameFolderReader(path).files
                sizes = [image.stat().st_size for image in images]
                smallest = int(np.argmin(sizes))
                if not sizes[smallest]:
                    return {"error": f"{sizes.count(0)} images are empty, for example {images[smallest].name}"}
                wanted = np.append(wanted, smallest)
            video.read(wanted, resize=lambda frames: frames[:, :1, :1])  # keeps memory small
            facts: dict[str, Any] = {"num_frames": video.num_frames, "fps": round(video.fps, 6)}
            facts["variable_rate"] = video.has_variable_rate
            facts["height"], facts["width"] = video.size
        if is_folder:
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
        return {"error": one_line(error)}


def hash_file(path: str) -> dict[str, Any]:
    """Return ``{"sha256": hash of the whole file}``, or ``{"error": reason}``."""
    try:
        return {"sha256": file_sha256(Path(path))}
    except OSError as error:
        return {"error": one_line(error)}


def transcode_file(
    path: str,
    fps: float,
    sample: int,
    target: str,
    short_side: int | None,
    crf: int,
    segment: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Write the frames of a video, or of a segment of it, as a smaller H.264 file. Frames keep their times.

    Groups of pictures are closed and short (`GOP`), frames are upright, and there is no sound. Pixels that are not
    square stay so: the file keeps the shape in which players show it.

    Args:
        path: See `check_file`.
        fps: See `check_file`.
        sample: Number of frames of the new file to decode.
        target: The file to write, .mp4.
        short_side: Short side in pixels; smaller videos keep their size. None keeps the size of all.
        crf: Constant rate factor of x264.
        segment: (start, end) in seconds of presentation time: the frames that begin in [start, end). None: all frames.

    Returns:
        The facts of `check_file` about the new file, or ``{"error": reason}``.
    """
    remove_partial(Path(target).parent, glob.escape(Path(target).name))
    try:
        with open_video(path, frames_fps=fps) as video:
            frames, rate = _frames_of(video, segment)
            write_video(
                target,
                _resized_frames(video, frames, short_side),
                rate,
                times_s=video.times_s[frames] - video.times_s[frames.start] if video.has_variable_rate else None,
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
    if "error" not in facts and facts["num_frames"] != len(frames):
        return {"error": f"cannot be transcoded ({facts['num_frames']} of {len(frames)} frames arrived)"}
    return facts


def resized(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Return the even (width, height) with the given short side; smaller sizes, or all, stay, rounded to even."""
    scale = 1.0 if short_side is None else min(short_side / min(width, height), 1.0)
    new_width, new_height = (max(2 * round(side * scale / 2), 2) for side in (width, height))
    return new_width, new_height


def _frames_of(video: Video, segment: tuple[float, float] | None) -> tuple[range, float]:
    """Return the frames that begin in a segment, and their mean rate."""
    if segment is None:
        return range(video.num_frames), video.fps
    times = video.times_s
    # Times are rounded to ticks, so a frame at the start of the segment may begin a little earlier.
    first, end = np.searchsorted(times[:-1], np.subtract(segment, _TICK_S)).tolist()
    if first == end:
        raise VideoDecodeError(
            video.path, f"ends at {times[-1]:.1f} s, before the segment from {segment[0]:g} to {segment[1]:g} s"
        )
    rate = (end - first) / (times[end] - times[first])
    return range(first, end), video.fps if math.isclose(rate, video.fps, rel_tol=1e-3) else rate


def _resized_frames(video: Video, indices: range, short_side: int | None) -> Iterator[npt.NDArray[np.uint8]]:
    height, width = video.size
    size = resized(width, height, short_side)
    for first in range(0, len(indices), _FRAMES_PER_READ):
        chunk = indices[first : first + _FRAMES_PER_READ]
        yield from video.read(chunk, resize=lambda frames: resize_frames(frames, *size))


def _resized_aspect(video: Video, short_side: int | None) -> Fraction | None:
    """Return the width of a resized pixel divided by its height; None for square pixels."""
    picture = None if Path(video.path).is_dir() else probe_video(video.path).picture
    if picture is None or picture.sample_aspect == 1:
        return None
    height, width = video.size
    new_width, new_height = resized(width, height, short_side)
    aspect = 1 / picture.sample_aspect if picture.orientation.transpose else picture.sample_aspect
    return aspect * Fraction(width * new_height, height * new_width)
