"""Results files of other projects give the same numbers as our own files."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dnl_video.errors import InputError
from dnl_video.report import build_report
from dnl_video.results.foreign import ListEntry, as_probabilities, read_foreign
from dnl_video.results.predictions import Predictions, VideoPrediction
from tests.report.directories import make_meta, report_of
from tests.report.pages import markdown

NUM_VIDEOS, NUM_CLASSES = 60, 7
NAMES = [f"class {c}" for c in range(NUM_CLASSES)]
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(NUM_VIDEOS, NUM_CLASSES)).astype(np.float32)
LABELS = RNG.integers(NUM_CLASSES, size=NUM_VIDEOS)
LOGITS[np.arange(NUM_VIDEOS), LABELS] += 1.5
SCORES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
LIST = [ListEntry(f"v{i:02d}", f"videos/v{i:02d}.mp4", int(k)) for i, k in enumerate(LABELS)]


def pyslowfast(preds: Any = None, labels: Any = None) -> list[Any]:
    """The dump of test_net.py with 10 x 3 views: sums of softmax, clones on the CPU."""
    preds = torch.from_numpy(SCORES).mul(30) if preds is None else preds
    return [preds.clone().detach(), torch.from_numpy(LABELS) if labels is None else labels]


def mmaction(scores: np.ndarray = SCORES) -> list[dict[str, Any]]:
    """The content of mmengine's DumpResults for mmaction2's recognisers: data samples as dictionaries."""
    return [
        {
            "pred_score": torch.from_numpy(row.copy()),
            "pred_label": torch.tensor([int(row.argmax())]),
            "gt_label": torch.tensor([int(label)]),
            "num_classes": NUM_CLASSES,
            "img_shape": (256, 340),
        }
        for row, label in zip(scores, LABELS, strict=True)
    ]


def mmaction_rc() -> list[dict[str, Any]]:
    """The same for the release candidates of 1.0."""
    return [
        {"pred_scores": {"item": sample["pred_score"]}, "gt_labels": {"item": sample["gt_label"]}}
        for sample in mmaction()
    ]


def csv_text(labels: list[Any], scores: np.ndarray = SCORES) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["video_id", "label", *(f"score_{c}" for c in range(NUM_CLASSES))])
    writer.writerows(
        [video.video_id, label, *row.tolist()] for video, label, row in zip(LIST, labels, scores, strict=True)
    )
    return file.getvalue().encode()


FORMATS = {
    "pyslowfast": pickle.dumps(pyslowfast()),
    "pyslowfast numpy": pickle.dumps([SCORES * 30, LABELS]),
    "pyslowfast float64": pickle.dumps([torch.from_numpy(SCORES.astype(np.float64)) * 30, torch.from_numpy(LABELS)]),
    "mmaction2 1.x": pickle.dumps(mmaction(), protocol=2),
    "mmaction2 1.0rc": pickle.dumps(mmaction_rc(), protocol=2),
    "mmaction2 logits": pickle.dumps(mmaction(LOGITS), protocol=2),
    "mmaction2 0.x pkl": pickle.dumps(list(SCORES)),
    "mmaction2 0.x json": json.dumps(SCORES.tolist()).encode(),
    "csv": csv_text(LABELS.tolist()),
    "csv with names": csv_text([NAMES[k] for k in LABELS]),
    "csv with a byte order mark": b"\xef\xbb\xbf" + csv_text(LABELS.tolist()).replace(b"\r\n", b"\n"),
    "csv of logits": csv_text(LABELS.tolist(), LOGITS),
}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of the same scores, written by our own writer."""
    videos = [VideoPrediction(v.video_id, v.path, v.label, 30, row) for v, row in zip(LIST, SCORES, strict=True)]
    return report_of(tmp_path_factory.mktemp("ours"), videos, make_meta(NUM_VIDEOS, NAMES))


