from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dnl_video.data.sampling import (
    Clock,
    clip_from,
    clip_span,
    clip_times,
    has_variable_rate,
    reorder_frames,
    sliding_indices,
    train_indices,
    view_indices,
)
from dnl_video.spec import Preprocessing
from tests.data.odd_videos import FILM_TICKS


def stride(num_frames: int, frame_stride: int, **options) -> Preprocessing:
    return Preprocessing(num_frames=num_frames, frame_stride=frame_stride, sampling="stride", **options)


def pyslowfast(num_frames: int, frame_stride: int, **options) -> Preprocessing:
    return Preprocessing(num_frames=num_frames, frame_stride=frame_stride, sampling="pyslowfast", **options)


# The expected numbers were computed by hand from the formulas in sampling.py.
STRIDE_VIEWS = [
    # 4 frames every 3: span 10.
    (100, 3, [[0, 3, 6, 9], [45, 48, 51, 54], [90, 93, 96, 99]]),
    (100, 1, [[45, 48, 51, 54]]),
    # D = 4: 4/3 rounds to 1, 8/3 to 3.
    (14, 4, [[0, 3, 6, 9], [1, 4, 7, 10], [3, 6, 9, 12], [4, 7, 10, 13]]),
    # D = 5: the middle start is 2.5, and halves round up; one clip alone takes D // 2.
    (15, 3, [[0, 3, 6, 9], [3, 6, 9, 12], [5, 8, 11, 14]]),
    (15, 1, [[2, 5, 8, 11]]),
    # Exactly one clip long, one frame short, far too short.
    (10, 2, [[0, 3, 6, 9], [0, 3, 6, 9]]),
    (9, 2, [[0, 3, 6, 8], [0, 3, 6, 8]]),
    (5, 1, [[0, 3, 4, 4]]),
    (1, 1, [[0, 0, 0, 0]]),
]


@pytest.mark.parametrize(("n", "num_clips", "expected"), STRIDE_VIEWS)
def test_stride_views(n, num_clips, expected):
    indices = view_indices(n, 25.0, stride(4, 3), num_clips)
    assert indices.tolist() == expected
    assert indices.dtype == np.int64


@pytest.mark.parametrize(
    ("fps", "preprocessing", "expected"),
    [
        # 2 * 25/30 = 1.67 frames: 0, 1.67, 3.33, 5.
        (25.0, stride(4, 2, target_fps=30.0), [0, 2, 3, 5]),
        (60.0, stride(4, 2, target_fps=30.0), [0, 4, 8, 12]),
        # 0.5 frames: halves round up.
        (15.0, stride(4, 1, target_fps=30.0), [0, 1, 1, 2]),
        # 7.992 frames.
        (29.97, stride(8, 8, target_fps=30.0), [0, 8, 16, 24, 32, 40, 48, 56]),
        # Without a target the file's rate does not matter.
        (60.0, stride(4, 2), [0, 2, 4, 6]),
        (0.0, stride(4, 2), [0, 2, 4, 6]),
    ],
)
def test_stride_follows_the_frame_rate(fps, preprocessing, expected):
    assert view_indices(1000, fps, preprocessing, 2)[0].tolist() == expected
    assert clip_span(fps, preprocessing) == expected[-1] + 1
    # The last clip ends with the last frame, whatever the rate.
    assert view_indices(1000, fps, preprocessing, 2)[1].tolist() == [999 - expected[-1] + i for i in expected]


def test_loop_starts_over():
    assert view_indices(5, 30.0, stride(4, 3, past_end="loop"), 1).tolist() == [[0, 3, 1, 4]]
    assert view_indices(1, 30.0, stride(4, 3, past_end="loop"), 1).tolist() == [[0, 0, 0, 0]]
    # 0, 9, 18, ..., 63 of 40 frames.
    looped = view_indices(40, 30.0, pyslowfast(8, 8, past_end="loop"), 1)
    assert looped.tolist() == [[0, 9, 18, 27, 36, 5, 14, 23]]


