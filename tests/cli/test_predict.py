"""`dnl-video predict`: inputs, many videos, restarts, long videos."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from dnl_video.cli.main import main
from dnl_video.cli.screen import PredictionProgress
from dnl_video.data.decoding import open_video
from dnl_video.data.encoding import write_video
from dnl_video.errors import visible
from dnl_video.inference.predictor import Predictor
from dnl_video.models.weights.find import find_checkpoint
from dnl_video.results.reader import read_predictions
from tests.conftest import TinyRun
from tests.processes import CommandProcess

QUICK = ["--device", "cpu", "--num-clips", "1"]
CPU = ["--device", "cpu", "--num-workers", "0"]
SLIDING = [*CPU, "--sliding"]


def write_noise(path: Path, seed: int, num_frames: int = 8) -> None:
    frames = np.random.default_rng(seed).integers(0, 255, (num_frames, 32, 32, 3), dtype=np.uint8)
    write_video(path, frames, 8, options={"preset": "ultrafast", "threads": "1"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 videos of one second in two folders: four shards of 50."""
    folder = tmp_path_factory.mktemp("many")
    for i in range(200):
        write_noise(folder / f"part {i % 2}" / f"video {i:03d}.mp4", i)
    return folder


@pytest.fixture
def few(folder: Path, tmp_path: Path) -> Path:
    """A list of seven of them, in reverse order, and a missing one."""
    files = sorted(folder.rglob("*.mp4"))[13:20]
    names = [*map(str, files[::-1]), str(folder / "gone.mp4")]
    (tmp_path / "few.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return tmp_path / "few.txt"


def predict(tiny: TinyRun, *words: str | Path, options: list[str] | None = None) -> int:
    chosen = [*QUICK, "--num-workers", "0"] if options is None else options
    return main(["predict", "--checkpoint", str(tiny.run), *map(str, words), *chosen])


def default_folder(tiny: TinyRun, name: str) -> Path:
    return Path("predictions", f"run-{find_checkpoint(tiny.run).stem}", name)


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def recorded(output: Path) -> dict[str, tuple[int, bytes]]:
    """Return the modification time and content of each shard file."""
    files = [*output.glob("videos-*.jsonl"), *output.glob("scores-*.npz")]
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def finished(output: Path) -> list[str]:
    """Return the ids of all rows of the shards."""
    lines = [line for path in output.glob("videos-*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()]
    return [json.loads(line)["id"] for line in lines]


@pytest.mark.full
def test_a_run_killed_twice_repeats_no_finished_video(tiny, folder, tmp_path, full_size, capsys):
    files = sorted(folder.rglob("*.mp4"))
    output = tmp_path / "out"
    words = ["predict", str(folder), "--checkpoint", str(tiny.run), "--output", str(output), *QUICK]
    rng = np.random.default_rng(7)
    before: dict[str, tuple[int, bytes]] = {}
    for _ in range(2):
        # Kill it a few videos after it wrote a shard; its loader worker becomes an orphan, as after kill -9.
        had = len(finished(output))
        with CommandProcess([*words, "--num-workers", "1"], tmp_path / "printed", new_interpreter=full_size) as process:
            while len(finished(output)) == had:
                assert process.returncode() is None, process.stderr
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.1))
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert (f"{had} of 200 videos are already done" in process.stderr) == (had > 0)
        now = recorded(output)
        assert now.items() >= before.items(), "a recorded video was touched"
        assert had < len(finished(output)) < 200
        before = now
    had = len(finished(output))
    capsys.readouterr()
    assert main([*words, "--num-workers", "0"]) == 0
    printed = capsys.readouterr()
    assert f"{had} of 200 videos are already done" in printed.err
    assert recorded(output).items() >= before.items()
    assert sorted(finished(output)) == sorted(str(p.relative_to(folder)) for p in files)
    assert [path.name for path in output.iterdir() if path.suffix == ".tmp"] == []
    # The table is in the order of the folder and equals that of an uninterrupted run.
    rows = rows_of(output / "predictions.csv")
    assert [row[0] for row in rows[1:]] == list(map(str, files))
    assert [line.split("\t") for line in printed.out.splitlines()] == [
        [row[0], row[1], f"{float(row[2]):.4f}"] for row in rows[1:]
    ]
    table = read_predictions(output)
    sample = files[60:63]
    assert predict(tiny, *sample, "--output", tmp_path / "whole") == 0
    whole = read_predictions(tmp_path / "whole", order=[str(path) for path in sample])
    np.testing.assert_allclose(whole.scores, table.scores[60:63], atol=1e-6)


def test_two_processes_write_the_table_of_one(tiny, few, tmp_path, monkeypatch, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    assert predict(tiny, few, "--output", one) == 3
    capsys.readouterr()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, status in ((1, 0), (0, 3)):
        monkeypatch.setenv("RANK", str(rank))
        assert predict(tiny, few, "--output", two) == status
        printed, notes = capsys.readouterr()
        if rank == 1:
            assert printed == ""
            assert f"process 1 of 2 is done; others are still at work in {two}\n" in notes
            assert not (two / "predictions.csv").exists()
        else:
            assert len(printed.splitlines()) == 7
            assert f"wrote {two / 'predictions.csv'}" in notes
    assert (two / "predictions.csv").read_bytes() == (one / "predictions.csv").read_bytes()
    rows = rows_of(two / "predictions.csv")
    assert [row[0] for row in rows[1:]] == few.read_text(encoding="utf-8").splitlines()
    assert rows[-1][-1] == "file not found"
    # Restarted, both processes find everything done and merged.
    assert predict(tiny, few, "--output", two) == 0
    printed, notes = capsys.readouterr()
    assert printed == ""
    assert notes.endswith(f"process 0 of 2 is done; another one merged {two}\n")


def test_ctrl_c_keeps_finished_videos(tiny, few, tmp_path, monkeypatch, capsys):
    def interrupt(self: PredictionProgress, done: int, total: int, prediction: object) -> None:
        if done == 3:
            raise KeyboardInterrupt

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(PredictionProgress, "__call__", interrupt)
        assert predict(tiny, few, "--output", output) == 130
        captured = capsys.readouterr()
        assert captured.err == (
            f"dnl-video: interrupted; finished videos are kept in {output}; give the same command again to continue\n"
        )
        assert captured.out == ""
        assert predict(tiny, few) == 130
        assert capsys.readouterr().err == "dnl-video: interrupted; nothing is kept without --output\n"
    assert len(finished(output)) == 3
    assert {path.suffix for path in output.iterdir() if path.name != ".lock"} == {".json", ".jsonl", ".npz"}
    assert predict(tiny, few, "--output", output) == 3
    assert "3 of 8 videos are already done" in capsys.readouterr().err
    assert len(finished(output)) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.full
def test_a_real_ctrl_c(tiny, folder, tmp_path, full_size):
    words = ["predict", str(folder), "--checkpoint", str(tiny.run), "--output", str(tmp_path / "out"), *QUICK]
    with CommandProcess([*words, "--num-workers", "1"], tmp_path / "printed", new_interpreter=full_size) as process:
        while not finished(tmp_path / "out"):
            assert process.returncode() is None, process.stderr
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGINT)  # like a terminal: the loader workers also get it
        assert process.wait(60) == 130, process.stderr
    kept = f"finished videos are kept in {tmp_path / 'out'}; give the same command again to continue"
    assert process.stderr.splitlines() == [f"dnl-video: interrupted; {kept}"]
    assert process.stdout == ""


def test_many_videos_are_kept(tiny, few, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dnl_video.cli.predict.MANY_VIDEOS", 7)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")  # no name is wrapped, however long the path
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert predict(tiny, few, "--top", "2") == 3
    printed, notes = capsys.readouterr()
    folder = default_folder(tiny, "few")
    assert f"wrote {folder}/predictions.csv" in notes
    assert f"1 of 8 videos failed; --retry-failed tries them again: {folder}\n" in notes
    rows = rows_of(folder / "predictions.csv")
    assert rows[0] == ["video", "class_1", "score_1", "class_2", "score_2", "error"]
    # Even a terminal gets one line for each video, unless a table is wanted.
    assert printed == "".join(f"{row[0]}\t{row[1]}\t{float(row[2]):.4f}\n" for row in rows[1:-1])
    assert predict(tiny, few, "--top", "2", "--table") == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "failed: file not found" in printed
    for row in rows[1:-1]:
        assert f"{row[1]} {100 * float(row[2]):.1f}% {row[3]} {100 * float(row[4]):.1f}%" in printed


@pytest.fixture(scope="module")
def long_video(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four demo videos in a row: 8 s at 16 frames per second."""
    path = tmp_path_factory.mktemp("long") / "movie.mp4"
    files = tiny.files()[::2]

    def frames():
        for file in files:
            with open_video(file) as video:
                yield from video.read(range(video.num_frames))

    write_video(path, frames(), 16, options={"preset": "ultrafast", "threads": "1"})
    return path


def test_sliding_writes_segments_a_timeline_and_a_copy(tiny, long_video, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--hop-s", "0.5", "--annotate", "seen.mp4", "--top", "1"]
    assert predict(tiny, long_video, *words, options=SLIDING) == 0
    printed, notes = capsys.readouterr()
    output = default_folder(tiny, "movie")
    assert f"wrote {output}/segments.csv\nwrote {output}/segments.json\n" in notes
    assert f"wrote {output}/timelines/movie.png\nwrote seen.mp4\npredictions: {output}\n" in notes
    assert (output / "timelines" / "movie.png").stat().st_size > 10_000
    with open_video("seen.mp4") as video:
        assert video.num_frames == 128
    # Clips of 7 frames every 8 of 128; the last at frame 121.
    table = read_predictions(output)
    assert table.meta.hop_s == 0.5
    assert table.clip_start_s.tolist() == [*np.arange(16) / 2, 121 / 16]
    rows = rows_of(output / "segments.csv")
    # One line for the video, one for each segment.
    lines = [line.split("\t") for line in printed.splitlines()]
    assert [len(line) for line in lines] == [3, *[5] * (len(rows) - 1)]
    assert [[line[0], *line[3:], line[1]] for line in lines[1:]] == [row[:4] for row in rows[1:]]
    assert rows[0] == ["video", "start_s", "end_s", "class", "score"]
    assert {row[0] for row in rows[1:]} == {str(long_video)}
    assert (float(rows[1][1]), float(rows[-1][2])) == (0, 8)
    assert [row[2] for row in rows[1:-1]] == [row[1] for row in rows[2:]]
    document = json.loads((output / "segments.json").read_text(encoding="utf-8"))
    assert (document["schema_version"], document["hop_s"]) == (1, 0.5)
    (video_entry,) = document["videos"]
    assert video_entry["path"] == str(long_video)
    as_rows = [[f"{s['start_s']:.3f}", f"{s['end_s']:.3f}", s["class"]] for s in video_entry["segments"]]
    assert as_rows == [row[1:4] for row in rows[1:]]
    # Again with another hop: the folder holds another run.
    assert predict(tiny, long_video, "--hop-s", "2", options=SLIDING) == 2
    assert "hop_s (0.5 there, 2.0 now)" in capsys.readouterr().err


def test_sliding_over_several_videos_in_order(tiny, few, tmp_path, capsys):
    output = tmp_path / "out"
    assert predict(tiny, few, "--output", output, "--plot-format", "svg", "--per-clip", options=SLIDING) == 3
    assert f"wrote 7 timelines in {output / 'timelines'}\n" in capsys.readouterr().err
    names = few.read_text(encoding="utf-8").splitlines()
    rows = rows_of(output / "segments.csv")
    assert list(dict.fromkeys(row[0] for row in rows[1:])) == names[:-1]
    assert len(list((output / "timelines").glob("video *.svg"))) == 7
    document = json.loads((output / "segments.json").read_text(encoding="utf-8"))
    assert [video["path"] for video in document["videos"]] == names
    assert document["videos"][-1]["segments"] == []


def test_lines_and_json_hold_one_video_each_whatever_its_name(tiny, tmp_path, capsys):
    names = ["a b.mp4", "c\td\ne.mp4", "f\x1b[31m\\.mp4", "caf\udce9 \u202e走.mp4", f"{'long' * 50}.mp4", "broken.mp4"]
    folder = tmp_path / "in"
    for name in names[:-1]:
        write_noise(folder / name, 1)
    (folder / "broken.mp4").write_bytes(b"")
    paths = sorted(map(str, (folder / name for name in names)))
    assert predict(tiny, folder, "--quiet") == 3
    lines, errors = capsys.readouterr()
    assert errors == f"failed: {folder / 'broken.mp4'}: file is empty\n"
    assert not re.search(r"[^\t\n -~走]", lines)
    assert {line.count("\t") for line in lines.splitlines()} == {2}
    shown = [visible(path).replace("\t", "\\t").replace("\n", "\\n") for path in paths if "broken" not in path]
    assert [line.split("\t")[0] for line in lines.splitlines()] == shown
    assert predict(tiny, folder, "--json", "--per-clip") == 3
    text, errors = capsys.readouterr()
    assert errors == f"failed: {folder / 'broken.mp4'}: file is empty\n"
    assert not re.search(r"[^\n -~走]", text)
    found = {one.pop("path"): one for one in map(json.loads, text.splitlines())}
    assert list(found) == paths
    assert found.pop(str(folder / "broken.mp4")) == {"error": "file is empty"}
    for path, line in zip(found, lines.splitlines(), strict=True):
        assert [found[path]["class"], f"{found[path]['score']:.4f}"] == line.split("\t")[1:]
        (clip,) = found[path]["clips"]
        assert clip == {"start_s": 0, "end_s": 0.875, "class": found[path]["class"], "score": clip["score"]}
        assert clip["score"] == pytest.approx(max(found[path]["scores"]), rel=1e-6)


def test_json_holds_the_dictionary_of_python(tiny, capsys):
    files = tiny.files()[:3]
    assert predict(tiny, *files, "--json", options=[*CPU, "--num-clips", "3"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    predictor = Predictor.from_checkpoint(tiny.run, num_clips=3, device="cpu")
    for file, line in zip(files, found, strict=True):
        expected = {"path": str(file), **json.loads(json.dumps(predictor.predict(file).to_dict()))}
        assert line.keys() == expected.keys()
        assert [line[key] for key in ("path", "class", "class_names", "clip_start_s")] == [
            expected[key] for key in ("path", "class", "class_names", "clip_start_s")
        ]
        np.testing.assert_allclose(line["clip_scores"], expected["clip_scores"], atol=1e-6)
    assert predict(tiny, files[0], "--json", "--no-clip-scores") == 0
    assert "clip_scores" not in json.loads(capsys.readouterr().out)


def test_table_and_json_exclude_each_other(tiny, capsys):
    assert predict(tiny, tiny.files()[0], "--json", "--table") == 2
    assert "argument --table: not allowed with argument --json" in capsys.readouterr().err


def test_timelines_of_files_with_one_name_get_different_names(tiny, tmp_path):
    for name in ("a", "b"):
        write_noise(tmp_path / "in" / name / "x.mp4", 1)
    assert predict(tiny, tmp_path / "in", "--output", tmp_path / "out", options=SLIDING) == 0
    assert sorted(path.name for path in (tmp_path / "out" / "timelines").iterdir()) == ["x-2.png", "x.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hop-s", "1"], "--hop-s is for sliding clips; add --sliding"),
        (["--annotate", "a.mp4"], "--annotate is for sliding clips; add --sliding"),
        (["--sliding", "--hop-s", "0"], "--hop-s is 0; give seconds above 0"),
        (["--sliding", "--hop-s", "nan"], "--hop-s is nan; give seconds above 0"),
        (
            ["--sliding", "--num-clips", "3"],
            "--num-clips is for short videos; with --sliding give --hop-s",
        ),
        (
            ["--sliding", "--no-clip-scores"],
            "--sliding needs clip scores; drop --no-clip-scores or --sliding",
        ),
        (["--per-clip", "--no-clip-scores"], "--per-clip needs clip scores; drop --no-clip-scores or --per-clip"),
        (["--sliding", "--annotate", "a.txt"], "a.txt: cannot write suffix '.txt'; allowed: .mp4"),
        (["--top", "0"], "--top is 0; give at least 1"),
    ],
)
def test_options_that_exclude_each_other(words, message, tiny, long_video, capsys):
    assert predict(tiny, long_video, *words, options=[]) == 2
    assert message in capsys.readouterr().err


def test_annotate_takes_one_video_and_does_not_overwrite_it(tiny, few, long_video, capsys):
    assert predict(tiny, few, "--annotate", "a.mp4", options=SLIDING) == 2
    assert "--annotate writes one video, and 8 were given; give one" in capsys.readouterr().err
    assert predict(tiny, long_video, "--annotate", long_video, options=SLIDING) == 2
    assert f"--annotate {long_video} is the video itself; give another name" in capsys.readouterr().err


def test_the_best_classes_of_video_and_clips_are_shown(tiny, capsys):
    assert predict(tiny, tiny.files()[0], "--top", "2", "--per-clip", "--table", options=CPU) == 0
    printed = capsys.readouterr().out
    assert "%" in printed
    assert "0.00" in printed, "the first clip starts at second 0"
    assert "2.00" in printed, "the last clip ends at second 2"


def test_folders_and_lists_are_read_and_scores_are_kept(tiny, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("\n".join(map(str, tiny.files())), encoding="utf-8")
    for source, output in ((tiny.folder / "videos" / "val", "a"), (tmp_path / "list.txt", "b")):
        assert predict(tiny, source, "--output", tmp_path / output) == 0
        assert f"predictions: {tmp_path / output}\n" in capsys.readouterr().err
        assert len(read_predictions(tmp_path / output).path) == 8
    assert main(["report", str(tmp_path / "a")]) == 2
    assert "label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"), [(["nowhere.mp4"], "nowhere.mp4"), ([], "arguments are required: VIDEO|DIR|LIST")]
)
def test_videos_that_exist_are_required(words, message, tiny, capsys):
    assert predict(tiny, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda _: b"hello",
            r"not a file of weights \(it starts with b'hello'\); give a torch, safetensors or caffe2 file",
        ),
        (lambda content: content[:-2000], r"not a readable checkpoint \(File is not a zip file\); is it complete\?"),
        # torch.load would take one flipped bit of a weight.
        (flip_a_bit, r"damaged \(\S+/data/\d+ does not match its checksum\); copy it again, or take another one"),
    ],
)
def test_damaged_checkpoints_are_refused(damage, message, tiny, tmp_path, capsys):
    file = tmp_path / "damaged.ckpt"
    file.write_bytes(damage(find_checkpoint(tiny.run).read_bytes()))
    assert predict(tiny, tiny.files()[0], "--checkpoint", file) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"{file}: {message}$", line)


def test_real_kinetics_videos_through_the_command_line(tiny, tmp_path, shared_clips):
    """Checks shapes, times and the report of the corrupt file; the network is untrained, so not the class."""
    options = ["--per-clip", "--device", "cpu", "--num-workers", "1"]
    assert predict(tiny, shared_clips, "--output", tmp_path / "out", options=options) == 3
    predictions = read_predictions(tmp_path / "out")
    errors = {Path(path).name: error for path, error in zip(predictions.path, predictions.error, strict=True)}
    assert errors.pop("corrupted.mp4")
    assert errors == dict.fromkeys(["arm_wrestling.mp4", "flipping_pancake.mkv", "rotated_90.mov", "unordered.mov"])
    assert predictions.scores.shape == (5, 8)
    arm = [Path(p).name for p in predictions.path].index("arm_wrestling.mp4")
    clips = predictions.clip_video == arm
    assert clips.sum() == 10
    # The clips reach the end of the video, which lasts about ten seconds.
    assert 9 < predictions.clip_end_s[clips].max() < 11
