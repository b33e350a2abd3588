import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import resource
import signal
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dnl_video import files
from dnl_video.errors import InputError
from dnl_video.files import atomic_path
from dnl_video.results import writer
from dnl_video.results.predictions import VideoPrediction, read_meta
from dnl_video.results.reader import finished_ids, iter_predictions, read_predictions
from dnl_video.results.writer import PredictionsWriter
from tests.report import directories

NAMES = ["run", "jump", "sit"]


def make_meta(**changes):
    values = {"num_videos": 100, "class_names": NAMES, "num_clips": 2, "labelled": False}
    return directories.make_meta(**{**values, **changes})


def make_video(i, num_clips=2, **changes):
    """A video whose numbers are functions of i."""
    clips = (np.arange(num_clips * 3).reshape(num_clips, 3) + i).astype(np.float32)
    values = {
        "video_id": f"v{i:03d}",
        "path": f"dir with space/v{i:03d}.mp4",
        "label": i % 3,
        "num_views": 6,
        "scores": clips.mean(axis=0),
        "clip_start_s": np.arange(num_clips) + i / 10,
        "clip_end_s": np.arange(num_clips) + i / 10 + 2,
        "clip_scores": clips,
    }
    return VideoPrediction(**{**values, **changes})


def failed(i, error="no frames"):
    return VideoPrediction(f"v{i:03d}", f"v{i:03d}.mp4", i % 3, error=error)


def write(directory, videos, **options):
    directories.write(directory, videos, options.pop("meta", make_meta()), **options)


def assert_table_of(table, numbers):
    videos = [make_video(i) for i in numbers]
    assert table.video_id == [video.video_id for video in videos]
    assert table.path == [video.path for video in videos]
    np.testing.assert_array_equal(table.label, [video.label for video in videos])
    np.testing.assert_array_equal(table.scores, [video.scores for video in videos])
    np.testing.assert_array_equal(table.clip_video, np.repeat(np.arange(len(videos)), 2))
    for name in ("clip_scores", "clip_start_s", "clip_end_s"):
        expected = np.concatenate([getattr(video, name) for video in videos])
        np.testing.assert_array_equal(getattr(table, name), expected)


def refusal(call, *args):
    """Return the message of the InputError that a call raises; it has one line."""
    with pytest.raises(InputError) as info:
        call(*args)
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.mark.parametrize(("ranks", "flush_every"), [(1, 50), (1, 1), (3, 2), (5, 4)])
def test_the_table_does_not_depend_on_the_shards(tmp_path, ranks, flush_every):
    numbers = np.random.default_rng(0).permutation(23)
    for rank in range(ranks):
        write(tmp_path, [make_video(i) for i in numbers[rank::ranks]], rank=rank, flush_every=flush_every)
    assert_table_of(read_predictions(tmp_path), range(23))
    assert_table_of(read_predictions(tmp_path, order=[f"v{i:03d}" for i in (*numbers, 99)]), list(numbers))
    assert finished_ids(tmp_path) == {f"v{i:03d}" for i in range(23)}


def test_files_have_the_documented_layout(tmp_path):
    write(tmp_path, [failed(1), make_video(7)], rank=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".lock",
        "meta.json",
        "scores-0002-000000.npz",
        "videos-0002-000000.jsonl",
    ]
    rows = [json.loads(line) for line in (tmp_path / "videos-0002-000000.jsonl").read_text().splitlines()]
    assert rows == [
        {"id": "v001", "path": "v001.mp4", "label": 1, "num_views": 0, "row": None, "error": "no frames"},
        {
            "id": "v007",
            "path": "dir with space/v007.mp4",
            "label": 1,
            "num_views": 6,
            "row": 0,
            "top5": [[2, "sit", 10.5], [1, "jump", 9.5], [0, "run", 8.5]],
        },
    ]
    with np.load(tmp_path / "scores-0002-000000.npz", allow_pickle=False) as npz:
        assert {k: (npz[k].shape, npz[k].dtype.name) for k in npz.files} == {
            "scores": ((1, 3), "float32"),
            "clip_video": ((2,), "int64"),
            "clip_start_s": ((2,), "float64"),
            "clip_end_s": ((2,), "float64"),
            "clip_scores": ((2, 3), "float32"),
        }