PYSLOWFAST_VIEWS = [
    # 8x8 of 10 s at 30 fps: L = 64, D = 236, start of clip j is 23.6 j, spacing 63/7 = 9.
    (300, 30.0, 10, 0, [0, 9, 18, 27, 36, 45, 54, 63]),
    (300, 30.0, 10, 1, [23, 32, 41, 50, 59, 68, 77, 86]),
    (300, 30.0, 10, 9, [212, 221, 230, 239, 248, 257, 266, 275]),
    # 25 fps: L = 53.33, D = 196.67, clip 1 of 2 from 98.33 by steps of 7.476.
    (250, 25.0, 2, 1, [98, 105, 113, 120, 128, 135, 143, 150]),
    # Shorter than a clip: D = 0.
    (40, 30.0, 3, 2, [0, 9, 18, 27, 36, 39, 39, 39]),
    (1, 30.0, 1, 0, [0, 0, 0, 0, 0, 0, 0, 0]),
]


@pytest.mark.parametrize(("n", "fps", "num_clips", "clip", "expected"), PYSLOWFAST_VIEWS)
def test_pyslowfast_views(n, fps, num_clips, clip, expected):
    indices = view_indices(n, fps, pyslowfast(8, 8), num_clips)
    assert indices[clip].tolist() == expected
    assert indices.dtype == np.int64


def test_pyslowfast_takes_another_target_rate():
    assert clip_span(30.0, pyslowfast(8, 8)) == 64
    assert clip_span(30.0, pyslowfast(8, 8, target_fps=15.0)) == 128
    # L = 128: steps of 127/7 = 18.14.
    indices = view_indices(300, 30.0, pyslowfast(8, 8, target_fps=15.0), 1)
    assert indices.tolist() == [[0, 18, 36, 54, 72, 90, 108, 127]]


def test_pyslowfast_clips_of_one_frame():
    # L = 8, D = 92, clip 1 of 2 starts at 46.
    assert view_indices(100, 30.0, pyslowfast(1, 8), 2).tolist() == [[0], [46]]
    # At 2 fps L = 0.53: the end is before the start, and indices below 0 become 0.
    assert view_indices(10, 2.0, pyslowfast(2, 4), 1).tolist() == [[0, 0]]


# D = 4; and D = 5, where floors of a uniform real are 0 to 4 in equal parts, and an integer draw would also give 5.
@pytest.mark.parametrize(("n", "preprocessing"), [(14, stride(4, 3)), (69, pyslowfast(8, 8))])
def test_training_starts_are_uniform_and_include_both_ends(n, preprocessing):
    rng = np.random.default_rng(0)
    draws = np.stack([train_indices(n, 30.0, preprocessing, rng) for _ in range(3000)])
    starts, counts = np.unique(draws[:, 0], return_counts=True)
    assert starts.tolist() == [0, 1, 2, 3, 4]
    assert counts.min() > 500  # 600 expected, standard deviation 22
    assert counts.max() < 700
    if preprocessing.sampling == "stride":
        assert (draws - draws[:, :1] == [0, 3, 6, 9]).all()


def test_training_on_a_short_video():
    for preprocessing in (stride(4, 3), pyslowfast(4, 3)):
        assert train_indices(2, 30.0, preprocessing, np.random.default_rng(0)).tolist() == [0, 1, 1, 1]


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(1, 400),
    fps=st.floats(0.5, 240.0),
    num_frames=st.integers(1, 16),
    frame_stride=st.integers(1, 12),
    target_fps=st.sampled_from([None, 15.0, 30.0]),
    sampling=st.sampled_from(["stride", "pyslowfast"]),
    past_end=st.sampled_from(["repeat_last", "loop"]),
    num_clips=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_indices_stay_inside(n, fps, num_frames, frame_stride, target_fps, sampling, past_end, num_clips, seed):
    preprocessing = Preprocessing(
        num_frames=num_frames, frame_stride=frame_stride, target_fps=target_fps, sampling=sampling, past_end=past_end
    )
    views = view_indices(n, fps, preprocessing, num_clips)
    train = train_indices(n, fps, preprocessing, np.random.default_rng(seed))
    assert views.shape == (num_clips, num_frames)
    assert train.shape == (num_frames,)
    for indices in (views, train):
        assert indices.min() >= 0
        assert indices.max() < n
    if past_end == "repeat_last" and sampling == "stride":
        assert (np.diff(views, axis=1) >= 0).all()
        assert views[0, 0] == 0 or num_clips == 1
        if num_clips > 1 and n >= clip_span(fps, preprocessing):
            assert views[-1, -1] == n - 1