class Reader:
    """Writes a results file and reads it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "results.pkl"

    def __call__(self, data: bytes, **options: Any) -> Predictions:
        self.file.write_bytes(data)
        return read_foreign(self.file, **options)


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


@pytest.mark.parametrize("name", FORMATS)
def test_same_scores_same_report(name: str, ours: dict[str, Any], read: Reader) -> None:
    report = build_report(read(FORMATS[name], class_names=NAMES, videos=LIST))
    for key in ("accuracy", "coverage", "per_class", "confused_pairs", "confusion"):
        assert report[key] == ours[key]
    assert report["calibration"]["ece"] == pytest.approx(ours["calibration"]["ece"], abs=1e-5)
    assert [m["video_id"] for m in report["confident_mistakes"]] == [m["video_id"] for m in ours["confident_mistakes"]]
    assert report["complete"]


@pytest.mark.parametrize("name", ["pyslowfast", "mmaction2 1.x", "csv"])
def test_missing_information_is_unknown(name: str, read: Reader) -> None:
    report = build_report(read(FORMATS[name]))
    unknown = dict.fromkeys(("num_clips", "num_crops", "num_views", "frame_order"))
    assert report["protocol"] == {**unknown, "text": "protocol unknown"}
    assert report["coverage"]["listed"] is None
    assert report["accuracy"]["listed"]["video"] is None
    assert report["accuracy"]["evaluated"]["centre_clip"] is None
    assert report["by_num_clips"] is None
    assert report["model"] == report["preprocessing"] == report["versions"] == {}
    note = "The file does not say how many videos were listed or failed: figures are over the videos in it."
    assert note in report["notes"]
    assert report["per_class"][0]["name"] == "0"
    text = markdown(report)
    assert text.startswith("# Accuracy of results.pkl\n")
    for expected in ("| listed | unknown |", "| evaluated | 60 |", "on 60 videos; protocol unknown"):
        assert expected in text
    assert "failed = wrong" not in text
    assert "centre-clip" not in text


def test_videos_missing_in_a_csv_count_as_failed(read: Reader) -> None:
    report = build_report(read(b"\n".join(FORMATS["csv"].splitlines()[:-2]), videos=LIST))
    assert report["coverage"]["listed"] == 60
    assert report["coverage"]["evaluated"] == 58
    assert report["coverage"]["failures"][0]["reason"] == "not in the results file"
    assert report["accuracy"]["listed"]["video"]["top1"]["total"] == 60


def test_videos_that_pyslowfast_did_not_score_count_as_failed(read: Reader) -> None:
    preds = torch.from_numpy(SCORES).mul(30)
    preds[4] = 0
    predictions = read(pickle.dumps(pyslowfast(preds)), videos=LIST)
    assert [video for video, error in zip(predictions.video_id, predictions.error, strict=True) if error] == ["v04"]
    assert predictions.error[4] == "never scored: all scores are 0"
    np.testing.assert_allclose(np.delete(predictions.scores, 4, 0), np.delete(SCORES, 4, 0), rtol=1e-6)


@pytest.mark.parametrize(
    ("scores", "expected", "note"),
    [
        (SCORES, SCORES, None),
        (SCORES.round(4), SCORES.round(4), None),
        (SCORES * 30, SCORES, "Scores sum to 30: they are read as sums of probabilities over views, and divided"),
        (np.concatenate([SCORES[:9] * 29, SCORES[9:] * 30]), SCORES, "Scores sum to 29 to 30: they are"),
        (LOGITS, SCORES, "Scores are not probabilities; they are read as logits, and converted by a softmax."),
        (LOGITS + 1000, SCORES, "logits"),
        (np.minimum(SCORES * 1.1, 1), SCORES, "Scores in [0, 1] do not sum to 1; they are divided by their sum"),
        ([[0.75, 0.25], [0.75, 2.25]], [[0.75, 0.25], [0.25, 0.75]], "Scores sum to 1 to 3: they are"),
        ([[0.01, 0.0], [0.0, 0.01]], [[1.0, 0.0], [0.0, 1.0]], "Scores in [0, 1] do not sum to 1"),
        ([[0.9, -0.2], [0.0, 0.5]], [[0.7503, 0.2497], [0.3775, 0.6225]], "Scores are not probabilities"),
        ([[0.0, 0.0], [0.0, 0.5]], [[0.5, 0.5], [0.3775, 0.6225]], "Scores are not probabilities"),
    ],
    ids=[
        *("probabilities", "rounded", "sums", "uneven sums", "logits", "positive logits", "not summing to 1"),
        *("one view and sums", "sums near 0", "small logits", "a row of zeros"),
    ],
)
def test_scores_become_probabilities(scores: np.ndarray, expected: np.ndarray, note: str | None) -> None:
    result, notes = as_probabilities(np.asarray(scores))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4)  # + 1000 costs digits
    np.testing.assert_array_equal(result.argmax(axis=1), np.asarray(scores).argmax(axis=1))
    assert len(notes) == (note is not None)
    if note is not None:
        assert note in notes[0]


def test_nan_stays_nan() -> None:
    scores = np.concatenate([SCORES * 30, np.full((1, NUM_CLASSES), np.nan)])
    result, notes = as_probabilities(scores)
    assert np.isnan(result[-1]).all()
    np.testing.assert_allclose(result[:-1], SCORES, rtol=1e-5)
    assert len(notes) == 1


class Runs:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


def forged_tensor(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    storage = torch.arange(6.0)._typed_storage()
    return pickle.dumps([[Runs(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})]][0])


def case_id(value: bytes | str) -> str:
    # Pickles of tensors hold addresses, so ids made of them differ between the test processes.
    return value if isinstance(value, str) else "data"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "its first line is ''; give video_id,label,score_0,score_1,..."),
        (b"video_id,score_0\n", "its first line is 'video_id,score_0'; give video_id,label,score_0"),
        (b"video_id,label,score_1,score_0\n", "its first line is"),
        (b"video_id,label,score_0\n", "has no video; give one line per video below video_id,label"),
        (b"video_id,label,score_0,score_1\na,0,1\n", "line 2: 3 values, but the first line names 4"),
        (b"video_id,label,score_0\na,0,x\n", "line 2: a score is not a number"),
        (b"video_id,label,score_0\na,0,1\na,0,1\n", "line 3: video 'a' was already listed in line 2; list it once"),
        (b"video_id,label,score_0\na,run,1\n", "line 2: label 'run' is not a class index; name the classes with"),
        (b"video_id,label,score_0\na,3,1\n", r"video 'a' has label 3, but there are scores of 1 classes \(0 to 0\)"),
        (b"\xff\xfe\x00", "is neither text nor a pickle"),
        (b"PK\x03\x04abc", "is a zip file, as torch.save and numpy.savez write; give a CSV"),
        (b"{}", "holds no scores of a known layout; give a CSV"),
        (b"[[1, 2", "is damaged JSON"),
        (b"[[1, 2], [1]]", r"the scores of result 1 are of shape \(1,\); every video needs one score per class"),
        (b"[[1, 2], [1, 2]]", r"\(mmaction2 0.x \(--out\)\) has no labels; give the tested list with"),
        (pickle.dumps([torch.ones(3, 2), torch.ones(3, 2)]), "multi-label results have no top-1"),
        (pickle.dumps([torch.ones(3, 2), torch.ones(4).long()]), r"shape \(3, 2\) and labels of shape \(4,\)"),
        (pickle.dumps([{"bboxes": 1}]), "result 0 has no pred_score; give the --dump of mmaction2's recognisers"),
        (pickle.dumps([{"pred_score": torch.ones(2)}]), "result 0 has not exactly one gt_label; top-1 needs one"),
        (pickle.dumps([{"pred_score": torch.ones(2, 2), "gt_label": 1}]), r"of shape \(2, 2\).*average_clips='prob'"),
        (pickle.dumps(pyslowfast())[:-40], "is a damaged pickle .*; write it again"),
        (pickle.dumps(Runs(eval, "1")), "asks for builtins.eval, which plain results do not need; no code in it"),
        (pickle.dumps(Runs(torch.storage._load_from_bytes, pickle.dumps(Runs(eval, "1")))), "asks for builtins.eval"),
        (forged_tensor((10**6, 10**9), (0, 0)), r"a tensor of shape \[1000000, 1000000000\] in 6 elements"),
        (forged_tensor((2, 2), (3, 9)), r"a tensor of shape \[2, 2\] in 6 elements"),
        (forged_tensor((2,), (1,), 5), r"a tensor of shape \[2\] in 6 elements"),
        (forged_tensor((2,), (-1,), 5), "a tensor without a plain shape"),
    ],
    ids=case_id,
)  # fmt: skip
def test_bad_files(data: bytes, message: str, read: Reader) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(data)
    assert str(error.value).startswith(str(read.file))
    assert "\n" not in str(error.value)


def test_a_hidden_pickle_inside_a_storage_runs_nothing(tmp_path: Path, read: Reader) -> None:
    """torch would unpickle the bytes of a storage; our reader allows only the same names in them."""
    mark = tmp_path / "ran"
    inner = pickle.dumps(Runs(exec, f"open({str(mark)!r}, 'w')"))
    tensor = Runs(
        torch._utils._rebuild_tensor_v2, Runs(torch.storage._load_from_bytes, inner), 0, (2, 3), (3, 1), False, {}
    )
    with pytest.raises(InputError, match=r"asks for builtins.exec"):
        read(pickle.dumps([tensor, torch.zeros(2).long()]))
    assert not mark.exists()


def test_files_with_one_wrong_bit_are_read_or_refused(read: Reader) -> None:
    honest = pickle.dumps([torch.ones(2, 3), torch.zeros(2).long()], protocol=4)
    rng = np.random.default_rng(1)
    for place in rng.integers(2, len(honest), size=400):
        changed = bytearray(honest)
        changed[place] ^= 1 << rng.integers(8)
        with contextlib.suppress(InputError):
            read(bytes(changed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_every_kind_of_float(dtype: torch.dtype, read: Reader) -> None:
    scores = torch.from_numpy(SCORES).to(dtype)
    # Transposed and cut: a view with an offset and unusual strides.
    preds = torch.cat([scores, scores], dim=1).T.contiguous().T[:, NUM_CLASSES:]
    predictions = read(pickle.dumps([preds, torch.from_numpy(LABELS).to(torch.int32)]))
    np.testing.assert_array_equal(predictions.scores, scores.float().numpy())


def test_tensors_are_read_without_torch(tmp_path: Path) -> None:
    (tmp_path / "results.pkl").write_bytes(FORMATS["mmaction2 1.x"])
    code = (
        "import sys; from dnl_video.results.foreign import read_foreign; read_foreign(sys.argv[1]); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "results.pkl")], check=True)


def changed(**changes: Any) -> list[ListEntry]:
    """Return the list with another first video."""
    return [LIST[0]._replace(**changes), *LIST[1:]]


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("pyslowfast", {"videos": LIST[:-1]}, "has 60 results, but the list has 59 videos; give the tested list"),
        (
            *("pyslowfast", {"videos": changed(label=(LABELS[0] + 1) % NUM_CLASSES)}),
            r"video 'v00' has label \d, but the list says \d; the file belongs to another",
        ),
        ("pyslowfast", {"class_names": ["a", "b"]}, "has scores of 7 classes, but 2 class names were given"),
        (
            *("csv", {"videos": [video._replace(video_id=f"w{i}") for i, video in enumerate(LIST)]}),
            r"60 of its videos are not in the list, such as 'v00' \(the list has, for example, 'w0'",
        ),
        (
            *("csv with names", {"class_names": [*NAMES[:6], "other"]}),
            "label 'class 6' is not in the class list; did you mean 'class 5'",
        ),
        ("mmaction2 0.x json", {"videos": changed(label=None)}, "the list has no label for 'v00'; give a list with"),
    ],
)
def test_lists_and_classes_that_do_not_fit(data: str, options: dict[str, Any], message: str, read: Reader) -> None:
    with pytest.raises(InputError, match=message):
        read(FORMATS[data], **options)


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere cannot be read \(No such file or directory\); give a CSV"):
        read_foreign(tmp_path / "nowhere")


def test_labels_come_from_the_list_when_the_file_has_none(read: Reader) -> None:
    assert read(FORMATS["mmaction2 0.x json"], videos=LIST).label.tolist() == LABELS.tolist()