def test_rows_name_the_five_best_classes(tmp_path):
    meta = make_meta(class_names=list("abcdefg"))
    video = VideoPrediction("v", "v.mp4", scores=np.array([0.1, 0.3, 0.05, 0.25, 0.1, 0.2, 0.0]), num_views=1)
    write(tmp_path, [video], meta=meta)
    (row,) = (json.loads(line) for line in next(tmp_path.glob("*.jsonl")).read_text().splitlines())
    assert row["top5"] == [[1, "b", 0.3], [3, "d", 0.25], [5, "f", 0.2], [0, "a", 0.1], [4, "e", 0.1]]


def test_failed_videos_have_nan_scores_and_their_error(tmp_path):
    write(tmp_path, [make_video(0), failed(1), make_video(2, label=None)])
    table = read_predictions(tmp_path)
    assert table.error == [None, "no frames", None]
    assert table.evaluated.tolist() == [True, False, True]
    assert np.isnan(table.scores[1]).all()
    assert np.isfinite(table.scores[[0, 2]]).all()
    assert table.label.tolist() == [0, 1, -1]
    assert table.num_views.tolist() == [6, 0, 6]
    assert table.clip_video.tolist() == [0, 0, 2, 2]


def test_clips_are_optional_and_vary_in_number(tmp_path):
    write(tmp_path / "none", [make_video(0)], clip_scores=False)
    assert read_predictions(tmp_path / "none").clip_scores is None
    write(tmp_path / "vary", [make_video(0, num_clips=5), make_video(1, num_clips=1), failed(2)], flush_every=1)
    assert read_predictions(tmp_path / "vary").clip_video.tolist() == [0] * 5 + [1]
    assert read_predictions(tmp_path / "vary", clip_scores=False).clip_video is None
    write(tmp_path / "all failed", [failed(0)])
    table = read_predictions(tmp_path / "all failed")
    assert table.clip_scores is None
    assert table.scores.shape == (1, 3)


def test_features_are_a_column_of_the_clips(tmp_path):
    def video(i, **changes):
        return make_video(i, clip_features=np.full((2, 5), i, dtype=np.float32), **changes)

    meta = make_meta(clip_features=True)
    for rank, numbers in enumerate(([3, 1], [0, 2])):
        write(tmp_path / "a", map(video, numbers), meta=meta, rank=rank)
    table = read_predictions(tmp_path / "a")
    assert_table_of(table, range(4))
    np.testing.assert_array_equal(table.clip_features, np.repeat(np.arange(4), 2)[:, None] * np.ones(5))
    assert read_predictions(tmp_path / "a", clip_scores=False).clip_features is None
    write(tmp_path / "b", [video(0)], meta=meta, clip_scores=False)
    table = read_predictions(tmp_path / "b")
    assert (table.clip_scores, table.clip_features.shape, table.clip_end_s.shape) == (None, (2, 5), (2,))
    write(tmp_path / "c", [make_video(0)])
    assert read_predictions(tmp_path / "c").clip_features is None


def test_nan_scores_are_kept_and_the_json_is_valid(tmp_path):
    write(tmp_path, [make_video(0, scores=np.array([np.nan, 0.5, 0.25]))])
    (row,) = (json.loads(line) for line in next(tmp_path.glob("*.jsonl")).read_text().splitlines())
    assert row["top5"] == [[1, "jump", 0.5], [2, "sit", 0.25], [0, "run", None]]
    assert read_predictions(tmp_path).evaluated.tolist() == [True]


def test_names_that_are_not_unicode_are_kept(tmp_path):
    path = os.fsdecode(b"caf\xe9/\xff.mp4")
    write(tmp_path, [make_video(0, video_id="Ünïcode 走る", path=path)])
    table = read_predictions(tmp_path)
    assert (table.video_id, table.path) == (["Ünïcode 走る"], [path])


