import itertools
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn import metrics as sk

from dnl_video.errors import InputError
from dnl_video.report import build_report, headline, save_report
from dnl_video.report.build import failure_reason
from dnl_video.report.render_text import code, escape
from dnl_video.results.metrics import wilson_interval
from dnl_video.results.predictions import VideoPrediction
from dnl_video.results.reader import read_predictions
from tests.report.directories import NAMES, make_meta, make_videos, report_of, softmax, write, write_large
from tests.report.pages import Outline, html, markdown


def test_video_figures_agree_with_scikit_learn(predictions, report):
    done = predictions.evaluated
    scores, labels = predictions.scores[done], predictions.label[done]
    figures = report["accuracy"]["evaluated"]["video"]
    by_class = sk.balanced_accuracy_score(labels, scores.argmax(axis=1))
    assert figures["mean_class_accuracy"]["value"] == pytest.approx(by_class)
    assert figures["mean_class_accuracy"]["num_classes"] == 8
    for k in (1, 5):
        share = figures[f"top{k}"]
        assert share["value"] == pytest.approx(sk.top_k_accuracy_score(labels, scores, k=k, labels=range(8)))
        assert share["value"] == share["correct"] / share["total"]
        assert share["total"] == 157
        assert (share["low"], share["high"]) == wilson_interval(share["correct"], share["total"])


def test_failed_videos_are_wrong_in_figures_over_listed_videos(predictions, report):
    evaluated, listed = (report["accuracy"][key]["video"] for key in ("evaluated", "listed"))
    assert listed["top1"]["correct"] == evaluated["top1"]["correct"]
    assert listed["top1"]["total"] == 160
    assert listed["top5"]["total"] == 160
    hits = predictions.evaluated & (np.nan_to_num(predictions.scores).argmax(axis=1) == predictions.label)
    per_class = [hits[predictions.label == c].mean() for c in range(8)]
    assert listed["mean_class_accuracy"]["value"] == pytest.approx(np.mean(per_class))


def test_clip_and_centre_clip_figures_equal_a_plain_count(predictions, report):
    right = predictions.clip_scores.argmax(axis=1) == predictions.label[predictions.clip_video]
    evaluated = report["accuracy"]["evaluated"]
    assert evaluated["clip"]["top1"]["value"] == pytest.approx(right.mean())
    assert evaluated["clip"]["top1"]["total"] == 1570
    assert evaluated["clip"]["mean_class_accuracy"] is None
    assert evaluated["centre_clip"]["top1"]["value"] == pytest.approx(right.reshape(-1, 10)[:, 5].mean())
    assert evaluated["centre_clip"]["top1"]["total"] == 157
    # Ten clips of a video are not ten independent trials.
    low, high = wilson_interval(right.sum(), 1570)
    clip = evaluated["clip"]["top1"]
    assert clip["high"] - clip["low"] > 1.3 * (high - low)


def test_top1_by_number_of_clips_ends_at_the_video_figure(report):
    points = report["by_num_clips"]
    assert [point["num_clips"] for point in points] == list(range(1, 11))
    assert points[0]["top1"] == report["accuracy"]["evaluated"]["centre_clip"]["top1"]
    assert points[-1]["top1"] == report["accuracy"]["evaluated"]["video"]["top1"]


def test_coverage_groups_failures_and_lists_them(report):
    coverage = report["coverage"]
    assert report["complete"] is True
    assert report["notes"] == []
    counts = {"listed": 160, "finished": 160, "evaluated": 157, "failed": 3, "nan_scores": 0}
    assert {k: coverage[k] for k in counts} == counts
    assert coverage["failures"] == [{"reason": "VIDEO: cannot decode frame N", "videos": 3, "example": "v00007"}]
    assert [v["video_id"] for v in coverage["failed_videos"]] == ["v00007", "v00060", "v00113"]
    assert coverage["failed_videos"][0] == {
        "video_id": "v00007",
        "path": "val/v00007.mp4",
        "label": "ccw",
        "error": "val/v00007.mp4: cannot decode frame 7",
    }