def test_errors_say_what_is_allowed():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"^the video has 0 frames; a clip needs at least 1$"):
        train_indices(0, 30.0, stride(4, 3), rng)
    with pytest.raises(ValueError, match=r"^the video has 0 frames; a clip needs at least 1$"):
        view_indices(0, 30.0, pyslowfast(4, 3), 2)
    with pytest.raises(ValueError, match=r"^num_clips is 0; give at least 1$"):
        view_indices(10, 30.0, stride(4, 3), 0)
    expected = r"^the frame rate is 0\.0; it must be above 0 to sample at 30 frames per second$"
    with pytest.raises(ValueError, match=expected):
        train_indices(10, 0.0, pyslowfast(4, 3), rng)
    with pytest.raises(ValueError, match=r"^the frame rate is nan;"):
        view_indices(10, float("nan"), stride(4, 3, target_fps=30.0), 1)


def test_frame_orders():
    clips = np.array([[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]])
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(reorder_frames(clips, "natural", rng), clips)
    np.testing.assert_array_equal(reorder_frames(clips, "reversed", rng), [[8, 6, 4, 2, 0], [9, 7, 5, 3, 1]])
    np.testing.assert_array_equal(reorder_frames(clips, "repeated", rng), [[4] * 5, [5] * 5])
    shuffled = reorder_frames(clips, "shuffled", rng)
    np.testing.assert_array_equal(np.sort(shuffled, axis=1), clips)
    assert not np.array_equal(shuffled, clips)


def test_a_clip_from_a_given_frame() -> None:
    assert clip_from(2, 14, 30, stride(4, 3)).tolist() == [2, 5, 8, 11]
    assert clip_from(10, 14, 30, stride(4, 3)).tolist() == [10, 13, 13, 13]
    assert clip_from(10, 14, 30, stride(4, 3, past_end="loop")).tolist() == [10, 13, 2, 5]
    # PySlowFast's span is T x stride: linspace(2, 13, 4) truncated.
    assert clip_from(2, 100, 30, pyslowfast(4, 3)).tolist() == [2, 5, 9, 13]
    for start in (-1, 14):
        with pytest.raises(ValueError, match=rf"start is {start}; give a frame in \[0, 14\)"):
            clip_from(start, 14, 30, stride(4, 3))


# (frames, frames per second, hop in seconds, first frames of the clips); clips of 4 frames every 3, span 10.
SLIDING_STARTS = [
    # D = 20: every 10 frames, and the last regular clip is the one that reaches the end.
    (30, 10.0, 1.0, [0, 10, 20]),
    # D = 25: 0, 10, 20, and one more at 25.
    (35, 10.0, 1.0, [0, 10, 20, 25]),
    # 2.5 frames: 0, 2.5, 5, 7.5, 10 and halves round up.
    (20, 10.0, 0.25, [0, 3, 5, 8, 10]),
    # 12.5125 frames (29.97 a second): no drift, 12.51, 25.02, 37.54, 50.05.
    (65, 29.97, 12.5125 / 29.97, [0, 13, 25, 38, 50, 55]),
    # A hop longer than the video, and one longer than the clip: gaps between clips.
    (20, 10.0, 60.0, [0, 10]),
    (50, 10.0, 3.0, [0, 30, 40]),
    # Less than a frame counts as a frame.
    (13, 10.0, 0.001, [0, 1, 2, 3]),
    # Exactly one clip, one frame short, one frame.
    (10, 10.0, 1.0, [0]),
    (9, 10.0, 1.0, [0]),
    (1, 10.0, 1.0, [0]),
]


