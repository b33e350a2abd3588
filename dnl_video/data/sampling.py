"""Frame indices of clips: pure functions of a video's length and frame rate.

A clip is T frames (`num_frames`) taken every τ frames (`frame_stride`) of a video with n frames at f frames per second.
With T = 4, τ = 3, at the file's own rate:

    video   0  1  2  3  4  5  6  7  8  9 10 11 12 13      n = 14 frames
    clip          *        *        *        *            start = 2, indices [2, 5, 8, 11]
                  |<-------- span L -------->|            L = (T - 1)·τ + 1 = 10 frames, first and last included
    starts  |<-------->|                                  0 … D with D = n - L = 4, both included

Two rules (`Preprocessing.sampling`):

- `stride`: exact spacing. Frame i is start + r(i·τ·f/target_fps), r(x) = floor(x + ½); training starts are uniform
  integers in 0 … D, and clip j of J starts at r(j·D/(J-1)) (J = 1: D // 2), so that the clips reach both ends.
- `pyslowfast`: PySlowFast's `get_start_end_idx` and `temporal_sampling` (slowfast/datasets/decoder.py). The span is
  T·τ·f/30 (30 is its TARGET_FPS), starts are real numbers (training: uniform in [0, D]; clip j: D·j/J, which never
  reaches the end), and the T indices are linspace(start, start + L - 1) truncated: 8x8 is spaced by 9 at 30 fps.

A clip longer than its video repeats the last frame or starts over (`past_end`).

Arguments of all functions: `n`, the number of frames of the file; `fps`, its frame rate; `preprocessing`, which holds
length, stride and rule. Results: frame indices in [0, n), int64. ValueError is raised if the video has no frames, or if
the rule needs the frame rate and this is not a number above 0.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dnl_video.config import FrameOrder
from dnl_video.spec import Preprocessing

Indices = npt.NDArray[np.int64]
_PYSLOWFAST_FPS = 30.0


def clip_span(fps: float, preprocessing: Preprocessing) -> float:
    """Return the span L of a clip in frames of the file (an integer under `stride`)."""
    if preprocessing.sampling == "pyslowfast":
        return preprocessing.num_frames * preprocessing.frame_stride * _rate(fps, preprocessing)
    return float(_offsets(fps, preprocessing)[-1] + 1)


def train_indices(n: int, fps: float, preprocessing: Preprocessing, rng: np.random.Generator) -> Indices:
    """Draw the frames of a training clip, [T]; ``rng`` gives the start."""
    last_start = _last_start(n, fps, preprocessing)
    if preprocessing.sampling == "pyslowfast":
        return _clip(rng.uniform(0.0, last_start), n, fps, preprocessing)
    return _clip(int(rng.integers(0, int(last_start), endpoint=True)), n, fps, preprocessing)


def view_indices(n: int, fps: float, preprocessing: Preprocessing, num_clips: int) -> Indices:
    """Return the frames of J = ``num_clips`` evaluation clips spread over a video, [J, T].

    Raises:
        ValueError: `num_clips` is below 1.
    """
    if num_clips < 1:
        raise ValueError(f"num_clips is {num_clips}; give at least 1")
    last_start = _last_start(n, fps, preprocessing)
    starts: list[float]
    if preprocessing.sampling == "pyslowfast":
        starts = [last_start * j / num_clips for j in range(num_clips)]
    elif num_clips == 1:
        starts = [last_start // 2]
    else:
        starts = [math.floor(j * last_start / (num_clips - 1) + 0.5) for j in range(num_clips)]
    return np.stack([_clip(start, n, fps, preprocessing) for start in starts])


def sliding_indices(n: int, fps: float, preprocessing: Preprocessing, hop_s: float) -> Indices:
    """Return the frames of clips that slide over a whole video, [J, T].

    Clip j starts at frame r(j·hop_s·fps), r(x) = floor(x + ½), if that is below D; one more starts at D, so that the
    last clip reaches the end. A video that is not longer than a clip gives one clip.

    Args:
        n: Number of frames of the file.
        fps: Its frame rate.
        preprocessing: Length, stride and rule.
        hop_s: Seconds from the start of one clip to the next; at least one frame is used.

    Raises:
        ValueError: `hop_s` or the frame rate is not a number above 0.
    """
    if not (math.isfinite(hop_s) and hop_s > 0 and math.isfinite(fps) and fps > 0):
        raise ValueError(f"hop_s is {hop_s}, the frame rate {fps}; both must be above 0")
    last_start = _last_start(n, fps, preprocessing)
    hop = max(hop_s * fps, 1.0)
    regular = [math.floor(j * hop + 0.5) for j in range(math.ceil(last_start / hop) + 1)]
    starts = [*(start for start in regular if start < last_start), last_start]
    return np.stack([_clip(start, n, fps, preprocessing) for start in starts])


def clip_from(start: int, n: int, fps: float, preprocessing: Preprocessing) -> Indices:
    """Return the frames of the clip with the first frame ``start``, [T].

    Raises:
        ValueError: The start is outside the video.
    """
    if not 0 <= start < n:
        raise ValueError(f"start is {start}; give a frame in [0, {n})")
    return _clip(start, n, fps, preprocessing)


def reorder_frames(indices: Indices, order: FrameOrder, rng: np.random.Generator) -> Indices:
    """Change the order of frames within each clip, to test whether a network uses motion.

    Args:
        indices: Frames of clips, [J, T].
        order: ``natural`` (unchanged), ``reversed``, ``shuffled`` (drawn per clip), or ``repeated`` (the middle frame T
            times).
        rng: Source of the shuffles.

    Returns:
        Frame indices, int64 [J, T].
    """
    if order == "reversed":
        return indices[:, ::-1].copy()
    if order == "shuffled":
        return rng.permuted(indices, axis=1)
    if order == "repeated":
        return np.repeat(indices[:, indices.shape[1] // 2, None], indices.shape[1], axis=1)
    return indices


def _rate(fps: float, preprocessing: Preprocessing) -> float:
    """Return f / target_fps, the distance of two frames at the target rate in frames of the file."""
    target = preprocessing.target_fps or (_PYSLOWFAST_FPS if preprocessing.sampling == "pyslowfast" else None)
    if target is None:
        return 1.0
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"the frame rate is {fps}; it must be above 0 to sample at {target:g} frames per second")
    return fps / target


def _offsets(fps: float, preprocessing: Preprocessing) -> Indices:
    """Return r(i·τ·f/target_fps) for i = 0 … T-1: the frames of a clip under `stride`, relative to its start."""
    steps = np.arange(preprocessing.num_frames) * preprocessing.frame_stride * _rate(fps, preprocessing)
    return np.floor(steps + 0.5).astype(np.int64)


def _last_start(n: int, fps: float, preprocessing: Preprocessing) -> float:
    """Return D, the largest start of a clip."""
    if n < 1:
        raise ValueError(f"the video has {n} frames; a clip needs at least 1")
    return max(n - clip_span(fps, preprocessing), 0.0)


def _clip(start: float, n: int, fps: float, preprocessing: Preprocessing) -> Indices:
    if preprocessing.sampling == "pyslowfast":
        end = start + clip_span(fps, preprocessing) - 1
        # PySlowFast clamps before it truncates; values below 0 (L < 1) become 0 either way.
        indices = np.maximum(np.linspace(start, end, preprocessing.num_frames), 0.0).astype(np.int64)
    else:
        indices = int(start) + _offsets(fps, preprocessing)
    return indices % n if preprocessing.past_end == "loop" else np.minimum(indices, n - 1)
