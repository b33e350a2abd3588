from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from dnl_video.inference.segments import Timeline
from dnl_video.visualize.panels import save_figure
from dnl_video.visualize.timelines import clock, draw_timeline

TIMELINE = Timeline(np.array([0.0, 4.0, 10.0]), np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]))
NAMES = ["run", "jump", "sit down very slowly on a chair that is not there"]


def test_curves_strip_and_legend_say_what_the_timeline_says() -> None:
    figure = draw_timeline(TIMELINE, NAMES, title="movie.mp4", k=2)
    curves, strip = figure.axes
    assert curves.get_title(loc="left") == "movie.mp4"
    assert curves.get_xlim() == (0, 10)
    steps = [patch.get_data() for patch in curves.patches]
    # The classes that are best for 6 s and for 4 s.
    assert [data.values.tolist() for data in steps] == [[0.1, 0.6], [0.7, 0.1]]
    assert all(data.edges.tolist() == [0, 4, 10] for data in steps)
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in strip.patches]
    assert spans == [(0, 4), (4, 10)]
    colour_of = [to_rgb(patch.get_edgecolor()) for patch in curves.patches]
    assert [to_rgb(patch.get_facecolor()) for patch in strip.patches] == [colour_of[1], colour_of[0]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sit down very slowly on a chair…", "run"]


def test_classes_without_a_colour_are_grey_and_said_so() -> None:
    figure = draw_timeline(TIMELINE, NAMES, k=1)
    assert figure.legends[0].get_texts()[-1].get_text() == "other classes"


@pytest.mark.parametrize(
    ("second", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_clock(second: float, text: str) -> None:
    assert clock(second) == text


@pytest.mark.parametrize(("end", "label"), [(119.0, "seconds"), (121.0, "minutes:seconds"), (4000.0, "h:mm:ss")])
def test_long_videos_have_minutes_on_the_axis(end: float, label: str) -> None:
    figure = draw_timeline(Timeline(np.array([0.0, end]), np.array([[0.5, 0.5]])), NAMES)
    assert figure.axes[1].get_xlabel() == label


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_files_are_whole_and_the_same_each_time(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        save_figure(draw_timeline(TIMELINE, NAMES), path)
    assert sorted(tmp_path.iterdir()) == paths
    if suffix == ".png":
        assert matplotlib.image.imread(paths[0]).shape[:2] == (480, 1320)
        assert paths[0].read_bytes() == paths[1].read_bytes()
    else:
        assert "</svg>" in paths[0].read_text(encoding="utf-8")


def test_a_very_long_video_is_drawn_as_means() -> None:
    scores = np.tile([[1.0, 0.0], [0.0, 1.0]], (450, 1))
    figure = draw_timeline(Timeline(np.arange(901.0), scores), NAMES[:2])
    assert figure.axes[0].get_ylabel() == "score, mean of 6 s"
    (first, second) = [patch.get_data().values for patch in figure.axes[0].patches]
    assert len(first) == 150
    np.testing.assert_allclose(first, 0.5)
    np.testing.assert_allclose(second, 0.5)