@pytest.mark.parametrize(("n", "fps", "hop_s", "starts"), SLIDING_STARTS)
def test_sliding_starts(n, fps, hop_s, starts):
    indices = sliding_indices(n, fps, stride(4, 3), hop_s)
    assert indices.tolist() == [[min(start + step, n - 1) for step in (0, 3, 6, 9)] for start in starts]
    assert indices.dtype == np.int64


def test_sliding_pyslowfast_reaches_the_end():
    # L = 64, D = 236; the hop is 30 frames, spacing 9.
    indices = sliding_indices(300, 30.0, pyslowfast(8, 8), 1.0)
    assert indices[:, 0].tolist() == [0, 30, 60, 90, 120, 150, 180, 210, 236]
    assert indices[-1].tolist() == [236, 245, 254, 263, 272, 281, 290, 299]


@given(
    st.integers(1, 400),
    st.floats(1.0, 120.0),
    st.floats(0.01, 30.0),
    st.sampled_from([stride(4, 3), stride(8, 2, target_fps=15.0), pyslowfast(8, 4)]),
)
@settings(deadline=None)
def test_sliding_covers_the_video(n, fps, hop_s, preprocessing):
    indices = sliding_indices(n, fps, preprocessing, hop_s)
    starts = indices[:, 0]
    assert starts[0] == 0
    assert (np.diff(starts) >= 0).all()
    assert (np.diff(starts) <= max(hop_s * fps, 1) + 1).all()
    assert indices.min() >= 0
    assert indices.max() <= n - 1
    if preprocessing.sampling == "stride":
        assert indices[-1, -1] == n - 1


@pytest.mark.parametrize(("fps", "hop_s"), [(25.0, 0.0), (25.0, -1.0), (25.0, float("nan")), (0.0, 1.0)])
def test_sliding_refuses(fps, hop_s):
    with pytest.raises(ValueError, match=r"hop_s is .*; both must be above 0"):
        sliding_indices(100, fps, stride(4, 3), hop_s)


def decoded_by_pyslowfast(clock: Clock, preprocessing: Preprocessing, share: float) -> list[int]:
    """Return the frames of a clip as PySlowFast finds them: it looks at each frame's time in turn.

    ``share`` tells the start: j / J for clip j of J, a random number in training.
    """
    fps, length, stride = float(np.float32(clock.guessed_fps)), preprocessing.num_frames, preprocessing.frame_stride
    span = max(length * stride / (preprocessing.target_fps or 30) * fps, 1.0)
    n = len(clock.pts)

    def microseconds(ticks: int) -> int:
        return math.floor(ticks * clock.time_base * 10**6 + Fraction(1, 2))

    frames: list[int] = []
    if fps * clock.length_s > length * stride:
        start = max(fps * clock.length_s - span, 0.0) * share
        begin, end = (int(place * clock.time_base.denominator / fps) for place in (start, start + span - 1))
        for frame in range(n):
            time = microseconds(int(clock.pts[frame]))
            if microseconds(begin) <= time and (end == 0 or time <= microseconds(end) + 100):
                frames.append(frame)
    start = 0.0
    if not frames:  # it decodes the whole video
        frames, start = list(range(n)), max(n - span, 0.0) * share
    places = torch.linspace(start, start + span - 1, length).tolist()
    return [frames[min(int(place), len(frames) - 1)] for place in places]


def file_clock(pts: list[int], ticks_per_s: int, guessed_fps: float, length: int | None = None) -> Clock:
    """Return the clock of a file with these times in ticks; by default the last frame is as long as the one before."""
    end = 2 * pts[-1] - pts[-2] if len(pts) > 1 else pts[-1] + ticks_per_s // 30
    times_s = (np.array([*pts, end]) - pts[0]) / ticks_per_s
    length_s = (end - pts[0] if length is None else length) / ticks_per_s
    return Clock(times_s, np.array(pts), Fraction(1, ticks_per_s), length_s, guessed_fps)


