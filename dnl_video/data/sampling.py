"""Frame indices of clips: pure functions of a video's length, frame rate and, where needed, frame times.

A clip is T frames (`num_frames`) taken every τ frames (`frame_stride`) of a video with n frames at f frames per second.
With T = 4, τ = 3, at the file's own rate:

    video   0  1  2  3  4  5  6  7  8  9 10 11 12 13      n = 14 frames
    clip          *        *        *        *            start = 2, indices [2, 5, 8, 11]
                  |<-------- span L -------->|            L = (T - 1)·τ + 1 = 10 frames, first and last included
    starts  |<-------->|                                  0 … D with D = n - L = 4, both included

Two rules (`Preprocessing.sampling`):

- `stride`: exact spacing. Frame i is start + r(i·τ·f/target_fps), r(x) = floor(x + ½); training starts are uniform
  integers in 0 … D, and clip j of J starts at r(j·D/(J-1)) (J = 1: D // 2), so that the clips reach both ends.
  With `target_fps`, a video of variable frame rate is sampled by time: frame i is the frame nearest to
  (time of the start) + i·τ/target_fps, and D is the last start of a complete clip. Without it, frames are counted.
- `pyslowfast`: the frames that PySlowFast gives (`slowfast/datasets/decoder.py` with torchvision, its default
  `DECODING_BACKEND`). The span L is T·τ·f/30 (30 is its TARGET_FPS); starts are real numbers (training: uniform in
  [0, D]; clip j: D·j/J, which never reaches the end). It decodes the frames whose times are at or after that of start
  and at or before that of start + L - 1, and takes numbers linspace(0, L - 1, T), truncated, of these, or the last: 8x8
  is spaced by 9 at 30 fps. Here f is FFmpeg's guess of the frame rate, and n is f times the length in the header.
  It decodes the **whole video** if the header has no length (.mkv, .webm) or the video has at most T·τ frames; we also
  do so without presentation times (frame folders, some .avi). The frames are linspace(start, start + L - 1, T) of all.
  (With the backend `pyav` it decodes one frame more, and the last frame of a clip can be the following one.)

A clip longer than its video repeats the last frame or starts over (`past_end`).

Arguments of all functions: `n`, the number of frames of the file; `fps`, its frame rate; `preprocessing`, which holds
length, stride and rule; `clock`, the times of the frames where the rule needs them (`Video.clock`). None stands for a
constant frame rate and, under `pyslowfast`, for decoding the whole video. Results: frame indices in [0, n), int64.
ValueError is raised if the video has no frames, or if the rule needs the frame rate and this is not a number above 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dnl_video.config import FrameOrder
from dnl_video.spec import Preprocessing

Indices = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.float64]
_PYSLOWFAST_FPS = 30.0
# torchvision adds this to the end of a range, against rounding.
_JITTER_S = 1e-4
# Differences below this are rounding: decord tells times as float32.
_EQUAL_S = 1e-4
_LEAST_HOP_S = 1e-3


@dataclass(frozen=True)
class Clock:
    """When the frames of a video are shown.

    Args:
        times_s: Start of each frame in seconds from the first, and the end of the last, [n + 1].
        pts: Presentation times in ticks, as in the file, [n]; None if unknown. These and the rest are for `pyslowfast`.
        time_base: Seconds per tick.
        length_s: Length of the stream in the header in seconds; 0 if unknown.
        guessed_fps: FFmpeg's guess of the frame rate.
    """

    times_s: Seconds
    pts: Indices | None = None
    time_base: Fraction = Fraction(1)
    length_s: float = 0.0
    guessed_fps: float = 0.0


class _Rule(NamedTuple):
    last_start: float  # D
    clip: Callable[[float], Indices]  # start -> frames [T], not yet repeated or started over past the end
    start_at: Callable[[int], float] = float  # frame -> start of the clip that begins with it


def has_variable_rate(times_s: Seconds, fps: float) -> bool:
    """Return whether a frame is shown more than a quarter of a frame before or after index / fps."""
    return bool(np.abs(times_s[:-1] * fps - np.arange(len(times_s) - 1)).max() > 0.25)


def clip_times(indices: Indices, times_s: Seconds) -> tuple[Seconds, Seconds]:
    """Return the start of the first and the end of the last frame of clips [J, T] in seconds, each [J].

    With `loop`, a clip's last frame may be an early one, hence minimum and maximum.
    """
    return times_s[indices.min(axis=1)], times_s[indices.max(axis=1) + 1]


def clip_span(fps: float, preprocessing: Preprocessing) -> float:
    """Return the span L of a clip in frames of the file (an integer under `stride`)."""
    if preprocessing.sampling == "pyslowfast":
        return max(preprocessing.num_frames * preprocessing.frame_stride * _rate(fps, preprocessing), 1.0)
    return float(_offsets(fps, preprocessing)[-1] + 1)


def train_indices(
    n: int, fps: float, preprocessing: Preprocessing, rng: np.random.Generator, clock: Clock | None = None
) -> Indices:
    """Draw the frames of a training clip, [T]; ``rng`` gives the start."""
    rule = _rule(n, fps, preprocessing, clock)
    if preprocessing.sampling == "pyslowfast":
        start = rng.uniform(0.0, rule.last_start)
    else:
        start = float(rng.integers(0, int(rule.last_start), endpoint=True))
    return _inside(rule.clip(start), n, preprocessing)


def view_indices(
    n: int, fps: float, preprocessing: Preprocessing, num_clips: int, clock: Clock | None = None
) -> Indices:
    """Return the frames of J = ``num_clips`` evaluation clips spread over a video, [J, T].

    Raises:
        ValueError: `num_clips` is below 1.
    """
    if num_clips < 1:
        raise ValueError(f"num_clips is {num_clips}; give at least 1")
    rule = _rule(n, fps, preprocessing, clock)
    last_start = rule.last_start
    starts: list[float]
    if preprocessing.sampling == "pyslowfast":
        starts = [last_start * j / num_clips for j in range(num_clips)]
    elif num_clips == 1:
        starts = [last_start // 2]
    else:
        starts = [math.floor(j * last_start / (num_clips - 1) + 0.5) for j in range(num_clips)]
    return _inside(np.stack([rule.clip(start) for start in starts]), n, preprocessing)


def sliding_indices(
    n: int, fps: float, preprocessing: Preprocessing, hop_s: float, clock: Clock | None = None
) -> Indices:
    """Return the frames of clips that slide over a whole video, [J, T].

    Clip j starts at frame r(j·hop_s·fps), r(x) = floor(x + ½), or at the frame nearest to j·hop_s seconds if the frame
    rate is variable, if that is below D; one more starts at D, so that the last clip reaches the end. A video that is
    not longer than a clip gives one clip.

    Args:
        n: Number of frames of the file.
        fps: Its frame rate.
        preprocessing: Length, stride and rule.
        hop_s: Seconds from the start of one clip to the next; at least one frame is used.
        clock: The times of the frames, here also without `target_fps`.

    Raises:
        ValueError: `hop_s` or the frame rate is not a number above 0.
    """
    if not (math.isfinite(hop_s) and hop_s > 0 and math.isfinite(fps) and fps > 0):
        raise ValueError(f"hop_s is {hop_s}, the frame rate {fps}; both must be above 0")
    rule = _rule(n, fps, preprocessing, clock)
    if clock is not None and has_variable_rate(clock.times_s, fps):
        hops = np.arange(0.0, clock.times_s[-2], max(hop_s, _LEAST_HOP_S))
        frames = np.unique(_nearest(clock.times_s, hops)).tolist()
    else:
        hop = max(hop_s * fps, 1.0)
        frames = [math.floor(j * hop + 0.5) for j in range(math.ceil(n / hop))]
    regular = [rule.start_at(frame) for frame in frames if frame < n]
    starts = [*(start for start in regular if start < rule.last_start), rule.last_start]
    clips = _inside(np.stack([rule.clip(start) for start in starts]), n, preprocessing)
    # PySlowFast's last clip may lie between two frames, and then begins anywhere in the video.
    return clips[:-1] if len(clips) > 1 and clips[-1].min() < clips[-2].min() else clips


def clip_from(start: int, n: int, fps: float, preprocessing: Preprocessing, clock: Clock | None = None) -> Indices:
    """Return the frames of the clip with the first frame ``start``, [T].

    Raises:
        ValueError: The start is outside the video.
    """
    if not 0 <= start < n:
        raise ValueError(f"start is {start}; give a frame in [0, {n})")
    rule = _rule(n, fps, preprocessing, clock)
    return _inside(rule.clip(rule.start_at(start)), n, preprocessing)


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


def _inside(indices: Indices, n: int, preprocessing: Preprocessing) -> Indices:
    return indices % n if preprocessing.past_end == "loop" else np.minimum(indices, n - 1)


def _rule(n: int, fps: float, preprocessing: Preprocessing, clock: Clock | None) -> _Rule:
    if n < 1:
        raise ValueError(f"the video has {n} frames; a clip needs at least 1")
    if preprocessing.sampling == "pyslowfast":
        return _pyslowfast(n, fps, preprocessing, clock)
    target = preprocessing.target_fps
    if clock is not None and target is not None and has_variable_rate(clock.times_s, fps):
        times = clock.times_s
        steps_s = np.arange(preprocessing.num_frames) * preprocessing.frame_stride / target
        complete = _nearest(times, times[:-1] + steps_s[-1]) < n
        return _Rule(max(complete.sum() - 1, 0), lambda start: _nearest(times, times[int(start)] + steps_s))
    offsets = _offsets(fps, preprocessing)
    return _Rule(max(n - 1 - int(offsets[-1]), 0), lambda start: int(start) + offsets)


def _nearest(times_s: Seconds, seconds: Seconds) -> Indices:
    """Return the frame nearest to each time; of two equally near ones, the later.

    Past the end the video starts over, and the frames are counted on: n is frame 0 of the second round.
    """
    rounds, rest = np.divmod(seconds + _EQUAL_S, times_s[-1])
    middles = (times_s[:-1] + times_s[1:]) / 2
    return rounds.astype(np.int64) * (len(times_s) - 1) + np.searchsorted(middles, rest, side="right")


def _pyslowfast(n: int, fps: float, preprocessing: Preprocessing, clock: Clock | None) -> _Rule:
    pts = None if clock is None else clock.pts
    if clock is not None and pts is not None:
        fps = clock.guessed_fps
    num_frames, span = preprocessing.num_frames, clip_span(fps, preprocessing)

    def spread(start: float) -> Indices:
        import torch  # as PySlowFast does: its rounding to float32 decides where a value is truncated

        return torch.linspace(start, start + span - 1, num_frames).long().numpy()

    whole = max(n - span, 0.0)
    if clock is None or pts is None or fps * clock.length_s <= num_frames * preprocessing.frame_stride:
        return _Rule(whole, spread)
    last_start = max(fps * clock.length_s - span, 0.0)
    ticks_per_frame, jitter = clock.time_base.denominator / fps, _JITTER_S / clock.time_base

    def clip(start: float) -> Indices:
        first, last = int(start * ticks_per_frame), int((start + span - 1) * ticks_per_frame)
        begin, end = np.searchsorted(pts, first), np.searchsorted(pts, last + jitter, side="right")
        if begin >= end:  # no frame lies between these times: it decodes the whole video
            return spread(start * whole / max(last_start, 1e-9))
        past_end = start + span > fps * clock.length_s + 1e-3
        return begin + (spread(0.0) if past_end else np.minimum(spread(0.0), end - 1 - begin))

    return _Rule(last_start, clip, lambda frame: pts[frame] / ticks_per_frame)
