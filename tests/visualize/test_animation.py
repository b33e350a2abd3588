from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnl_video.data.decoding import open_video
from dnl_video.errors import InputError
from dnl_video.visualize.animation import animate, write_animation
from dnl_video.visualize.clip import Query
from dnl_video.visualize.examine import Examination
from dnl_video.visualize.maps import clip_maps
from tests.visualize.planted import dnl_block, nl_block, planted_clip, redness_network


def examination() -> Examination:
    clip = planted_clip(72, 104, frame=2, row=28, column=44)
    queries = [Query(2, 44.5 / 104, 28.5 / 72, "planted")]
    networks = [
        (name, clip_maps(redness_network(block, kernel=8, padding=0), clip, queries))
        for name, block in (("DNL", dnl_block(None)), ("NL", nl_block(None)))
    ]
    return Examination(clip, queries, networks)


def test_frames_show_the_map_of_their_time():
    frames = list(animate(examination()))
    assert len(frames) == 4
    assert len({frame.shape for frame in frames}) == 1
    height, width, _ = frames[0].shape
    assert (height % 2, width % 2) == (0, 0)
    # Inferno's bright end, orange to yellow, only when the red square is there.
    bright = [((f[..., 0] > 200) & (f[..., 1] > 100) & (f[..., 2] < 160)).sum() for f in frames]
    assert bright[2] > 10
    assert bright[0] == bright[1] == bright[3] == 0


def test_files(tmp_path):
    frames = [np.full((40, 64, 3), 60 * i, dtype=np.uint8) for i in range(4)]
    write_animation(tmp_path / "a.mp4", frames, 4)
    with open_video(tmp_path / "a.mp4") as video:
        assert (video.num_frames, video.fps) == (4, 4)
        read = video.read(range(4))
    np.testing.assert_allclose(read.mean(axis=(1, 2, 3)), [0, 60, 120, 180], atol=4)
    write_animation(tmp_path / "a.gif", frames, 4)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (4, 250, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.mp4"]
    with pytest.raises(InputError, match=r"a\.webp: cannot write suffix '\.webp'; allowed: \.mp4, \.gif"):
        write_animation(tmp_path / "a.webp", frames, 4)


def test_a_gif_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(self: Image.Image, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_animation(tmp_path / "a.gif", [np.zeros((4, 4, 3), dtype=np.uint8)], 4)
    assert list(tmp_path.iterdir()) == []