CLOCKS = {
    "30": file_clock([512 * i for i in range(300)], 15360, 30.0),
    "29.97": file_clock([1001 * i for i in range(300)], 30000, 30000 / 1001),
    "25": file_clock([512 * i for i in range(250)], 12800, 25.0),
    "24": file_clock([512 * i for i in range(240)], 12288, 24.0),
    "23.976": file_clock([1001 * i for i in range(240)], 24000, 24000 / 1001),
    "60": file_clock([256 * i for i in range(600)], 15360, 60.0),
    "15, rounded to 1/1000 s": file_clock([round(1000 * i / 15) for i in range(150)], 1000, 15.0),
    "one tick a frame": file_clock(list(range(300)), 30, 30.0),
    "film": file_clock(FILM_TICKS, 600, 30.0),
    "starts late": file_clock([132000 + 3000 * i for i in range(300)], 90000, 30.0),
    "at most T times stride": file_clock([1024 * i for i in range(64)], 15360, 15.0),
    "no length": file_clock([33 * i for i in range(300)], 1000, 30.0, length=0),
    "a gap without frames": file_clock([*range(0, 900, 30), *range(9000, 9900, 30)], 900, 30.0),
}


@pytest.mark.parametrize("name", CLOCKS)
@pytest.mark.parametrize(
    "preprocessing",
    [
        *(pyslowfast(8, 8), pyslowfast(32, 2), pyslowfast(4, 16), pyslowfast(64, 1), pyslowfast(64, 8)),
        pyslowfast(8, 8, target_fps=24000 / 1001),  # at 23.976 clips end at a frame, but for rounding
    ],
)
def test_pyslowfast_gives_the_frames_of_its_decoder(name, preprocessing):
    clock = CLOCKS[name]
    n = len(clock.pts)
    fps = n / clock.times_s[-1]
    views = view_indices(n, fps, preprocessing, 10, clock)
    assert views.tolist() == [decoded_by_pyslowfast(clock, preprocessing, j / 10) for j in range(10)]
    for seed in range(3):
        drawn = train_indices(n, fps, preprocessing, np.random.default_rng(seed), clock)
        share = np.random.default_rng(seed).random()
        assert drawn.tolist() == decoded_by_pyslowfast(clock, preprocessing, share)


def test_pyslowfast_starts_at_the_frame_after_a_start_between_frames():
    # 23.6 is before frame 24, and 23.6 + 63 after frame 86, so the last of 8 frames is 86 and not 24 + 63.
    clips = view_indices(300, 30.0, pyslowfast(8, 8), 10, CLOCKS["30"])
    assert clips[0].tolist() == [0, 9, 18, 27, 36, 45, 54, 63]
    assert clips[1].tolist() == [24, 33, 42, 51, 60, 69, 78, 86]
    assert clip_from(24, 300, 30.0, pyslowfast(8, 8), CLOCKS["30"]).tolist() == [24, 33, 42, 51, 60, 69, 78, 87]
    slides = sliding_indices(300, 30.0, pyslowfast(8, 8), 1.0, CLOCKS["30"])
    assert slides[:, 0].tolist() == [0, 30, 60, 90, 120, 150, 180, 210, 236]
    # The hop rounds to the number of frames.
    assert len(sliding_indices(300, 30.0, pyslowfast(8, 8), 299.7 / 30, CLOCKS["30"])) == 2
    late = CLOCKS["starts late"]
    assert clip_from(24, 300, 30.0, pyslowfast(8, 8), late).tolist() == [24, 33, 42, 51, 60, 69, 78, 87]
    looped = pyslowfast(8, 8, past_end="loop")
    assert clip_from(260, 300, 30.0, looped, CLOCKS["30"]).tolist() == [260, 269, 278, 287, 296, 5, 14, 23]


