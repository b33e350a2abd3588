"""The relation task: statistics of the squares and of the pixels, and the accuracy of local evidence."""

from __future__ import annotations

import numpy as np
import pytest
from relation_task import (
    CANDIDATES,
    DIRECTIONS,
    RelationTask,
    Squares,
    centres,
    draw_relation,
    draw_single,
    render_squares,
)

from dnl_video.errors import InputError

TASK = RelationTask(candidates=4, directions=4, distractors=4, grid=3, window=16, radius=3.5, speed=2.5, num_frames=8)
VIDEOS = 3000  # of each class


@pytest.fixture(scope="module")
def drawn() -> list[list[Squares]]:
    """Squares of many videos of each class."""
    return [
        [draw_relation(TASK, label, np.random.default_rng([label, i])) for i in range(VIDEOS)] for label in range(4)
    ]


def test_label_is_the_candidate_that_moves_like_the_sample(drawn: list[list[Squares]]) -> None:
    for label, videos in enumerate(drawn):
        for squares in videos:
            sample, *candidates = squares.direction[:5].tolist()
            assert [direction == sample for direction in candidates] == [i == label for i in range(4)]
            steps = np.array(list(DIRECTIONS.values()))
            assert all((steps[d] == -steps[sample]).all() for i, d in enumerate(candidates) if i != label)
            assert len(set(squares.window.tolist())) == TASK.squares


def test_motion_counts_are_the_same_in_every_class(drawn: list[list[Squares]]) -> None:
    for videos in drawn:
        samples = np.zeros(4)
        for squares in videos:
            counts = np.bincount(squares.direction, minlength=4)
            # One distractor per direction; sample and its candidate; three candidates in the opposite direction.
            assert sorted(counts.tolist()) == [1, 1, 3, 4]
            samples[(counts == 3).argmax()] += 1
        assert np.abs(samples / VIDEOS - 1 / 4).max() < 0.035  # 4.4 standard deviations of a share of 3000


def test_marginals_of_motion_place_and_speed_are_the_same_in_every_class(drawn: list[list[Squares]]) -> None:
    for videos in drawn:
        direction = np.array([squares.direction for squares in videos])  # [videos, squares]
        window = np.array([squares.window for squares in videos])
        for look in range(TASK.squares):
            assert np.abs(np.bincount(direction[:, look], minlength=4) / VIDEOS - 1 / 4).max() < 0.035
            assert np.abs(np.bincount(window[:, look], minlength=9) / VIDEOS - 1 / 9).max() < 0.026
        place = np.array([squares.place for squares in videos]).reshape(-1, 2) / TASK.window
        assert np.abs(place.mean(axis=0) - 0.5).max() < 0.01
        speed = np.log([squares.speed for squares in videos]) - np.log(TASK.speed)
        assert abs(speed.mean()) < 0.002
        assert np.abs(speed).max() <= np.log(1.1)


# The task of relations.yaml, and one that uses every option.
@pytest.mark.parametrize("task", [RelationTask(), TASK])
def test_sums_of_local_evidence_reach_half_and_the_relation_all(task: RelationTask) -> None:
    """A linear map of every (look, direction, window) stays below the bound; one of equal directions is perfect."""
    classes, videos = task.candidates, 8000

    def features(squares: Squares) -> tuple[np.ndarray, np.ndarray]:
        local = np.zeros((task.squares, 4, 9))
        local[squares.look, squares.direction, squares.window] = 1
        return local.ravel(), (squares.direction[1 : 1 + classes] == squares.direction[0]).astype(float)

    rng = np.random.default_rng(1)
    labels = rng.permutation(np.arange(videos) % classes)
    rows = [features(draw_relation(task, label, rng)) for label in labels]
    local, relation = (np.array(column) for column in zip(*rows, strict=True))

    def fitted(x: np.ndarray) -> float:
        half = videos // 2
        weights = np.linalg.lstsq(x[:half], np.eye(classes)[labels[:half]], rcond=None)[0]
        return float(np.mean((x[half:] @ weights).argmax(axis=1) == labels[half:]))

    bound = 1 / 2 + 1 / (2 * classes) + 0.03  # of a sample of 4000
    assert fitted(local) < bound
    assert fitted(relation) == 1
    # Naming the candidate that moves right (or down) is correct when the sample also does.
    forwards = local.reshape(videos, task.squares, 4, 9)[:, 1 : 1 + classes, 1::2].sum(axis=(2, 3))
    only = (forwards.argmax(axis=1) == labels) & (forwards.sum(axis=1) == 1)
    assert only.mean() == pytest.approx(0.5, abs=0.025)
    for _ in range(20):
        weights = rng.standard_normal((local.shape[1], classes))
        assert np.mean((local @ weights).argmax(axis=1) == labels) < bound