def test_classes_confusion_and_pairs(predictions, report):
    done = predictions.evaluated
    labels, predicted = predictions.label[done], predictions.scores[done].argmax(axis=1)
    matrix = np.zeros((8, 8), dtype=int)
    for label, other, count in report["confusion"]:
        matrix[label, other] = count
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(labels, predicted))
    assert [row["name"] for row in report["per_class"]] == NAMES
    assert sum(row["failed"] for row in report["per_class"]) == 3
    for c, row in enumerate(report["per_class"]):
        assert (row["videos"], row["correct"]) == (np.sum(labels == c), matrix[c, c])
        others = {NAMES[p]: matrix[c, p] for p in range(8) if p != c}
        if row["most_taken_for"]:
            assert row["most_taken_for"]["videos"] == max(others.values())
            assert others[row["most_taken_for"]["name"]] == max(others.values())
    pairs = report["confused_pairs"]
    assert len(pairs) <= 20
    assert all(p["label"] != p["predicted"] for p in pairs)
    counts = [p["videos"] for p in pairs]
    off = np.sort((matrix - np.diag(np.diag(matrix))).ravel())[::-1]
    assert counts == off[: len(counts)].tolist()


def test_confident_mistakes(predictions, report):
    done = predictions.evaluated
    scores, labels = predictions.scores[done], predictions.label[done]
    wrong = scores.argmax(axis=1) != labels
    expected = np.sort(scores[wrong].max(axis=1))[::-1][:20]
    assert [m["confidence"] for m in report["confident_mistakes"]] == pytest.approx(expected.tolist())
    for mistake in report["confident_mistakes"]:
        assert mistake["label"] != mistake["predicted"]
        assert mistake["label_place"] >= 2
        assert mistake["label_score"] <= mistake["confidence"]


def test_calibration_covers_every_evaluated_video(report):
    calibration = report["calibration"]
    assert sum(b["videos"] for b in calibration["bins"]) == calibration["videos"] == 157
    assert len(calibration["bins"]) == 15
    gap = sum(b["videos"] * abs(b["accuracy"] - b["confidence"]) for b in calibration["bins"] if b["videos"])
    assert calibration["ece"] == pytest.approx(gap / 157)


def test_origin(predictions, report):
    assert report["schema"] == "dnl-video-report/1"
    assert report["model"] == predictions.meta.model
    assert report["weights"] == {"name": "runs/a/best.ckpt", "sha256": "a" * 64}
    assert report["manifest"] == {"source": "data/val.csv", "sha256": "b" * 64}
    assert report["protocol"] == {
        "num_clips": 10,
        "num_crops": 3,
        "num_views": 30,
        "frame_order": "natural",
        "text": "10 clips x 3 crops at 256, clips of 8 frames with stride 8",
    }


def test_the_report_does_not_depend_on_the_shards(tmp_path, report):
    videos = list(make_videos(160, failed={7, 60, 113}))
    for rank in range(3):
        write(tmp_path, videos[rank::3], make_meta(160), rank=rank, flush_every=7)
    assert build_report(read_predictions(tmp_path)) == report


# ---------------------------------------------------------------- unusual runs


def test_unfinished_run(tmp_path):
    report = report_of(tmp_path, make_videos(40), make_meta(100))
    assert report["complete"] is False
    assert report["accuracy"]["listed"]["video"] is None
    note = (
        "Incomplete: 40 of 100 videos. Run the same command again to finish the others; "
        "until then there is no figure over all listed videos."
    )
    assert report["notes"] == [note]
    assert headline(report).startswith("Incomplete (40 of 100 videos). slow_r50 + dnl: top-1 ")
    assert f"> **{note}**" in markdown(report)
    page = html(report)
    assert page.index(note) < page.index('class="tiles"')
    assert [row[2] for row in Outline(page).tables["Videos, and top-1 over them"] if row[0] == "listed"] == ["-"]


