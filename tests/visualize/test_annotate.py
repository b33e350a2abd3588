from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dnl_video.data.decoding import open_video
from dnl_video.data.encoding import write_video
from dnl_video.inference.segments import Timeline
from dnl_video.visualize.timelines import annotate_video, draw_panel
from tests.data.odd_videos import encode_frames

NAMES = ["run", "jump", "sit"]


def test_the_copy_has_every_frame_and_changes_where_the_timeline_does(tmp_path: Path) -> None:
    # 2 s of 250 x 331 at 10 a second, all white; the best class changes at 1.2 s.
    frames = np.full((20, 250, 331, 3), 255, np.uint8)
    encode_frames(tmp_path / "in.mp4", frames, "libx264", {"preset": "ultrafast"}, rate=10, pix_fmt="yuv444p")
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
    # Above the panel nothing is drawn; below, frames of one moment look alike and those of the other do not.
    assert out[:, :100].min() > 245
    panel = out[:, 180:, :200]
    same = [np.abs(panel[i] - panel[i + 1]).mean() for i in (3, 8, 14, 17)]
    assert max(same) < 2 < 5 < np.abs(panel[11] - panel[12]).mean()
    assert list(tmp_path.glob("*.part")) == []


def test_small_videos_are_enlarged(tmp_path: Path) -> None:
    frames = np.full((3, 64, 80, 3), 128, np.uint8)
    write_video(tmp_path / "in.mp4", frames, 8, options={"preset": "ultrafast"})
    annotate_video(tmp_path / "in.mp4", tmp_path / "out.mkv", Timeline(np.array([0, 1.0]), np.eye(3)[:1]), NAMES)
    with open_video(tmp_path / "out.mkv") as video:
        assert video.size == (256, 320)


@pytest.mark.parametrize(("width", "height"), [(320, 240), (1920, 1080), (240, 900), (20, 30)])
def test_the_panel_fits_and_its_bars_are_as_long_as_the_scores(width: int, height: int) -> None:
    scores = np.array([0.75, 0.25, 0.0])
    panel = draw_panel(
        scores, ["a name that is much longer than the panel " * 3, "b", "c"], 3, width, height, title="0:01"
    )
    assert panel.shape[0] <= height
    assert panel.shape[1] <= width
    if width > 20:
        blue = (panel == (38, 120, 200, 230)).all(axis=2).any(axis=0)
        assert blue.nonzero()[0].max() / panel.shape[1] == pytest.approx(0.75, abs=0.02)