def test_reversed_motions_keep_the_class(drawn: list[list[Squares]]) -> None:
    """Therefore a sum of local evidence can be right about both for one class only."""
    for label, videos in enumerate(drawn):
        for squares in videos[:200]:
            sample, *candidates = (squares.direction[:5] ^ 1).tolist()
            assert [direction == sample for direction in candidates] == [i == label for i in range(4)]


def test_one_frame_has_the_same_distribution_in_every_class(drawn: list[list[Squares]]) -> None:
    """The place of a square in its window is uniform in the first frame too, for every direction."""
    for videos in drawn:
        place = np.array([centres(TASK, squares)[:, 0] for squares in videos[:1000]]) / TASK.window
        assert ((place >= 0) & (place < 1)).all()
        for bins in (4, 16):
            for axis in (0, 1):
                share = np.histogram(place[..., axis], bins=bins, range=(0, 1))[0] / place[..., axis].size
                assert np.abs(share * bins - 1).max() < 0.2 * np.sqrt(bins / 16)


def moves(frames: np.ndarray, color: tuple[int, int, int]) -> tuple[int, tuple[float, float]]:
    """Measure the window of a colour and its mean step (x, y) per frame on the window's torus, from pixels only."""
    near = (np.abs(frames.astype(int) - np.array(color)).max(axis=-1) < 32).astype(float)  # [T, side, side]
    windows = near.reshape(len(frames), 3, 16, 3, 16).sum(axis=(0, 2, 4))
    window = int(windows.argmax())
    row, column = divmod(window, 3)
    part = near[:, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
    wave = np.exp(2j * np.pi * np.arange(16) / 16)
    steps = []
    for axis in (1, 2):  # sums over rows leave columns: x
        phase = np.angle(part.sum(axis=axis) @ wave)
        turn = np.angle(np.exp(1j * np.diff(phase)))
        steps.append(float(turn.mean() * 16 / (2 * np.pi)))
    return window, (steps[0], steps[1])


def test_pixels_show_the_squares() -> None:
    for label in range(4):
        rng = np.random.default_rng([9, label])
        squares = draw_relation(TASK, label, rng)
        frames = render_squares(TASK, squares, rng)
        assert frames.shape == (8, 48, 48, 3)
        assert frames.dtype == np.uint8
        for look, color in enumerate(TASK.looks):
            window, (x, y) = moves(frames, color)
            assert window == squares.window[look]
            step = np.array(list(DIRECTIONS.values())[squares.direction[look]]) * squares.speed[look]
            assert np.allclose((x, y), step, atol=0.35)


def test_single_square_has_its_look_and_direction() -> None:
    assert len(TASK.single_classes) == 36
    for label, name in enumerate(TASK.single_classes[:20]):
        rng = np.random.default_rng(label)
        squares = draw_single(TASK, label, rng)
        look, direction = name.split()
        color = (235, 235, 235) if look == "white" else CANDIDATES[look]
        _, step = moves(render_squares(TASK, squares, rng), color)
        assert np.allclose(step, np.array(DIRECTIONS[direction]) * squares.speed, atol=0.35)


def test_two_directions_are_horizontal() -> None:
    task = RelationTask(candidates=2, directions=2, distractors=2, window=24)
    assert task.classes == ("red", "blue")
    assert task.single_classes[:4] == ("white left", "white right", "red left", "red right")
    assert (task.squares, task.side, len(task.looks)) == (5, 72, 5)
    assert list(CANDIDATES)[:2] == list(task.classes)
    assert set(draw_relation(task, 0, np.random.default_rng(0)).direction.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"candidates": 9}, "candidates is 9; give 2 to 8"),
        ({"directions": 3}, r"directions is 3; give 2 \(left, right\) or 4 \(also up, down\)"),
        ({"directions": 4, "distractors": 2}, r"distractors is 2; give a multiple of directions \(4\), at most 4"),
        ({"window": 15}, "window is 15; give an even number of pixels"),
        ({"grid": 1}, "grid is 1; 9 squares need as many windows"),
        ({"radius": 12.0}, "radius is 12.0; give a square that fits into a window of 16"),
        ({"speed": 11.0}, r"speed is 11.0; give pixels per frame above 0 and well below half a window \(8\)"),
        ({"noise": -1.0}, "noise is -1.0; give at least 0"),
        ({"num_frames": 1}, "num_frames is 1; motion needs at least 2"),
    ],
)
def test_impossible_task_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RelationTask(**values)  # type: ignore[arg-type]