def test_a_report_needs_labels(tmp_path):
    write(tmp_path, [VideoPrediction("a", "a.mp4", None, 1, softmax(np.zeros(8)))], make_meta(1, labelled=False))
    with pytest.raises(InputError) as info:
        build_report(read_predictions(tmp_path))
    assert str(info.value) == (
        "1 of 1 predictions have no label (first: 'a'), and a report needs labels; run `dnl-video evaluate "
        "--checkpoint FILE --manifest LIST` with a list that has them (Kinetics CSV, `path label` lines or class "
        "folders)"
    )


def test_all_videos_failed(tmp_path):
    report = report_of(tmp_path, make_videos(3, failed={0, 1, 2}), make_meta(3))
    assert report["accuracy"]["evaluated"] == {"video": None, "centre_clip": None, "clip": None}
    assert report["accuracy"]["listed"]["video"]["top1"]["value"] == 0
    assert report["calibration"] is None
    assert headline(report) == "slow_r50 + dnl: no video could be evaluated, all 3 failed."
    assert "cannot decode frame N" in markdown(report)
    outline = Outline(html(report))
    assert headline(report).partition(": ")[2] in outline.text
    assert outline.of("svg") == []


def test_without_clip_scores_clip_figures_are_null_with_a_note(tmp_path):
    report = report_of(tmp_path, make_videos(16), make_meta(16), clip_scores=False)
    assert report["accuracy"]["evaluated"]["clip"] is None
    assert report["by_num_clips"] is None
    assert report["notes"] == [
        "No clip scores are stored (--no-clip-scores), so there are no clip-level and centre-clip figures."
    ]
    videos = list(make_videos(16))
    write(tmp_path / "b", videos[:10], make_meta(16), clip_scores=False)
    write(tmp_path / "b", videos[10:], make_meta(16))
    assert build_report(read_predictions(tmp_path / "b"))["notes"] == [
        "Clip scores are stored for 6 of 16 evaluated videos, so there are no clip-level and centre-clip figures."
    ]


def test_scores_of_nan_count_as_wrong_and_are_noted(tmp_path):
    videos = list(make_videos(8, seed=1))
    for video in videos:
        video.clip_start_s = video.clip_end_s = video.clip_scores = None
        video.scores = np.eye(8, dtype=np.float32)[video.label]
    videos[3].scores = np.full(8, np.nan, dtype=np.float32)
    report = report_of(tmp_path, videos, make_meta(8))
    assert report["accuracy"]["evaluated"]["video"]["top1"]["correct"] == 7
    assert report["notes"][0] == "NaN scores count as wrong (1 video); check the network and its precision."
    json.dumps(report, allow_nan=False)


def test_equal_scores_count_as_wrong_in_every_figure(tmp_path):
    videos = list(make_videos(24))
    for video in videos:
        video.scores = np.full(8, 0.125, dtype=np.float32)
        video.clip_scores = np.full((10, 8), 0.125, dtype=np.float32)
    report = report_of(tmp_path, videos, make_meta(24))
    for level in ("video", "centre_clip", "clip"):
        figures = report["accuracy"]["evaluated"][level]
        assert (figures["top1"]["correct"], figures["top5"]["correct"]) == (0, 0)
    assert report["accuracy"]["listed"]["video"]["mean_class_accuracy"]["value"] == 0
    assert all(point["top1"]["value"] == 0 for point in report["by_num_clips"])
    assert all(row["correct"] == 0 for row in report["per_class"])
    assert all(label != predicted for label, predicted, _ in report["confusion"])
    assert sum(count for *_, count in report["confusion"]) == 24
    assert report["calibration"]["ece"] == pytest.approx(0.125)
    assert len(report["confident_mistakes"]) == 20


