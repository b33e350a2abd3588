from __future__ import annotations

import pickle
from pathlib import Path

import av
import numpy as np
import pytest

from dnl_video.data import decoding
from dnl_video.data.decoding import VideoDecodeError, open_video
from dnl_video.data.encoding import write_video
from dnl_video.data.probing import one_line
from dnl_video.data.readers import CHUNK, DecordReader
from dnl_video.data.transforms import resize_short_side
from dnl_video.spec import Preprocessing
from tests.data.odd_videos import FAST, encode, run_python

B_FRAMES = {"threads": "1", "bf": "3", "b-adapt": "0", "sc_threshold": "0"}


def painted(num_frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Return frames [T, H, W, 3], frame i grey with value 7 i mod 256."""
    values = (7 * np.arange(num_frames) % 256).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (num_frames, height, width, 3))


def paint(frames: np.ndarray) -> list[float]:
    """Return the grey value of each frame, which must be flat."""
    flat = frames.reshape(len(frames), -1).astype(float)
    assert flat.std(axis=1).max() < 1
    return flat.mean(axis=1).tolist()


@pytest.fixture(scope="module", params=["gop12", "gop250_bframes", "mkv", "rgb"])
def video(request, tmp_path_factory) -> tuple[Path, int, float]:
    """A painted video: its path, its number of frames, and the tolerance of a colour."""
    folder = tmp_path_factory.mktemp("painted")
    if request.param == "gop12":
        # Up to 72 frames, neighbouring colours differ by 3 or more, and yuv420p keeps them to 1.
        write_video(folder / "a.mp4", painted(72), 30, crf=1, gop=12, options={"threads": "1", "bf": "2"})
        return folder / "a.mp4", 72, 1.01
    if request.param == "gop250_bframes":
        write_video(folder / "b.mp4", painted(72), 30000 / 1001, crf=1, gop=250, options=B_FRAMES)
        return folder / "b.mp4", 72, 1.01
    if request.param == "mkv":
        write_video(folder / "c.mkv", painted(72), 25, crf=1, gop=20, options=FAST)
        return folder / "c.mkv", 72, 1.01
    # Lossless RGB tells all 256 values apart.
    lossless = {"crf": "0", "g": "100", "flags": "+cgop", **FAST}
    return encode(folder / "d.mp4", "libx264rgb", lossless, painted(256), pix_fmt="rgb24"), 256, 0.01


@pytest.mark.parametrize("reader", ["decord", "av"])
@pytest.mark.parametrize("asked", ["all", "one", "last", "unordered", "random"])
def test_read_returns_exactly_the_given_frames(video, reader, asked):
    path, n, tolerance = video
    indices = {
        "all": range(n),
        "one": [31],
        "last": [n - 1],
        "unordered": [n - 1, 0, 5, 5, 40, 1, n - 1, 33, 0],
        "random": np.random.default_rng(0).integers(0, n, 50),
    }[asked]
    with open_video(path, decoder=reader) as opened:
        assert opened.num_frames == n
        frames = opened.read(indices)
    assert frames.shape == (len(indices), 48, 64, 3)
    assert frames.dtype == np.uint8
    assert paint(frames) == pytest.approx([7 * i % 256 for i in indices], abs=tolerance)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("asked", [slice(None), slice(5, None, 3), slice(40, 41), slice(-1, None)])
def test_stream_returns_the_same_frames_as_read(video, asked, threads):
    path, n, tolerance = video
    indices = np.arange(n)[asked]
    with open_video(path) as opened:
        chunks = list(opened.stream(indices, threads=threads))
    assert all(len(chunk) == CHUNK for chunk in chunks[:-1])
    assert 0 < len(chunks[-1]) <= CHUNK
    assert paint(np.concatenate(chunks)) == pytest.approx([7 * i % 256 for i in indices], abs=tolerance)


def test_stream_resizes_and_refuses_unordered_indices(video):
    path, n, _ = video
    with open_video(path) as opened:
        small = list(opened.stream([0, 1], resize=lambda frames: frames[:, ::2, ::2]))
        assert small[0].shape == (2, 24, 32, 3)
        for indices in ([3, 2], [2, 2]):
            with pytest.raises(ValueError, match="are not in increasing order; give each frame once"):
                next(opened.stream(indices))
        with pytest.raises(ValueError, match=rf"give a list of indices in \[0, {n}\)"):
            next(opened.stream([n]))


def test_the_b_frame_video_has_b_frames(tmp_path):
    write_video(tmp_path / "b.mp4", painted(40), 30, crf=1, gop=250, options=B_FRAMES)
    with av.open(str(tmp_path / "b.mp4")) as container:
        kinds = [int(frame.pict_type) for frame in container.decode(video=0)]
    assert kinds.count(1) == 1  # AV_PICTURE_TYPE_I
    assert kinds.count(3) > 10  # AV_PICTURE_TYPE_B


def test_size_and_rate(tmp_path):
    write_video(tmp_path / "a.mp4", painted(3, height=36, width=50), 12.5, options=FAST)
    with open_video(tmp_path / "a.mp4") as video:
        assert (video.path, video.num_frames, video.fps) == (str(tmp_path / "a.mp4"), 3, 12.5)
        assert video.size == (36, 50)


@pytest.mark.parametrize("reader", ["decord", "av"])
def test_resize_is_applied_to_chunks_of_distinct_frames(video, reader):
    path, _, tolerance = video
    sizes = []

    def halve(frames: np.ndarray) -> np.ndarray:
        sizes.append(len(frames))
        return resize_short_side(frames, Preprocessing(short_side=24, crop_size=24))

    indices = [*range(69, -1, -1), 3, 3]
    with open_video(path, decoder=reader) as opened:
        frames = opened.read(indices, resize=halve)
    assert sizes == [32, 32, 6]
    assert frames.shape == (72, 24, 32, 3)
    assert paint(frames) == pytest.approx([7 * i % 256 for i in indices], abs=tolerance)


def test_out_of_range_and_closed(video):
    path, n, _ = video
    opened = open_video(path)
    for indices in ([], [n], [-1], [[0, 1]]):
        with pytest.raises(ValueError, match=rf"; give a list of indices in \[0, {n}\)$"):
            opened.read(indices)
    opened.close()
    opened.close()
    with pytest.raises(ValueError, match=r"is closed; read inside the `with` block$"):
        opened.read([0])


def test_files_that_cannot_be_opened(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    (tmp_path / "folder.mp4").mkdir()
    write_video(tmp_path / "whole.mp4", painted(30), 30, options=FAST)
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "header.mp4").write_bytes(content[:200])
    for name, reason in [
        ("absent.mp4", "file not found"),
        ("empty.mp4", "file is empty"),
        ("folder.mp4", "the folder holds no numbered images such as img_00001.jpg (.jpg .jpeg .png .webp .bmp)"),
        ("text.mp4", "cannot be opened (not a video: begins with not a video)"),
        ("header.mp4", "cannot be opened (cut off in the moov atom)"),
    ]:
        with pytest.raises(VideoDecodeError) as caught:
            open_video(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {reason}")
        assert "\n" not in str(caught.value)


def write_damaged(folder: Path) -> None:
    """Write half.mp4, which is cut off, and spoilt.mp4, which is overwritten in its middle."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
    write_video(folder / "a.mp4", noise, 30, options=FAST)
    content = (folder / "a.mp4").read_bytes()
    middle = len(content) // 2
    (folder / "half.mp4").write_bytes(content[:middle])
    (folder / "spoilt.mp4").write_bytes(content[:middle] + b"\xff" * 20000 + content[middle + 20000 :])


def test_truncated_and_overwritten_files(tmp_path):
    write_damaged(tmp_path)
    for name in ("half.mp4", "spoilt.mp4"):
        with pytest.raises(VideoDecodeError, match=r"cannot be (opened|decoded)"), open_video(tmp_path / name) as video:
            video.read(range(video.num_frames))


def test_audio_only_file(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoDecodeError, match=r"cannot be opened \(no video stream\)$"):
        open_video(tmp_path / "sound.mp4")


class FakeReader:
    """A decoding library that returns wrong results."""

    num_frames = 4
    fps = 30.0

    def __init__(self, *chunks: np.ndarray) -> None:
        self.given = chunks

    def chunks(self, indices):
        yield from self.given

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([np.zeros((3, 4, 6, 3), np.uint8)], "3 of 4 frames could be decoded"),
        ([], "0 of 4 frames could be decoded"),
        ([np.zeros((4, 4, 6, 4), np.uint8)], "frames are uint8 [4, 4, 6, 4], not uint8 RGB"),
        ([np.zeros((4, 4, 6, 3), np.float32)], "frames are float32 [4, 4, 6, 3], not uint8 RGB"),
        ([np.zeros((2, 4, width, 3), np.uint8) for width in (6, 8)], "the frame size changes from (4, 6) to (4, 8)"),
    ],
)
def test_wrong_results_of_a_library_are_errors(chunks, reason):
    with pytest.raises(VideoDecodeError) as caught:
        decoding.Video("a.mp4", FakeReader(*chunks)).read(range(4))
    assert str(caught.value) == f"a.mp4: {reason}"


