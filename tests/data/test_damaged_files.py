"""Damaged files give frames or `VideoDecodeError`, never a crash, a hang, or a wrong number of frames."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from dnl_video.data.decoding import VideoDecodeError, open_video
from dnl_video.data.probing import probe_video
from dnl_video.data.readers import AVReader
from tests.data.odd_videos import FAST, encode, numbers, run_python, write

_SOURCES = (
    *("closed.mp4", "closed.mkv", "long.mp4", "varying.mp4", "vp8.webm", "vp9.webm", "cut.mp4", "cut_long.mp4"),
    *("open.mp4", "hevc.mp4", "mpeg4.avi", "h264.ts", "wmv2.wmv"),
)
# Reads every file of a folder, and prints how many frames PyAV decodes from its start.
_READ_ALL = """
import sys, time
from pathlib import Path
import av
from dnl_video.data.decoding import VideoDecodeError, open_video

def stored_and_decodable(path):
    with av.open(str(path)) as container:
        shown = sum(bool(p.size) and not p.is_discard for p in container.demux(video=0))
    with av.open(str(path)) as container:
        try:
            return shown, sum(1 for _ in container.decode(video=0))
        except av.error.FFmpegError:
            return shown, -1

for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, end=" ", flush=True)
    start = time.monotonic()
    try:
        with open_video(path, decoder=sys.argv[2]) as video:
            count = video.num_frames
            asked = sorted({0, count // 3, count // 2, count - 1})
            read = len(video.read(asked))
        print("frames", count, *stored_and_decodable(path), read == len(asked), time.monotonic() - start)
    except VideoDecodeError as error:
        print("error", bool(error.reason), time.monotonic() - start)
"""
_BOUND_S = 30


def damage(content: bytes, way: int, rng: np.random.Generator) -> bytes:
    """Return a file's content cut off, with flipped bits, or with a stretch of it replaced."""
    data = bytearray(content)
    if way == 0:
        return bytes(data[: rng.integers(1, len(data))])
    if way == 1:
        for _ in range(rng.integers(1, 40)):
            data[rng.integers(0, len(data))] ^= 1 << int(rng.integers(0, 8))
    else:
        start, length = int(rng.integers(0, len(data))), int(rng.integers(1, 2000))
        data[start : start + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    return bytes(data)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory, full_size) -> Path:
    """Damaged copies of good files: 208, at full size 1,040."""
    folder = tmp_path_factory.mktemp("damaged")
    rng = np.random.default_rng(0)
    for kind in _SOURCES:
        source = write(kind, tmp_path_factory.mktemp("good"))
        for copy in range(80 if full_size else 16):
            (folder / f"{kind}-{copy:02d}{source.suffix}").write_bytes(damage(source.read_bytes(), copy % 3, rng))
    return folder


@pytest.mark.full
@pytest.mark.parametrize("decoder", ["decord", "auto"])
def test_damaged_files(damaged, decoder):
    files = sorted(path.name for path in damaged.iterdir())
    assert len(files) >= 200
    done = run_python(_READ_ALL, damaged, decoder)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{lines[-1:]}: {done.stderr[-500:]}"
    assert [line[0] for line in lines] == files
    outcomes = {"frames": 0, "error": 0}
    for name, outcome, *rest in lines:
        outcomes[outcome] += 1
        assert float(rest[-1]) < _BOUND_S, name
        if outcome == "frames":
            count, stored, decodable = map(int, rest[:3])
            # Decoders drop pictures that are too damaged; frame numbers count all stored pictures.
            assert count in (stored, decodable), name
            assert rest[3] == "True", name
        else:
            assert rest[0] == "True", name
    assert outcomes["frames"] > len(files) // 5
    assert outcomes["error"] > len(files) // 5


@pytest.mark.parametrize("where", ["frames", "duration"])
def test_headers_that_declare_too_many_frames(tmp_path, where):
    """decord allocates memory for all frames that a header declares, and aborts if it fails."""
    name = "a.mkv" if where == "duration" else "a.mp4"
    path = encode(tmp_path / name, "libx264", {**FAST, "g": "12"}, 20)
    content = bytearray(path.read_bytes())
    if where == "duration":  # Matroska's Duration: id 0x4489, 8 bytes, milliseconds as a double
        place = content.index(b"\x44\x89\x88") + 3
        content[place : place + 8] = struct.pack(">d", 1e15)
    else:  # stts: version and flags, number of entries, the first one's number of frames
        place = content.index(b"stts") + 4 + 8
        content[place] = 0x7F
    path.write_bytes(content)
    probe = probe_video(path)
    assert not probe.exact
    assert probe.reason.startswith("the header declares ")
    code = (
        "import sys\nfrom dnl_video.data.decoding import open_video, VideoDecodeError\n"
        "try:\n    with open_video(sys.argv[1]) as video:\n        print(len(video.read([0, video.num_frames - 1])))\n"
        "except VideoDecodeError as error:\n    print(2, error)"
    )
    done = run_python(code, path)
    assert done.stdout.startswith("2"), done.stderr


def test_a_lost_frame_is_an_error_and_the_others_keep_their_numbers(tmp_path):
    """If a stream has lost a packet, the other frames keep the numbers that follow from their times."""
    path = write("h264.ts", tmp_path)
    probe = probe_video(path)
    assert probe.frames == 72
    with open_video(path, decoder="av") as video:
        reader = video._reader
        assert isinstance(reader, AVReader)
        kept = reader._decode_all
        lost = reader._times[40]
        reader._decode_needed = lambda times: iter(())
        reader._decode_all = lambda: (frame for frame in kept() if frame.pts != lost)
        assert numbers(video.read([39, 41, 71])) == [39, 41, 71]
        with pytest.raises(VideoDecodeError, match="1 of 3 frames could be decoded"):
            video.read([39, 40, 41])


# Reads the same files repeatedly; prints the resident memory after a third of the reads and at the end.
_READ_OFTEN = """
import sys
from pathlib import Path
from dnl_video.data.decoding import VideoDecodeError, open_video

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

count, paths = int(sys.argv[1]), sys.argv[2:]
for i in range(count):
    try:
        with open_video(paths[i % len(paths)]) as video:
            video.read([i % video.num_frames, video.num_frames - 1])
    except VideoDecodeError:
        pass
    if i == count // 3:
        before = held()
print(before, held())
"""


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of memory")
def test_memory_stays_flat(tmp_path_factory, full_size):
    paths = [write(kind, tmp_path_factory.mktemp("good")) for kind in ("closed.mp4", "cut.mp4", "hevc.mp4", "h264.ts")]
    broken = tmp_path_factory.mktemp("broken") / "a.mp4"
    broken.write_bytes(paths[0].read_bytes()[:9000])
    done = run_python(_READ_OFTEN, 1000 if full_size else 150, *paths, broken)
    before, after = map(int, done.stdout.split())
    assert after - before < 8e6
