"""Every format gives the frames that decoding from its start gives, with each decoder."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dnl_video.data import readers
from dnl_video.data.decoding import open_video
from dnl_video.data.encoding import write_video
from dnl_video.data.probing import probe_video
from dnl_video.spec import Preprocessing
from tests.data.odd_videos import FAST, encode, from_the_start, numbers, run_python, write

# Why decord does not read a file ("": it does), and the kinds of files. From measurements of decord 0.6.0.
_KINDS = {
    "": "closed.mp4 closed.mkv long.mp4 varying.mp4 varying.mkv late.mp4 vp8.webm vp9.webm",
    "an edit list cuts frames off": "cut.mp4 cut_long.mp4 open_tail.mp4",
    "open groups of pictures": "open.mp4 open.mkv refresh_b.mp4",
    "key frames that do not restart the decoder": "refresh.mp4",
    "codec hevc is not one of h264, vp8, vp9": "hevc.mp4 hevc_closed.mkv hevc_tail.mp4",
    "codec av1 is not one of h264, vp8, vp9": "av1.mp4",
    "container avi is not one of mp4/mov, mkv/webm": "mpeg4.avi h264.avi",
    "container mpeg is not one of mp4/mov, mkv/webm": "mpeg2.mpg",
    "container asf is not one of mp4/mov, mkv/webm": "wmv2.wmv",
    "container mpegts is not one of mp4/mov, mkv/webm": "h264.ts open.ts",
    "container flv is not one of mp4/mov, mkv/webm": "h264.flv",
}
REASONS = {kind: reason for reason, kinds in _KINDS.items() for kind in kinds.split()}
# Painted frame numbers of each format; the default is 0 to 71.
SHOWN = {"cut.mp4": range(15, 72), "cut_long.mp4": range(150, 180)}


@pytest.fixture(scope="module", params=list(REASONS))
def odd(request, tmp_path_factory) -> tuple[str, Path, list[np.ndarray]]:
    """The kind, the file, and its frames decoded from the start."""
    path = write(request.param, tmp_path_factory.mktemp("odd"))
    return request.param, path, from_the_start(path)


def test_probe_tells_whether_decord_is_exact(odd):
    kind, path, truth = odd
    probe = probe_video(path)
    assert probe.reason.startswith(REASONS[kind])
    assert probe.exact is (REASONS[kind] == "")
    assert probe.frames in (len(truth), None)
    assert (probe.packets.width, probe.packets.height) == (96, 64)


@pytest.mark.parametrize("decoder", ["decord", "av", "auto"])
def test_each_decoder_returns_the_right_frames(odd, decoder):
    kind, path, truth = odd
    shown = numbers(truth)
    if "tail" not in kind:  # decoders treat a missing beginning differently
        assert shown == list(SHOWN.get(kind, range(72)))
    rng = np.random.default_rng(0)
    asked = [range(len(truth)), [0], [len(truth) - 1], *([int(i)] for i in rng.integers(0, len(truth), 12))]
    asked += [np.sort(rng.integers(0, len(truth), 6)) for _ in range(3)]
    with open_video(path, decoder=decoder) as video:
        assert video.num_frames == len(truth)
        assert video.fps == 30 or kind not in ("closed.mp4", "cut.mp4")
        for indices in asked:
            frames = video.read(indices)
            assert numbers(frames) == [shown[i] for i in indices]
            if decoder == "av":
                assert np.array_equal(frames, [truth[i] for i in indices])


def test_times_are_those_of_the_decoded_frames(odd):
    """`known` makes decord tell the times where it reads the file."""
    kind, path, _ = odd
    with av.open(str(path)) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    constant = kind == "h264.avi"  # its B-frames have wrong times
    for options in ({"decoder": "decord"}, {"decoder": "av"}, {"known": probe_video(path).decoder}):
        with open_video(path, **options) as video:
            expected = np.arange(video.num_frames) / video.fps if constant else np.array(shown) - shown[0]
            np.testing.assert_allclose(video.times_s[:-1], expected, atol=1e-6)
            assert 0 < np.diff(video.times_s)[-1] < 2 / 30
            if kind in ("closed.mp4", "cut.mp4", "late.mp4"):
                np.testing.assert_allclose(video.times_s, np.arange(video.num_frames + 1) / video.fps, atol=1e-6)


def test_pyslowfast_gets_what_its_decoder_finds_in_the_file(odd):
    kind, path, _ = odd
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        header = (
            Fraction(stream.time_base.numerator, stream.time_base.denominator),
            float((stream.duration or 0) * stream.time_base),
            float(stream.guessed_rate),
        )
        pts = [frame.pts for frame in container.decode(stream)]
    with open_video(path) as video:
        clock = video.clock(Preprocessing(sampling="pyslowfast"))
        assert video.clock(Preprocessing()) is None
    if kind == "h264.avi":
        assert clock is None
        return
    assert clock.pts.tolist() == pts
    assert (clock.time_base, clock.length_s, clock.guessed_fps) == pytest.approx(header)
    assert bool(clock.length_s) is (Path(kind).suffix not in (".mkv", ".webm", ".flv"))


@pytest.mark.parametrize("decoder", ["decord", "av"])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_flags_turn_the_picture(tmp_path, rotation, decoder):
    upright = encode(tmp_path / "a.mp4", frames=3)
    try:
        turned = encode(tmp_path / "b.mp4", frames=3, rotation=rotation)
    except AttributeError:
        pytest.skip("this PyAV writes no rotation")
    with open_video(upright, decoder="av") as video:
        expected = np.rot90(video.read([0, 2]), rotation // 90, axes=(1, 2)).astype(int)
    with open_video(turned, decoder=decoder) as video:
        frames = video.read([0, 2])
    assert frames.shape == expected.shape
    assert np.abs(frames - expected).mean() < 3


@pytest.mark.parametrize("known", [None, "decord", "av"])
def test_an_edit_list_that_makes_decord_hang(tmp_path, known):
    """decord 0.6.0 spins forever in the last frame of a file whose edit list drops over 128 frames of one group."""
    path = write("cut_long.mp4", tmp_path)
    code = (
        "import sys\nfrom dnl_video.data.decoding import open_video\nfrom tests.data.odd_videos import numbers\n"
        f"with open_video(sys.argv[1], known={known!r}) as video:\n"
        "    print(video.num_frames, numbers(video.read([0, 13, 29])))"
    )
    done = run_python(code, path)
    assert done.stdout == "30 [150, 163, 179]\n", done.stderr


@pytest.mark.parametrize("decoder", ["decord", "av", "auto"])
@pytest.mark.parametrize("width", [16, 20, 24, 30, 48, 72, 80])
def test_narrow_videos(tmp_path, width, decoder):
    """Of these, decord returns 4 to 6 channels, or an error, for 16, 24, 48 and 72."""
    values = np.arange(0, 240, 40, dtype=np.uint8)
    frames = np.broadcast_to(values[:, None, None, None], (6, 32, width, 3))
    write_video(tmp_path / "a.mp4", frames, 10, crf=1, options=FAST)
    with open_video(tmp_path / "a.mp4", decoder=decoder) as video:
        read = video.read([5, 0, 2])
    assert read.shape == (3, 32, width, 3)
    assert read.mean(axis=(1, 2, 3)) == pytest.approx([200, 0, 80], abs=2)


def test_fractional_indices_are_refused(tmp_path):
    """decord's get_batch([0.5]) is accepted."""
    path = encode(tmp_path / "a.mp4", frames=3)
    with open_video(path) as video, pytest.raises(ValueError, match=r"give a list of indices in \[0, 3\)$"):
        video.read([0.5])


def test_the_reader_seeks_over_long_gaps(tmp_path, monkeypatch):
    """The reader recognises the packet after a seek; if it cannot, it decodes from the start."""
    path = encode(tmp_path / "a.mp4", "libx264", {**FAST, "g": "12"}, 200)
    monkeypatch.setattr(readers, "_SEEK_GAP", 30)
    asked = [0, 100, 101, 199]
    with open_video(path, decoder="av") as video:
        monkeypatch.setattr(readers.AVReader, "_decode_all", None)
        assert numbers(video.read(asked)) == asked
        assert numbers(video.read([150])) == [150]
        monkeypatch.undo()
        monkeypatch.setattr(readers, "_SEEK_GAP", 30)
        monkeypatch.setattr(readers._PacketSource, "_seek", lambda self, number: setattr(self, "_demux", iter(())))
        assert numbers(video.read(asked)) == asked