@pytest.mark.parametrize(("num_frames", "fps"), [(0, 30.0), (4, 0.0), (4, float("nan"))])
def test_a_file_without_frames_or_rate(tmp_path, monkeypatch, num_frames, fps):
    class Empty(FakeReader):
        def __init__(self, *_) -> None:
            self.num_frames, self.fps = num_frames, fps

    (tmp_path / "a.mp4").write_bytes(b"something")
    monkeypatch.setattr(decoding, "_open_reader", Empty)
    with pytest.raises(VideoDecodeError, match=rf"a\.mp4: {num_frames} frames at {fps:g} frames per second$"):
        open_video(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("starts", "exact"),
    [
        ([0.0, 0.1, 0.2], True),
        ([0.3, 0.4, 0.7], True),
        ([-0.1, 0.0, 0.1], False),
        ([0.0, 0.2, 0.1], False),
        ([0.0, 0.1, 0.1], False),
        ([0.0, 0.1, float("nan")], False),
    ],
)
def test_which_timestamps_are_trusted(starts, exact):
    class Timestamps:
        def get_frame_timestamp(self, indices):
            assert list(indices) == [0, 1, 2]
            return np.stack([starts, np.add(starts, 0.1)], axis=1)

    reader = object.__new__(DecordReader)
    reader._reader, reader.num_frames = Timestamps(), 3
    assert reader.has_exact_timestamps() is exact