def test_a_restart_appends_new_shards(tmp_path):
    write(tmp_path, [make_video(0), make_video(1)], flush_every=1)
    write(tmp_path, [make_video(2)], meta=make_meta(versions={"dnl_video": "9"}, weights="moved.ckpt", run={"a": "b"}))
    assert_table_of(read_predictions(tmp_path), range(3))
    assert (tmp_path / "videos-0000-000002.jsonl").exists()
    assert read_meta(tmp_path).versions == {"dnl_video": "0.1.0"}  # of the first run


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_keeps_finished_videos(tmp_path, error):
    def videos():
        yield make_video(0)
        yield make_video(1)
        raise error

    with pytest.raises(error):
        write(tmp_path, videos())
    assert_table_of(read_predictions(tmp_path), range(2))


@pytest.mark.parametrize("calls", range(1, 5))
def test_ctrl_c_during_a_flush_neither_loses_nor_duplicates_videos(tmp_path, monkeypatch, calls):
    """The interrupt comes after the n-th file; then close() flushes again."""
    count = 0

    @contextlib.contextmanager
    def interrupted(path, **options):
        nonlocal count
        with atomic_path(path, **options) as temporary:
            yield temporary
        count += 1
        if count == calls:
            raise KeyboardInterrupt

    out = PredictionsWriter(tmp_path, make_meta())  # writes meta.json before the interrupts start
    out.close()
    monkeypatch.setattr(writer, "atomic_path", interrupted)
    monkeypatch.setattr(files, "atomic_path", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, map(make_video, range(4)), flush_every=2)
    assert_table_of(read_predictions(tmp_path), range(2 * ((calls + 1) // 2)))


def test_flushing_by_time(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with PredictionsWriter(tmp_path, make_meta(), flush_seconds=30) as out:
        out.add(make_video(0))
        assert finished_ids(tmp_path) == set()
        now[0] += 31
        out.add(make_video(1))
        assert finished_ids(tmp_path) == {"v000", "v001"}


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def start(target, *args):
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    return process


def write_until_killed(directory, where):
    """Write five shards; the process is killed while it writes the third one."""
    when, suffix = where.split()

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    @contextlib.contextmanager
    def killing(path, **options):
        here = "000002" in path.name and suffix in path.name
        if here and when == "before":
            kill()
        with atomic_path(path, **options) as temporary:
            if here and when == "inside":
                temporary.write_bytes(b"half")
                kill()
            yield temporary
        if here:
            kill()

    writer.atomic_path = files.atomic_path = killing
    write(directory, map(make_video, range(10)), flush_every=2)


@needs_fork
@pytest.mark.parametrize("where", ["inside npz", "before jsonl", "inside jsonl", "after jsonl"])
def test_a_killed_writer_loses_only_its_last_shard(tmp_path, where):
    process = start(write_until_killed, tmp_path, where)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    survivors = 6 if where == "after jsonl" else 4
    done = finished_ids(tmp_path)
    assert done == {f"v{i:03d}" for i in range(survivors)}
    assert_table_of(read_predictions(tmp_path), range(survivors))
    write(tmp_path, [v for v in map(make_video, range(10)) if v.video_id not in done])
    assert_table_of(read_predictions(tmp_path), range(10))
    assert [p.name for p in tmp_path.iterdir() if p.suffix in (".tmp", ".lock")] == []
    assert len(list(tmp_path.glob("*.npz"))) == len(list(tmp_path.glob("*.jsonl")))


def write_every_third(directory, rank):
    write(directory, map(make_video, range(rank, 40, 3)), rank=rank, flush_every=5)


@needs_fork
def test_processes_that_start_together_share_one_directory(tmp_path):
    processes = [start(write_every_third, tmp_path, rank) for rank in range(3)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert_table_of(read_predictions(tmp_path), range(40))


def test_two_writers_of_one_rank_are_refused(tmp_path):
    with PredictionsWriter(tmp_path, make_meta()):
        message = f"another process is writing to {tmp_path} as rank 0; wait for it, choose another --output"
        with pytest.raises(InputError, match=message):
            PredictionsWriter(tmp_path, make_meta())
        with PredictionsWriter(tmp_path, make_meta(), rank=1):
            pass
    with PredictionsWriter(tmp_path, make_meta()):
        pass


def fork_with_a_lock(directory, pipe):
    out = PredictionsWriter(directory, make_meta())  # noqa: F841
    if os.fork() == 0:
        os.write(pipe, str(os.getpid()).encode())  # this child has dropped the lock by now
    signal.pause()


@needs_fork
def test_the_children_of_a_killed_writer_do_not_hold_its_lock(tmp_path):
    """Workers of a loader live some seconds longer than their killed parent; a restart must not wait for them."""
    reading, writing = os.pipe()
    process = start(fork_with_a_lock, tmp_path, writing)
    worker = int(os.read(reading, 20))
    process.kill()
    process.join()
    try:
        write(tmp_path, [make_video(0)])
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.fixture
def without_locks(monkeypatch):
    """A file system that refuses locks."""

    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("fcntl.flock", refuse)


@pytest.mark.usefixtures("without_locks")
def test_a_file_system_without_locks_works(tmp_path):
    write(tmp_path, [make_video(0)])
    write(tmp_path, [make_video(1)])
    assert_table_of(read_predictions(tmp_path), range(2))


def test_retrying_failed_videos(tmp_path):
    write(tmp_path, [failed(0), failed(1), make_video(2)])
    assert finished_ids(tmp_path) == {"v000", "v001", "v002"}
    assert finished_ids(tmp_path, retry_failed=True) == {"v002"}
    write(tmp_path, [make_video(0), failed(1, "again")])
    assert finished_ids(tmp_path, retry_failed=True) == {"v000", "v002"}
    table = read_predictions(tmp_path)
    assert table.video_id == ["v000", "v001", "v002"]
    assert table.error == [None, "again", None]
    np.testing.assert_array_equal(table.scores[0], make_video(0).scores)
    # The success counts, whatever the order of the shards.
    write(tmp_path / "b", [make_video(0)], rank=0)
    write(tmp_path / "b", [failed(0)], rank=1)
    assert read_predictions(tmp_path / "b").error == [None]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_clips": 10}, "num_clips (2 there, 10 now)"),
        ({"weights_sha256": "c" * 64}, "weights_sha256 (aaaaaaaaaaaa there, cccccccccccc now)"),
        ({"class_names": ["run", "sit", "jump"]}, "class_names"),
        ({"manifest_sha256": "c" * 64, "num_videos": 5}, "manifest_sha256 (bbbbbbbbbbbb there, cccccccccccc now)"),
        ({"model": {"context": "nl"}}, "model.context (dnl there, nl now)"),
        ({"preprocessing": {"crop_size": 224}}, "preprocessing.crop_size (256 there, 224 now)"),
        ({"clip_features": True}, "clip_features (False there, True now)"),
    ],
)
def test_the_directory_of_another_run_is_refused_with_the_differences(tmp_path, changes, named):
    write(tmp_path, [make_video(0)])
    message = refusal(PredictionsWriter, tmp_path, make_meta(**changes))
    assert message.startswith(f"{tmp_path} holds predictions of another run, which differs in ")
    assert named in message
    assert message.endswith("; choose another --output or delete the directory")


def test_a_directory_from_before_features_were_stored_is_continued(tmp_path):
    write(tmp_path, [make_video(0)])
    meta = json.loads((tmp_path / "meta.json").read_text())
    del meta["clip_features"]
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    write(tmp_path, [make_video(1)])
    assert_table_of(read_predictions(tmp_path), range(2))


def test_a_directory_from_before_a_setting_existed_is_continued(tmp_path):
    write(tmp_path, [make_video(0)])
    now = make_meta()
    now = make_meta(preprocessing={**now.preprocessing, "antialias": True})
    write(tmp_path, [make_video(1)], meta=now)
    assert_table_of(read_predictions(tmp_path), range(2))
    refused = refusal(PredictionsWriter, tmp_path, make_meta(preprocessing={**now.preprocessing, "antialias": False}))
    assert "preprocessing.antialias (True there, False now)" in refused


def test_tuples_and_lists_are_equal(tmp_path):
    for mean in ((0.45, 0.45, 0.45), [0.45, 0.45, 0.45]):
        write(tmp_path, [], meta=make_meta(preprocessing={"mean": mean}))


def test_meta_round_trip(tmp_path):
    write(tmp_path, [])
    meta = read_meta(tmp_path)
    assert meta == make_meta()
    with pytest.raises(dataclasses.FrozenInstanceError):
        meta.num_clips = 3


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda d: d.rmdir(), "does not exist; give the directory that `dnl-video evaluate` or `predict` wrote"),
        (lambda d: None, "has no meta.json, so it is not a predictions directory; give the directory"),
        (lambda d: write(d, []), "holds no finished video yet; run `dnl-video evaluate` or `predict` again"),
        (lambda d: (d / "meta.json").write_text('{"model": '), "meta.json is damaged"),
        (lambda d: (d / "meta.json").write_text('{"schema_version": 1}'), "meta.json is damaged"),
        (lambda d: (d / "meta.json").write_text("[]"), "meta.json is damaged"),
        (
            lambda d: (d / "meta.json").write_text('{"kind": "dnl_video features"}'),
            "holds dnl_video features in an older format, one npz per video; give the directory",
        ),
        (
            lambda d: (d / "meta.json").write_text('{"schema_version": 2}'),
            "has schema_version 2, this dnl_video reads up to 1; update dnl_video",
        ),
        (
            lambda d: write(d, [make_video(0), make_video(1)], meta=make_meta(num_videos=1)),
            "holds 2 videos, but its meta.json lists 1; delete the directory and predict again",
        ),
    ],
)
def test_unusable_directories_are_refused(tmp_path, prepare, message):
    directory = tmp_path / "predictions"
    directory.mkdir()
    prepare(directory)
    text = refusal(read_predictions, directory)
    assert text.startswith(str(directory))
    assert message in text


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, (None, 3, "x", [1])) for name in ("model", "preprocessing", "versions", "run")),
        *((name, (None, 3, ["x"])) for name in ("weights", "weights_sha256", "manifest", "manifest_sha256")),
        *((name, (-1, 1e30, float("nan"), "2", [2], True)) for name in ("num_clips", "num_crops", "num_videos")),
        ("num_clips", (10**9,)),
        ("hop_s", (0, -1.0, float("inf"), "1")),
        ("class_names", (None, [], "abc", ["a", None], {"a": 1})),
        ("labelled", (None, 1, "yes")),
        ("schema_version", (None, 0, -1, 1.5, "1", [1])),
        ("frame_order", ("sideways", None, 1)),
    ],
)
def test_wrong_metadata_are_refused_by_name(tmp_path, name, values):
    write(tmp_path, [make_video(0)])
    meta = json.loads((tmp_path / "meta.json").read_text())
    kinds = {"model": "ModelSpec", "preprocessing": "Preprocessing"}
    calls = (read_predictions, lambda d: list(iter_predictions(d)), lambda d: PredictionsWriter(d, make_meta()))
    for value in values:
        (tmp_path / "meta.json").write_text(json.dumps({**meta, name: value}))
        for call in calls:
            message = refusal(call, tmp_path)
            assert message.startswith(f"{tmp_path}/meta.json is damaged (")
            assert name in message or kinds[name] in message
    (tmp_path / "meta.json").write_text(json.dumps({**meta, "model": {"num_classes": 4}}))
    assert "class_names has 3 names, but model.num_classes is 4" in refusal(read_predictions, tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps({**meta, "preprocessing": {"num_frames": 10**9}}))
    assert "num_frames is 1000000000; give a whole number in" in refusal(read_predictions, tmp_path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id", (None, 3, ["x"])),
        ("path", (None, 3, {})),
        ("label", (-1, 3, 10**9, 1e30, float("nan"), "2", True, [2])),
        ("num_views", (None, -1, 1e30, "2")),
        ("row", (-1, 1, 10**9, 0.0, "0")),
        ("error", (None, 3)),
    ],
)
def test_wrong_rows_are_refused_by_name(tmp_path, name, values):
    write(tmp_path, [failed(1) if name == "error" else make_video(0)])
    (file,) = tmp_path.glob("videos-*")
    row = json.loads(file.read_text())
    for value in values:
        file.write_text(json.dumps({**row, name: value}) + "\n")
        message = refusal(read_predictions, tmp_path)
        assert message.startswith(str(file))
        assert name in message
    file.write_text(json.dumps({key: value for key, value in row.items() if key != name}) + "\n")
    assert f"is damaged in line 1: '{name}' is missing" in refusal(read_predictions, tmp_path)
    for reason in ("both a row and an error", "", 3):
        file.write_text(json.dumps({**row, "row": 0, "error": reason}) + "\n")
        assert f"is damaged in line 1: error is {reason!r}" in refusal(read_predictions, tmp_path)
    file.write_text('{"id":' + "[" * 100_000)
    assert "is damaged in line 1" in refusal(read_predictions, tmp_path)