def test_confusion_and_classes_agree_when_there_are_ties(tmp_path):
    videos = list(make_videos(64))
    for video in videos:
        video.scores = np.round(video.scores * 4) / 4  # coarse, so that many tie
    report = report_of(tmp_path, videos, make_meta(64))
    diagonal = {label: count for label, predicted, count in report["confusion"] if label == predicted}
    assert {c["index"]: c["correct"] for c in report["per_class"] if c["correct"]} == diagonal
    assert sum(diagonal.values()) == report["accuracy"]["evaluated"]["video"]["top1"]["correct"]
    tied = sum((np.sort(v.scores)[-1] == np.sort(v.scores)[-2]) for v in videos)
    assert tied > 5


def test_infinite_scores_are_null(tmp_path):
    video = VideoPrediction("a", "a.mp4", 0, 1, np.array([-np.inf, np.inf, *[0] * 6], dtype=np.float32))
    report = report_of(tmp_path, [video], make_meta(1), clip_scores=False)
    assert [report["confident_mistakes"][0][key] for key in ("confidence", "label_score")] == [None, None]
    json.dumps(report, allow_nan=False)
    assert "| `a` | right | - | left | - | 8 |" in markdown(report)


def test_scores_that_are_no_probabilities_have_no_calibration(tmp_path):
    video = VideoPrediction("a", "a.mp4", 0, 1, np.arange(8, dtype=np.float32))
    report = report_of(tmp_path, [video], make_meta(1), clip_scores=False)
    assert report["calibration"] is None
    assert report["notes"][1].startswith("No calibration: the highest scores span [7, 7]; calibration needs")


@pytest.mark.parametrize("num_classes", [1, 2, 5, 6])
def test_few_classes_and_one_clip(tmp_path, num_classes):
    meta = make_meta(6, NAMES[:num_classes], num_clips=1, num_crops=1)
    report = report_of(tmp_path, make_videos(6, num_classes, num_clips=1), meta)
    for figures in (report["accuracy"]["evaluated"]["video"], report["accuracy"]["evaluated"]["clip"]):
        assert ("top5" in figures) == (num_classes > 5)
    assert report["protocol"]["text"].startswith("1 clip x 1 crop at 256")
    for text in (markdown(report), html(report)):
        assert ("top-5" in text) == (num_classes > 5)
        assert "Top-1 by number of clips" not in text


def test_classes_without_videos_have_null_accuracy(tmp_path):
    report = report_of(tmp_path, list(make_videos(24))[:3], make_meta(3))
    assert report["per_class"][7]["accuracy"] is None
    assert report["accuracy"]["evaluated"]["video"]["mean_class_accuracy"]["num_classes"] == 3
    assert "| ccw | 0 |  |  | 0 |  |" in markdown(report)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("a/17.mp4: 17 frames, 17 asked", "VIDEO: N frames, N asked"),
        ("cannot open 17.mp4", "cannot open VIDEO"),
        ("two\nlines", "two lines"),
    ],
)
def test_failure_reasons_have_no_path_id_or_number(error, reason):
    assert failure_reason(error, "a/17.mp4", "clip17") == reason


# ---------------------------------------------------------------- files


def test_files_hold_the_report(tmp_path, report):
    directory = write(tmp_path, make_videos(160, failed={7, 60, 113}), make_meta(160))
    paths = save_report(report, directory)
    assert paths == [directory / f"report.{kind}" for kind in ("json", "md", "html")]
    assert json.loads(paths[0].read_text()) == report
    assert paths[1].read_text() == markdown(report)
    assert build_report(read_predictions(directory)) == report, "a report is not part of the predictions"
    assert save_report(report, tmp_path / "new" / "out")[0] == tmp_path / "new" / "out" / "report.json"
    assert not list(tmp_path.rglob("*.tmp"))