def test_the_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(VideoDecodeError("a b.mp4", "file is empty")))
    assert (error.path, error.reason, str(error)) == ("a b.mp4", "file is empty", "a b.mp4: file is empty")
    assert str(VideoDecodeError("one message")) == "one message"


def test_one_line_drops_clock_times_and_source_lines():
    message = "[15:45:28] /github/workspace/src/a.cc:292: [15:45:28] /src/b.cc:218: Check failed: x >= 0\nmore"
    assert one_line(RuntimeError(message)) == "Check failed: x >= 0 more"
    assert one_line(MemoryError()) == "MemoryError"


def test_broken_files_print_nothing(tmp_path):
    write_damaged(tmp_path)
    code = """
        import sys
        from dnl_video.data.decoding import open_video, VideoDecodeError
        try:
            video = open_video(sys.argv[1])
            video.read(range(video.num_frames))
        except VideoDecodeError:
            print("caught")
    """
    done = run_python(code, tmp_path / "half.mp4")
    assert (done.stdout, done.stderr) == ("caught\n", "")


@pytest.mark.parametrize(
    ("name", "num_frames", "fps", "size"),
    [
        ("arm_wrestling.mp4", 280, 28.0, (256, 340)),
        ("flipping_pancake.mkv", 310, 30.0, (240, 426)),
        ("rotated_90.mov", 3, 30.0, (568, 320)),
        ("unordered.mov", 4, 32.0, (50, 50)),
    ],
)
@pytest.mark.parametrize("reader", ["decord", "av"])
def test_real_videos(shared_clips, name, num_frames, fps, size, reader):
    with open_video(shared_clips / name, decoder=reader) as video:
        assert (video.num_frames, video.fps) == (num_frames, fps)
        assert video.size == size
        indices = [num_frames - 1, 0, num_frames // 2]
        frames = video.read(indices)
    with av.open(str(shared_clips / name)) as container:
        truth = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for frame, index in zip(frames, indices, strict=True):
        expected = truth[index].astype(int)
        if name == "rotated_90.mov":  # stored 568 wide, shown turned clockwise
            expected = np.rot90(expected, -1)
        assert np.abs(frame - expected).mean() < 2


def test_corrupted_real_video(shared_clips):
    with open_video(shared_clips / "corrupted.mp4") as video, pytest.raises(VideoDecodeError) as caught:
        video.read([0, 49])  # frame 30 is broken, and nothing after it can be reached without it
    assert str(caught.value).startswith(f"{shared_clips / 'corrupted.mp4'}: cannot be decoded (")


def test_a_forked_process_reads_after_its_parent_did(tmp_path):
    """PyAV 19 hangs when a forked process frees the scaler of its parent, which has several threads."""
    code = """
        import multiprocessing, sys
        import av
        from dnl_video.data.decoding import open_video

        def read():
            with open_video(sys.argv[1], decoder="av") as video:
                video.read([0, 1], resize=lambda frames: frames)

        with av.open(sys.argv[2]) as container:
            next(container.decode(video=0)).to_ndarray(format="rgb24")
        read()
        child = multiprocessing.get_context("fork").Process(target=read)
        child.start()
        child.join(60)
        print(child.exitcode)
        child.kill()
    """
    large = np.zeros((2, 480, 640, 3), np.uint8)  # small frames are converted by one thread
    done = run_python(code, encode(tmp_path / "a.mp4"), encode(tmp_path / "b.mp4", frames=large))
    assert done.stdout.split() == ["0"], done.stderr