def test_a_header_that_claims_a_large_array_allocates_nothing(tmp_path):
    write(tmp_path, [make_video(0)])
    (file,) = tmp_path.glob("scores-*")
    cases = {(10**9, 3): "scores", (10**15, 3): "scores", (-1, -3): "scores", (10**9,): "clip_video"}
    for shape, name in cases.items():
        arrays = dict(np.load(file))
        with zipfile.ZipFile(tmp_path / "new.npz", "w") as archive:
            for key, array in arrays.items():
                content = io.BytesIO()
                claimed = shape if key == name else array.shape
                header = {"descr": array.dtype.str, "fortran_order": False, "shape": claimed}
                np.lib.format.write_array_header_1_0(content, header)
                archive.writestr(f"{key}.npy", content.getvalue() + array.tobytes())
        whole, before = file.read_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (tmp_path / "new.npz").rename(file)
        assert f"{file} is damaged (" in refusal(read_predictions, tmp_path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("clip_video", lambda a: a + 1, "clip_video must ascend from 0 to 0 at most"),
        ("clip_video", lambda a: a - 1, "clip_video must ascend"),
        ("clip_video", lambda a: a.astype(float), "clip_video must ascend"),
        ("clip_start_s", lambda a: a[:1], "clip_start_s of shape (1,), expected (2,)"),
        ("clip_end_s", lambda a: a * np.nan, "clip_end_s holds times that are not finite"),
        ("clip_end_s", None, "clip_end_s"),
        ("clip_scores", lambda a: a[:, :2], "clip_scores of shape (2, 2), expected (2, 3)"),
        ("scores", lambda a: a.astype("c8"), "scores.npy of type complex64"),
        ("scores", lambda a: a.astype("U9"), "scores.npy of type <U9"),
        ("more", lambda a: np.zeros(3), "more of shape (3,), expected None"),
    ],
)
def test_wrong_arrays_are_refused_by_name(tmp_path, name, change, message):
    write(tmp_path, [make_video(0)])
    (file,) = tmp_path.glob("scores-*")
    arrays = dict(np.load(file))
    changed = {} if change is None else {name: change(arrays.pop(name, None))}
    arrays.pop(name, None)
    np.savez(file, **arrays, **changed)
    for call in (read_predictions, lambda d: list(iter_predictions(d, clip_scores=True))):
        assert message in refusal(call, tmp_path)