def test_pyslowfast_slides_up_to_a_last_frame_that_is_shown_for_long():
    # The last of 100 frames is shown from 20 to 25 s. No frame begins between D (23.9 s) and the end of that clip.
    clock = file_clock([*(512 * i for i in range(99)), 15360 * 20], 15360, 30.0, length=15360 * 25)
    for past_end in ("repeat_last", "loop"):
        clips = sliding_indices(100, 5.0, pyslowfast(4, 8, past_end=past_end), 0.5, clock)
        start_s, end_s = clip_times(clips, clock.times_s)
        assert clips[:, 0].tolist() == [0, 15, 30, 45, 60, 75, 90, 98, 99]
        assert (np.diff(start_s) >= 0).all()
        assert (np.diff(end_s) >= 0).all()
        assert end_s[-1] == clock.times_s[-1]


def test_a_pyslowfast_clip_that_fits_never_starts_over():
    clock = CLOCKS["film"]
    clips = sliding_indices(192, 10.0, pyslowfast(8, 8, past_end="loop"), 1.0, clock)
    assert clips.tolist() == sliding_indices(192, 10.0, pyslowfast(8, 8), 1.0, clock).tolist()
    assert clips[-1].tolist() == [180, 189, 191, 191, 191, 191, 191, 191]


def nearest_frames(times_s: np.ndarray, wanted: list[float], past_end: str) -> list[int]:
    """Return the frame nearest to each time, by a loop over all frames; the end counts as one more."""
    frames = []
    for time in wanted:
        rounds = int(time // times_s[-1]) if past_end == "loop" else 0
        frame = min(range(len(times_s)), key=lambda i: (abs(times_s[i] - (time - rounds * times_s[-1])), -i))
        frames.append(frame % (len(times_s) - 1) if past_end == "loop" else min(frame, len(times_s) - 2))
    return frames


@pytest.mark.parametrize("past_end", ["repeat_last", "loop"])
@pytest.mark.parametrize(("num_frames", "frame_stride", "target_fps"), [(8, 4, 24.0), (16, 2, 7.0), (8, 8, 31.0)])
def test_a_variable_rate_is_sampled_by_time(num_frames, frame_stride, target_fps, past_end):
    preprocessing = stride(num_frames, frame_stride, target_fps=target_fps, past_end=past_end)
    clock = Clock(CLOCKS["film"].times_s)
    times, fps = clock.times_s, 192 / 19.2
    steps = [i * frame_stride / target_fps for i in range(num_frames)]

    def expected(start: int) -> list[int]:
        return nearest_frames(times, [times[start] + step for step in steps], past_end)

    for start in (0, 90, 95, 96, 150, 188, 191):
        assert clip_from(start, 192, fps, preprocessing, clock).tolist() == expected(start)
    # A clip is complete if its last time is nearer to the last frame than to the end.
    last = max(s for s in range(192) if times[s] + steps[-1] < (times[-2] + times[-1]) / 2)
    views = view_indices(192, fps, preprocessing, 3, clock)
    assert views.tolist() == [expected(0), expected(math.floor(last / 2 + 0.5)), expected(last)]
    drawn = [train_indices(192, fps, preprocessing, np.random.default_rng(s), clock)[0] for s in range(300)]
    assert min(drawn) == 0
    assert last - 3 < max(drawn) <= last
    # Without a target, frames are counted.
    native = stride(num_frames, frame_stride, past_end=past_end)
    assert view_indices(192, fps, native, 3, clock).tolist() == view_indices(192, fps, native, 3).tolist()


def test_of_two_frames_equally_near_in_time_the_later_is_taken():
    # In 1/30 s: every second tick (15 frames a second), then every tick. Frame i < 10 is shown at tick 2 i.
    ticks = [*range(0, 20, 2), *range(20, 31)]
    clock = Clock(np.array(ticks) / 30)
    later = {tick: min(frame for frame in range(20) if ticks[frame] >= tick) for tick in range(30)}
    for start in range(17):
        found = clip_from(start, 20, 20.0, stride(4, 1, target_fps=30.0), clock)
        assert found.tolist() == [later[ticks[start] + i] for i in range(4)]


def test_a_video_shorter_than_its_clip_by_time():
    clock = Clock(np.array([0.0, 0.1, 0.5, 0.6]))
    assert view_indices(3, 5.0, stride(4, 3, target_fps=10.0), 2, clock).tolist() == [[0, 2, 2, 2]] * 2
    looped = stride(4, 3, target_fps=10.0, past_end="loop")
    # 0, 0.3 (nearer to 0.5 than to 0.1, or as near: the later), 0.6 = 0, 0.9 = 0.3.
    assert view_indices(3, 5.0, looped, 1, clock).tolist() == [[0, 2, 0, 2]]


@pytest.mark.parametrize("name", ["30", "29.97", "25", "24", "60", "15, rounded to 1/1000 s"])
def test_times_do_not_change_the_frames_of_a_constant_rate(name):
    clock, fps = CLOCKS[name], CLOCKS[name].guessed_fps
    n = len(clock.times_s) - 1
    for preprocessing in (stride(8, 8), stride(8, 4, target_fps=30.0), stride(4, 1, target_fps=30.0)):
        for hop_s in (0.1, 1.0, 1 / 30):
            by_time = sliding_indices(n, fps, preprocessing, hop_s, clock)
            assert by_time.tolist() == sliding_indices(n, fps, preprocessing, hop_s).tolist()
        assert view_indices(n, fps, preprocessing, 7, clock).tolist() == view_indices(n, fps, preprocessing, 7).tolist()


def test_clips_slide_by_the_clock():
    clock = CLOCKS["film"]
    for preprocessing in (stride(4, 3), stride(4, 3, target_fps=30.0), pyslowfast(4, 3)):
        clips = sliding_indices(192, 10.0, preprocessing, 0.5, clock)
        # Every 15 frames at 30 frames per second, then every 3 at 6; frame 99 is shown at 3.7 s, frame 96 at 3.2 s.
        assert clips[:12, 0].tolist() == [0, 15, 30, 45, 60, 75, 90, 98, 101, 104, 107, 110]
        assert (np.diff(clips[:, 0]) > 0).all()
        assert clips[-1].max() == 191 or preprocessing.sampling == "pyslowfast"
    # A hop of less than a frame takes every frame.
    every = sliding_indices(192, 10.0, stride(4, 3), 1e-6, clock)
    assert every[:, 0].tolist() == list(range(183))


@pytest.mark.parametrize(
    ("times_s", "fps", "variable"),
    [
        (CLOCKS["30"].times_s, 30.0, False),
        (CLOCKS["15, rounded to 1/1000 s"].times_s, 15.0, False),
        (CLOCKS["film"].times_s, 10.0, True),
        # A frame of 30 per second that is 8 ms, then 9 ms late.
        (np.array([0, 0.0333, 0.0747, 0.1, 0.1333]), 30.0, False),
        (np.array([0, 0.0333, 0.0757, 0.1, 0.1333]), 30.0, True),
        # A frame is missing; a declared rate that is not that of the frames.
        (np.array([0, 1, 2, 4, 5, 6, 7]) / 30, 30.0, True),
        (np.arange(11) / 30, 1000.0, True),
        (np.array([0.0, 5.0]), 30.0, False),
    ],
)
def test_variable_rates(times_s, fps, variable):
    assert has_variable_rate(times_s, fps) is variable


def test_clip_times_are_those_of_the_earliest_and_the_latest_frame():
    times_s = np.array([0.0, 0.1, 0.3, 0.6, 1.0, 1.5])
    # With `loop` the first frame of a clip is not always the smallest.
    start_s, end_s = clip_times(np.array([[0, 2], [4, 1], [3, 3]]), times_s)
    assert start_s.tolist() == [0.0, 0.1, 0.6]
    assert end_s.tolist() == [0.6, 1.5, 1.0]