def test_markdown_starts_with_the_result_and_names_every_level(report):
    text = markdown(report)
    first = text.splitlines()[2]
    figures = report["accuracy"]["evaluated"]["video"]["top1"]
    assert first.startswith(f"**slow_r50 + dnl: top-1 {100 * figures['value']:.1f}% (95% interval ")
    assert first.endswith(" on 157 of 160 listed videos; 10 clips x 3 crops at 256, clips of 8 frames with stride 8.**")
    for expected in (
        "] | mean of all 30 views, 157 evaluated videos |",
        "] | mean of all 30 views, 160 listed videos, failed = wrong |",
        "] | sixth of 10 clips, mean of its 3 crops |",
        "| each clip, mean of its 3 crops |",
        "| `val/v00007.mp4` | cannot decode frame 7 |\n",
        f"| weights sha256 | {'a' * 64} |",
        "context_options (pool [1, 2, 2])",
        "target_fps null",
        "| device | cpu |",
    ):
        assert expected in text


def test_all_rows_of_a_markdown_table_have_the_same_number_of_cells(tmp_path):
    names = ["a|b", "c`d", "_e_", "f*g", "<b>", "h\\|i", "j\nk", "l [m](n)"]
    videos = list(make_videos(24, failed={3}))
    for video in videos:
        video.video_id += "|`x"
    lines = markdown(report_of(tmp_path, videos, make_meta(24, names))).splitlines()
    cells = [len(line.replace("\\\\", "").replace("\\|", "").split("|")) * line.startswith("|") for line in lines]
    blocks = [set(block) for is_table, block in itertools.groupby(cells, key=bool) if is_table]
    assert len(blocks) >= 8
    assert all(len(block) == 1 for block in blocks), blocks


def test_markdown_lists_50_failures(tmp_path):
    report = report_of(tmp_path, make_videos(60, failed=range(60)), make_meta(60))
    text = markdown(report)
    assert text.count("\n| `val/") == 50
    assert "Failed videos; 10 more are in report.json:" in text
    assert "<details>" not in text
    assert len(report["coverage"]["failed_videos"]) == 60


def test_markdown_folds_long_tables(tmp_path):
    text = markdown(build_report(read_predictions(write_large(tmp_path, 51, 51, num_clips=21))))
    assert text.count("<details>") == text.count("</details>") == 1
    assert "<details><summary>Top-1 by class</summary>\n\n| class | videos |" in text
    assert "] | clip 11 of 21, mean of its 3 crops |" in text


def test_escaping():
    assert escape("slow_r50 [1, 2] rock & roll") == "slow_r50 [1, 2] rock & roll"
    assert escape("__a__|<b>\n*c* [x](y) &lt;") == r"\_\_a\_\_\|&lt;b> \*c\* [x]\(y) \&lt;"
    assert code("a|b`c") == r"`` a\|b`c ``"
    assert code("") == ""


def test_output_folder_cannot_be_created(tmp_path, report):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: cannot be made \(.*\); choose another folder"):
        save_report(report, tmp_path / "file")


@pytest.mark.full
def test_a_large_run_is_reported_in_bounded_time_memory_and_size(tmp_path, full_size):
    """20,000 videos x 400 classes x 10 clips take at most 60 s and 4 GiB on two cores, and 8 MB of HTML."""
    write_large(tmp_path, *((20_000, 400) if full_size else (1_000, 100)))
    # In a new process, because the peak memory of this one includes earlier tests.
    code = (
        "import sys; from pathlib import Path; from dnl_video.report import build_report, save_report; "
        "from dnl_video.results.reader import read_predictions; "
        "save_report(build_report(read_predictions(sys.argv[1])), sys.argv[1]); "
        "print(Path('/proc/self/status').read_text() if Path('/proc/self/status').exists() else '')"
    )
    began = time.monotonic()
    shown = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert not full_size or time.monotonic() - began < 60
    peak = [int(line.split()[1]) for line in shown.stdout.splitlines() if line.startswith("VmHWM")]  # KiB
    assert all(kib < (4 * 2**20 if full_size else 2**19) for kib in peak)
    assert (tmp_path / "report.html").stat().st_size < 8e6
    assert json.loads((tmp_path / "report.json").read_text())["coverage"]["failed"] == (51 if full_size else 3)