@pytest.mark.parametrize("name", ["meta.json", "videos-0000-000000.jsonl", "scores-0000-000000.npz"])
def test_a_file_without_permission_is_not_called_damaged(tmp_path, monkeypatch, name):
    write(tmp_path, [make_video(0)])

    def refusing(real_open):
        def refuse(path, *args, **options):
            if str(path).endswith(name):
                raise PermissionError(13, "Permission denied", str(path))
            return real_open(path, *args, **options)

        return refuse

    monkeypatch.setattr(io, "open", refusing(io.open))
    monkeypatch.setattr(Path, "open", refusing(Path.open))  # on Python 3.10 it does not call io.open
    message = refusal(read_predictions, tmp_path)
    assert message == f"{tmp_path / name} cannot be read (Permission denied); make it readable"


def cut(path, keep=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        ("videos", cut, "is damaged in line 2"),
        ("videos", lambda p: p.write_bytes(b""), "is empty"),
        ("videos", lambda p: p.write_bytes(b"17\n"), "is damaged in line 1"),
        ("scores", cut, "is damaged"),
        ("scores", lambda p: p.write_bytes(b""), "is damaged"),
        ("scores", lambda p: p.unlink(), "is missing"),
        ("scores", lambda p: np.savez(p, scores=np.zeros((3, 2))), "is damaged (scores of shape (3, 2)"),
        ("scores", lambda p: np.savez(p, other=np.zeros(2)), "is damaged"),
        ("scores", lambda p: np.savez(p, scores=np.array([{}])), "is damaged"),
    ],
)
def test_damaged_shards_are_named_and_the_advice_works(tmp_path, name, harm, message):
    write(tmp_path, [make_video(i) for i in range(4)], flush_every=2)
    (file,) = tmp_path.glob(f"{name}-*1.*")
    harm(file)
    text = refusal(read_predictions, tmp_path)
    assert text.startswith(f"{file} {message}")
    assert text.endswith(
        "; delete videos-0000-000001.jsonl and scores-0000-000001.npz and run the same command again: "
        "only their videos are redone"
    )
    for damaged in tmp_path.glob("*-0000-000001.*"):
        damaged.unlink()
    write(tmp_path, [make_video(i) for i in range(4) if f"v{i:03d}" not in finished_ids(tmp_path)])
    assert_table_of(read_predictions(tmp_path), range(4))


