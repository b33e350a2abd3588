from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dnl_video.config import AugmentConfig
from dnl_video.data.dataset import ClipDataset, ViewDataset
from dnl_video.data.decoding import VideoDecodeError, open_video
from dnl_video.data.manifest import VideoRecord
from dnl_video.spec import Preprocessing


def write_frames(folder: Path, names: list[str], *, red: int = 200) -> Path:
    """Write images whose green encodes their place in the list."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        image = np.zeros((40, 48, 3), np.uint8)
        image[..., 0], image[..., 1] = red, 10 * place
        Image.fromarray(image).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        [f"img_{i:05d}.png" for i in range(1, 13)],
        [f"{i}.png" for i in range(1, 13)],  # 10 sorts before 2 as text
        [f"v2_frame{i}.PNG" for i in range(0, 60, 5)],  # every fifth frame
    ],
)
def test_frames_come_in_the_order_of_their_numbers(tmp_path, names):
    folder = write_frames(tmp_path / "v", names)
    (folder / "readme.txt").write_text("no frame")
    with open_video(folder) as video:
        assert (video.num_frames, video.fps, video.size) == (12, 30.0, (40, 48))
        frames = video.read([11, 0, 2, 2])
    assert frames.dtype == np.uint8
    assert frames[:, 0, 0].tolist() == [[200, green, 0] for green in (110, 0, 20, 20)]
    with open_video(folder, frames_fps=12.5) as video:
        assert video.fps == 12.5


def test_more_frames_than_a_chunk(tmp_path):
    folder = write_frames(tmp_path / "v", [f"img_{i:05d}.png" for i in range(25)])
    write_frames(folder, [f"img_{i:05d}.png" for i in range(25, 50)])
    with open_video(folder) as video:
        greens = video.read(range(50))[:, 0, 0, 1]
    assert greens.tolist() == [10 * (i % 25) for i in range(50)]


def test_grey_and_transparent_images_become_rgb(tmp_path):
    tmp_path.joinpath("v").mkdir()
    Image.new("L", (8, 6), 77).save(tmp_path / "v" / "1.png")
    Image.new("RGBA", (8, 6), (1, 2, 3, 0)).save(tmp_path / "v" / "2.png")
    with open_video(tmp_path / "v") as video:
        assert video.read([0, 1])[:, 5, 7].tolist() == [[77, 77, 77], [1, 2, 3]]


@pytest.mark.parametrize(
    ("mode", "value", "rgb"),
    [
        ("1", 1, [255, 255, 255]),
        ("L", 77, [77, 77, 77]),
        ("LA", (77, 9), [77, 77, 77]),
        ("I;16", 77 * 257, [77, 77, 77]),
        ("I;16", 65535, [255, 255, 255]),
        ("P", 3, [7, 8, 9]),
        ("RGBA", (1, 2, 3, 0), [1, 2, 3]),
    ],
)
def test_modes_of_png_images(tmp_path, mode, value, rgb):
    tmp_path.joinpath("v").mkdir()
    image = Image.new(mode, (8, 6), value)
    if mode == "P":
        image.putpalette([0] * 9 + [7, 8, 9])
    image.save(tmp_path / "v" / "1.png")
    with open_video(tmp_path / "v") as video:
        assert video.read([0])[0, 5, 7].tolist() == rgb


def test_jpeg_images(tmp_path):
    """CMYK is converted; the orientation of EXIF is applied, as OpenCV does."""
    image = Image.new("RGB", (32, 16), "red")
    image.paste((0, 0, 255), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left side comes to the top
    for name, picture, expected in [
        ("cmyk", image.convert("CMYK"), [[0, 0, 255], [255, 0, 0]]),
        ("exif", image, [[0, 0, 255], [255, 0, 0]]),
    ]:
        tmp_path.joinpath(name).mkdir()
        picture.save(tmp_path / name / "1.jpg", quality=100, **({"exif": exif} if name == "exif" else {}))
        with open_video(tmp_path / name) as video:
            frame = video.read([0])[0].astype(int)
        assert frame.shape == ((32, 16, 3) if name == "exif" else (16, 32, 3))
        assert np.abs(frame[[4, -5], [4, -5]] - expected).max() < 4


def test_optical_flow_beside_the_colour_frames_is_left_out(tmp_path):
    folder = write_frames(tmp_path / "v", ["img_1.png", "img_2.png"])
    write_frames(folder, ["flow_x_1.png", "flow_y_1.png", "flow_x_2.png"], red=0)
    with open_video(folder) as video:
        assert video.read([0, 1])[:, 0, 0].tolist() == [[200, 0, 0], [200, 10, 0]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.png", "2.png", "4.png"], "2.png is followed by 4.png: frames are missing or listed twice"),
        (["1.png", "01.png"], "01.png is followed by 1.png: frames are missing or listed twice"),
        (["l_1.png", "r_1.png"], "the folder holds several series of images (l_, r_); keep one, or name it img_"),
    ],
)
def test_folders_that_are_not_videos(tmp_path, names, message):
    folder = write_frames(tmp_path / "v", names)
    with pytest.raises(VideoDecodeError) as error:
        open_video(folder)
    assert str(error.value) == f"{folder}: {message}"


def test_a_damaged_frame_and_one_of_another_size(tmp_path):
    folder = write_frames(tmp_path / "v", ["1.png", "2.png"])
    (folder / "2.png").write_bytes((folder / "1.png").read_bytes()[:60])
    for message in ("cannot be decoded", r"the frame size changes from \(40, 48\) to \(20, 20\)$"):
        with open_video(folder) as video, pytest.raises(VideoDecodeError, match=message):
            video.read([0, 1])
        Image.new("RGB", (20, 20)).save(folder / "2.png")


def test_datasets_read_folders_of_frames_at_the_rate_of_the_listing(tmp_path):
    folder = write_frames(tmp_path / "v", [f"img_{i:05d}.png" for i in range(24)])
    record = VideoRecord("v", str(folder), 0, "a", fps=10.0)
    preprocessing = Preprocessing(num_frames=4, frame_stride=2, short_side=36, crop_size=32)
    clip = ClipDataset([record], preprocessing, AugmentConfig((36, 40), 32, 0.0), seed=0)[(0, 0)]["clips"][0]
    assert clip.shape == (4, 32, 32, 3)
    greens = clip[:, 16, 16, 1].int()
    assert torch.equal(greens.diff(), torch.full((3,), 20, dtype=torch.int32))
    views = ViewDataset([record], preprocessing, num_clips=2, num_crops=1)[0]
    assert views.error is None
    assert views.clip_start_s.tolist() == [0.0, 1.7]  # frame 17 of 24 at 10 frames per second
