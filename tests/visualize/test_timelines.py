"""Plots of scores over seconds, and annotated copies of videos."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest

from dnl_video.data.decoding import open_video
from dnl_video.data.encoding import write_video
from dnl_video.inference.segments import Timeline
from dnl_video.visualize.panels import new_figure, save_figure, wrapped
from dnl_video.visualize.timelines import annotate_video, clock, draw_panel, draw_timeline
from tests.data.odd_videos import FILM_TICKS, encode, film

TIMELINE = Timeline(np.array([0.0, 4.0, 10.0]), np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]))
NAMES = ["run", "jump", "sit down very slowly on a chair that is not there"]


def test_a_panel_for_each_class_shows_its_scores_and_where_it_is_best():
    figure = draw_timeline(TIMELINE, NAMES, title="movie.mp4", k=2)
    # The classes that are best for 6 s and for 4 s.
    assert [axes.get_ylabel() for axes in figure.axes] == ["sit down very slowly on a chair…", "run"]
    assert figure.axes[0].get_title(loc="left") == "movie.mp4"
    assert figure.axes[0].get_xlim() == (0, 10)
    steps = [[patch.get_data() for patch in axes.patches] for axes in figure.axes]
    assert [[data.values.tolist() for data in panel] for panel in steps] == [
        [[0.1, 0.6], [0.0, 0.6]],
        [[0.7, 0.1], [0.7, 0.0]],
    ]
    assert all(data.edges.tolist() == [0, 4, 10] for panel in steps for data in panel)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["score", "while it is the best class"]


@pytest.mark.parametrize(
    ("second", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_clock(second, text):
    assert clock(second) == text


@pytest.mark.parametrize(("end", "label"), [(119.0, "seconds"), (121.0, "minutes:seconds"), (4000.0, "h:mm:ss")])
def test_the_axis_of_long_videos_has_minutes(end, label):
    figure = draw_timeline(Timeline(np.array([0.0, end]), np.array([[0.5, 0.5]])), NAMES)
    assert figure.axes[-1].get_xlabel() == label


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_files_are_reproducible(tmp_path, suffix):
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        save_figure(draw_timeline(TIMELINE, NAMES), path)
    assert sorted(tmp_path.iterdir()) == paths
    if suffix == ".png":
        assert matplotlib.image.imread(paths[0]).shape[:2] == (354, 1320)
        assert paths[0].read_bytes() == paths[1].read_bytes()
    else:
        assert "</svg>" in paths[0].read_text(encoding="utf-8")


def test_very_long_timelines_are_drawn_as_means():
    scores = np.tile([[1.0, 0.0], [0.0, 1.0]], (450, 1))
    figure = draw_timeline(Timeline(np.arange(901.0), scores), NAMES[:2])
    assert figure.legends[0].get_texts()[0].get_text() == "score, mean of 6 s"
    (first, second) = [axes.patches[0].get_data().values for axes in figure.axes]
    assert len(first) == 150
    np.testing.assert_allclose(first, 0.5)
    np.testing.assert_allclose(second, 0.5)


def test_the_copy_has_every_frame_and_follows_the_timeline(tmp_path):
    # 2 s of 250 x 331 at 10 a second, all white; the best class changes at 1.2 s.
    frames = np.full((20, 250, 331, 3), 255, np.uint8)
    encode(tmp_path / "in.mp4", "libx264", {"preset": "ultrafast"}, frames, rate=10, pix_fmt="yuv444p")
    timeline = Timeline(np.array([0.0, 1.2, 2.0]), np.array([[1.0, 0.0, 0.0], [0.0, 0.4, 0.6]]))
    seen: list[tuple[int, int]] = []
    annotate_video(
        tmp_path / "in.mp4", tmp_path / "out.mp4", timeline, NAMES, progress=lambda *counts: seen.append(counts)
    )
    with open_video(tmp_path / "out.mp4") as video:
        assert (video.num_frames, video.fps) == (20, 10)
        out = video.read(range(20)).astype(int)
    assert out.shape == (20, 250, 330, 3)
    assert seen[-1] == (20, 20)
    # Only the panel is drawn; its content is constant before and after the change.
    assert out[:, :100].min() > 245
    panel = out[:, 180:, :200]
    same = [np.abs(panel[i] - panel[i + 1]).mean() for i in (3, 8, 14, 17)]
    assert max(same) < 2 < 5 < np.abs(panel[11] - panel[12]).mean()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_the_copy_of_a_variable_rate_keeps_the_times(tmp_path, suffix):
    film(tmp_path / "in.mp4", np.full((192, 240, 320, 3), 255, np.uint8))
    timeline = Timeline(np.array([0.0, 3.2, 19.2]), np.array([[1.0, 0.0, 0.0], [0.0, 0.4, 0.6]]))
    annotate_video(tmp_path / "in.mp4", tmp_path / f"out{suffix}", timeline, NAMES)
    with open_video(tmp_path / f"out{suffix}") as video:
        shown = np.array(FILM_TICKS) / 600 if suffix != ".avi" else np.arange(192) / video.fps
        np.testing.assert_allclose(video.times_s[:-1], shown, atol=1e-3)
        panel = video.read([80, 95, 96, 97])[:, 170:, :200].astype(int)
    change = np.abs(np.diff(panel, axis=0)).mean(axis=(1, 2, 3))  # 80 -> 95: another second is written
    assert change[1] > 5 > change[2]


def test_small_videos_are_enlarged(tmp_path):
    frames = np.full((3, 64, 80, 3), 128, np.uint8)
    write_video(tmp_path / "in.mp4", frames, 8, options={"preset": "ultrafast"})
    annotate_video(tmp_path / "in.mp4", tmp_path / "out.mkv", Timeline(np.array([0, 1.0]), np.eye(3)[:1]), NAMES)
    with open_video(tmp_path / "out.mkv") as video:
        assert video.size == (256, 320)


def test_names_from_other_people_are_drawn_as_they_are(tmp_path):
    name = "caf\udce9 $_$ $x.mp4"
    figure = draw_timeline(TIMELINE, [name, "b", "c"], title=name, k=3)
    save_figure(figure, tmp_path / "timeline.svg")
    save_figure(new_figure((4, 1), wrapped(name, 4, 9)), tmp_path / "sheet.png")
    drawn = r"caf\udce9 \$_\$ \$x.mp4"
    assert figure.axes[0].get_title(loc="left") == drawn
    assert drawn in [axes.get_ylabel() for axes in figure.axes]
    assert draw_panel(TIMELINE.scores[0], [name, "b", "c"], 3, 320, 240, title="").any()


@pytest.mark.parametrize(("width", "height"), [(320, 240), (1920, 1080), (240, 900), (20, 30)])
def test_the_panel_fits_and_bars_have_the_length_of_the_scores(width, height):
    scores = np.array([0.75, 0.25, 0.0])
    panel = draw_panel(
        scores, ["a name that is much longer than the panel " * 3, "b", "c"], 3, width, height, title="0:01"
    )
    assert panel.shape[0] <= height
    assert panel.shape[1] <= width
    if width > 20:
        blue = (panel == (38, 120, 200, 230)).all(axis=2).any(axis=0)
        assert blue.nonzero()[0].max() / panel.shape[1] == pytest.approx(0.75, abs=0.02)