def test_one_id_with_two_results_is_refused(tmp_path):
    write(tmp_path, [make_video(0)], rank=0)
    write(tmp_path, [make_video(0)], rank=1)
    assert refusal(read_predictions, tmp_path) == (
        f"video 'v000' has scores in both {tmp_path / 'videos-0000-000000.jsonl'} and videos-0001-000000.jsonl; "
        "delete one of the two with its scores file and run the same command again"
    )


def test_an_id_outside_the_order_is_refused(tmp_path):
    write(tmp_path, [make_video(0), make_video(1)])
    with pytest.raises(InputError, match=r"holds 1 videos that are not in the list, the first is 'v001'; give the"):
        read_predictions(tmp_path, order=["v000"])


def test_an_output_that_cannot_be_written(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match=r"cannot be made \(.*\); choose another folder"):
        PredictionsWriter(file, make_meta())
    with pytest.raises(InputError, match="is not a directory; give the directory"):
        read_predictions(file)

    def full(fd):
        raise OSError(28, "No space left on device")

    out = PredictionsWriter(tmp_path / "p", make_meta())
    out.add(make_video(0))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"scores-0000-000000.npz: cannot be written \(No space left.*\); fix that"):
        out.close()
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == [".lock", "meta.json"]


@pytest.mark.parametrize(
    ("meta", "video", "message"),
    [
        ({}, {"scores": None}, "must have either scores or an error"),
        ({}, {"error": "x"}, "must have either scores or an error"),
        ({}, {"label": 3}, "has label 3; allowed: 0 to 2"),
        ({"labelled": True}, {"label": None}, "has no label, and meta says that every video has one"),
        ({}, {"scores": np.zeros(4)}, r"has scores of shape \(4,\); expected \(3,\)"),
        ({}, {"clip_start_s": None}, "has clip columns of shapes"),
        ({}, {"clip_end_s": None}, "has clip columns of shapes"),
        ({}, {"clip_scores": np.zeros((2, 4))}, "has clip columns of shapes"),
        ({"clip_features": True}, {"clip_features": np.zeros((3, 5))}, "has clip columns of shapes"),
        ({"clip_features": True}, {}, "must have clip features if and only if meta says so"),
        ({}, {"clip_features": np.zeros((2, 5))}, "must have clip features if and only if meta says so"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path, meta, video, message):
    with PredictionsWriter(tmp_path, make_meta(**meta)) as out, pytest.raises(ValueError, match=message):
        out.add(make_video(0, **video))


def test_a_closed_writer_refuses_videos(tmp_path):
    out = PredictionsWriter(tmp_path, make_meta())
    out.close()
    out.close()
    with pytest.raises(ValueError, match="is closed"):
        out.add(make_video(0))


def test_files_get_the_usual_permissions(tmp_path):
    write(tmp_path, [make_video(0)])
    reference = tmp_path / "reference"
    reference.touch()
    assert {p.stat().st_mode for p in tmp_path.iterdir()} == {reference.stat().st_mode}
