from __future__ import annotations

import io
import os
import re
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnl_video.data.decoding import VideoDecodeError, open_video
from tests.data.odd_videos import encode, run_python


def reason(path: Path) -> str:
    with pytest.raises(VideoDecodeError) as caught, open_video(path) as video:
        video.read(range(video.num_frames))
    assert "\n" not in caught.value.reason
    return caught.value.reason


def image(kind: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(data, kind)
    return data.getvalue()


def archive() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("a.mp4", bytes(1000))
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"<!DOCTYPE html>\n<title>404</title>", "not a video: begins with <!DOCTYPE html>"),
        (b'\xef\xbb\xbf{"error": "no such \x1b[31mvideo"}', 'not a video: begins with {"error": "no such [31mvideo"}'),
        ("\n  Grüße\r\n".encode(), "not a video: begins with Grüße"),
        (b"x" * 600, "not a video: begins with " + "x" * 40),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a git-lfs pointer, not the video; fetch it with `git lfs pull`",
        ),
        (b"ffconcat version 1.0\nfile good.mp4\n", "not a video: begins with ffconcat version 1.0"),
        (b"#EXTM3U\n#EXTINF:1,\ngood.mp4\n", "not a video: begins with #EXTM3U"),
        (image("jpeg"), "not a video: an image (jpeg)"),
        (image("png"), "not a video: an image (png)"),
        (image("webp"), "not a video: an image (webp)"),
        (b"\0\0\0\x10ftypavif\0\0\0\0\0\0\0\x08meta", "not a video: an image (avif)"),
        (archive(), "not a video: a zip archive"),
        (bytes(4000), "not a video: begins with zeros"),
        (bytes.fromhex("dd0c3a0d1de1209b") + bytes(600), "not a video: begins with the bytes dd 0c 3a 0d 1d e1 20 9b"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isommp41", "cut off, no moov atom"),
        (b"\0\0\0\x10moofabcdefgh", "cut off, no moov atom"),  # a segment of a stream
    ],
)
def test_files_that_are_not_videos(tmp_path, content, expected):
    encode(tmp_path / "good.mp4", frames=2)
    (tmp_path / "a.mp4").write_bytes(content)
    assert reason(tmp_path / "a.mp4") == f"cannot be opened ({expected})"


def test_cut_off_files(tmp_path):
    whole = encode(tmp_path / "a.mp4", frames=20).read_bytes()
    moov = re.search(b"....moov", whole, re.DOTALL).start()
    mdat = re.search(b"....mdat", whole, re.DOTALL).start()
    first = whole[:mdat] + whole[moov:]
    for content, expected in [
        (whole[: moov // 2], "cut off, no moov atom"),
        (whole[:moov], "cut off, no moov atom"),
        (whole[: moov + 300], "cut off in the moov atom"),
        (first + whole[mdat : moov - 400], "cut off in the mdat atom"),
    ]:
        (tmp_path / "b.mp4").write_bytes(content)
        assert expected in reason(tmp_path / "b.mp4")


def test_special_files_are_never_opened(tmp_path, monkeypatch):
    """Opening a FIFO waits for a writer; a device may have no end."""
    monkeypatch.chdir(tmp_path)  # a path of a socket is short
    os.mkfifo("a.mp4")
    Path("b.mp4").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("c.mp4")
    code = """
        from dnl_video.data.decoding import VideoDecodeError, open_video
        for name in "abc":
            try:
                open_video(f"{name}.mp4")
            except VideoDecodeError as error:
                print(error)
    """
    done = run_python(code)
    expected = "a.mp4: a FIFO, not a video\nb.mp4: a device, not a video\nc.mp4: a socket, not a video\n"
    assert (done.stdout, done.stderr) == (expected, "")


def test_text_in_a_binary_file_is_no_text(tmp_path):
    """A video that begins with text, as YUV4MPEG2 does, is opened."""
    frames = np.zeros((2, 16 * 16 * 3 // 2), np.uint8)
    content = b"YUV4MPEG2 W16 H16 F30:1 C420jpeg\n" + b"".join(b"FRAME\n" + frame.tobytes() for frame in frames)
    (tmp_path / "a.y4m").write_bytes(content)
    with open_video(tmp_path / "a.y4m") as video:
        assert (video.num_frames, video.size) == (2, (16, 16))
