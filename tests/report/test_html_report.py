import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from dnl_video.report import build_report
from dnl_video.report.document import Document, FilmStrips, Table
from dnl_video.report.render_html import film_strip, render_html
from dnl_video.report.report_document import report_document
from dnl_video.results.predictions import VideoPrediction
from dnl_video.results.reader import read_predictions
from tests.report.directories import make_meta, make_videos, report_of, write_large
from tests.report.pages import Outline, html

CLASSES = "Top-1 by class. Click a heading to sort; click again to reverse."


@pytest.fixture(scope="module")
def outline(report):
    return Outline(html(report))


def percent(share):
    return f"{100 * share:.1f}%"


def test_the_page_shows_the_figures_of_the_report(report, outline):
    figures = report["accuracy"]["evaluated"]
    for key in ("top1", "top5", "mean_class_accuracy"):
        assert percent(figures["video"][key]["value"]) in outline.text
    levels = {row[0]: row[1:] for row in outline.tables["Accuracy by level, with 95% intervals"]}
    for name, level in (("video-level", "video"), ("centre-clip", "centre_clip"), ("clip-level", "clip")):
        top1 = figures[level]["top1"]
        bounds = f"[{100 * top1['low']:.1f}, {100 * top1['high']:.1f}]"
        assert levels[name][0] == f"{percent(top1['value'])} {bounds}"
    clips = outline.tables["Top-1 by number of clips"][1:]
    assert [row[0] for row in clips] == [str(k) for k in range(1, 11)]
    assert clips[-1][1].startswith(percent(figures["video"]["top1"]["value"]))
    coverage = {row[0]: row[1:3] for row in outline.tables["Videos, and top-1 over them"]}
    assert coverage["evaluated"][0] == "157"
    assert coverage["failed"][0] == "3"
    assert coverage["listed"][1].startswith(percent(report["accuracy"]["listed"]["video"]["top1"]["value"]))
    assert outline.tables["Why videos failed"][1] == ["VIDEO: cannot decode frame N", "3", "v00007"]
    assert outline.tables["Failed videos"][1] == ["val/v00007.mp4", "cannot decode frame 7"]
    classes = [[c["name"], str(c["videos"]), percent(c["accuracy"])] for c in report["per_class"]]
    assert [row[:3] for row in outline.tables[CLASSES][1:]] == classes
    assert percent(report["calibration"]["ece"]) in outline.text
    for expected in ("a" * 64, "b" * 64, "runs/a/best.ckpt", "dnl_video 0.1.0", "10 clips x 3 crops at 256"):
        assert expected in outline.text
    assert "benchmarks quote this one" in outline.text


def test_figures_are_inline_and_described(outline):
    """Accuracy by clips, classes, confusion, reliability."""
    labels = outline.all("svg", "aria-label")
    assert [label.split()[0] for label in labels] == ["Line:", "Bars:", "Confusion", "Reliability"]
    assert outline.all("svg", "role") == ["img"] * 4


def test_the_confusion_figure_counts_the_videos_of_each_cell(report, outline):
    counts = sorted(count for *_, count in report["confusion"])
    svg = re.search(r'<svg[^>]*aria-label="Confusion.*?</svg>', html(report), re.DOTALL)[0]
    shown = [int(text) for text in re.findall(r"<text[^>]*>(\d+)</text>", svg)]
    assert sorted(shown) == counts


def test_page_is_self_contained_and_ids_are_unique(report):
    text = html(report, lambda path: np.zeros((2, 8, 8, 3), dtype=np.uint8))
    outline = Outline(text)
    for name in ("src", "href", "xlink:href"):
        assert all(re.match(r"data:|#", value) for value in outline.all("*", name))
    assert re.findall(r"url\((?!#)", text) == []
    assert "@import" not in text
    ids = outline.all("*", "id")
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:xlink:href="|url\()#([^")]+)', text)
    assert set(used) <= set(ids)


def test_headings_tables_and_language_are_accessible(outline):
    assert outline.all("html", "lang") == ["en"]
    assert "width=device-width, initial-scale=1" in outline.all("meta", "content")
    assert set(outline.all("th", "scope")) == {"col", "row"}
    assert len(outline.all("th", "scope")) == len(outline.of("th"))
    assert len(outline.of("h1")) == 1
    assert len(outline.of("caption")) == len(outline.of("table"))


def test_the_same_report_gives_the_same_page(report):
    assert html(report) == html(json.loads(json.dumps(report)))


def test_names_are_escaped(tmp_path):
    names = ["<script>alert(1)</script>", 'a"b', "$x$ & $y$", "日本", "l\nm", "&lt;", "x" * 300, "'"]
    videos = list(make_videos(40, failed={3}))
    for video in videos:
        video.video_id += '<img src="x">'
    videos[3].error = "</table><script>"
    report = report_of(tmp_path, videos, make_meta(40, names))
    outline = Outline(html(report, lambda path: "<b>gone</b>"))
    assert len(outline.of("script")) == 1
    assert outline.of("img") == []
    for name in names:
        assert name in outline.text
    assert "$x$ & $y$" in outline.text.replace(r"\$", "!")
    assert "<b>gone</b>" in outline.text


def test_many_classes_have_a_curve_both_ends_and_a_zoom(tmp_path):
    report = build_report(read_predictions(write_large(tmp_path, 600, 60, num_clips=2)))
    text = html(report)
    outline = Outline(text)
    labels = outline.all("svg", "aria-label")
    kinds = "Line: Curve: Bars: Bars: Confusion Confusion Reliability"
    assert " ".join(label.split()[0] for label in labels) == kinds
    assert "top-1 of 20 classes" in labels[2]
    whole, zoom = re.findall(r'<svg[^>]*aria-label="Confusion.*?</svg>', text, re.DOTALL)
    assert "long" not in re.sub(r'aria-label="[^"]*"', "", whole)  # no 60 names
    pair = report["confused_pairs"][0]
    numbers = [int(text) for text in re.findall(r"<text[^>]*>(\d+)</text>", zoom)]
    assert max(numbers) >= pair["videos"]
    assert pair["label"][-3:] in zoom
    assert len(outline.tables[CLASSES]) == 61
    assert len(text) < 1e6


def test_confusion_matrix_of_30_classes_has_names_and_no_numbers(tmp_path):
    text = html(build_report(read_predictions(write_large(tmp_path, 90, 30, num_clips=1))))
    chart = re.search(r'<svg[^>]*aria-label="Confusion.*?</svg>', text, re.DOTALL)[0]
    assert chart.count("029</text>") == 2  # beside rows and below columns
    assert not re.search(r"<text[^>]*>\d+</text>", chart)


# ---------------------------------------------------------------- unusual runs


def test_without_clips_probabilities_and_some_classes(tmp_path):
    videos = [VideoPrediction(f"v{i}", "p", i, 1, 0.5 + 2.5 * np.eye(8)[i % 2]) for i in range(3)]
    text = html(report_of(tmp_path, videos, make_meta(3), clip_scores=False))
    assert "No calibration: the highest scores span [3, 3]" in text
    outline = Outline(text)
    assert outline.tables[CLASSES][8] == ["ccw", "0", "", "", "0", ""]
    assert "predicted left, confidence 3, label up, label score 0.5, label rank 8" in " ".join(outline.text.split())


def test_title_and_sentences_fit_the_data(tmp_path):
    meta = make_meta(2, ["cat", "dog"], num_clips=1, num_crops=1)
    right = [VideoPrediction(f"v{i}", "p", i, 1, np.eye(2, dtype=np.float32)[i]) for i in range(2)]
    text = Outline(html(report_of(tmp_path / "right", right, meta))).text
    assert "Accuracy of slow_r50 + dnl on data/val.csv (run a)" in text
    assert "Video-level, 2 videos, 2 classes; 1 clip x 1 crop" in text
    assert "the only clip, 2 evaluated videos" in text
    assert "No evaluated video is wrong." in text
    for absent in ("Coverage", "centre-clip", "Papers call", "usually"):
        assert absent not in text
    right[1].scores = np.array([0.75, 0.25], dtype=np.float32)
    assert "The only wrong video; a label" in Outline(html(report_of(tmp_path / "wrong", right, meta))).text
    right[1].scores = np.full(2, np.nan, dtype=np.float32)
    assert "wrong video" not in Outline(html(report_of(tmp_path / "nan", right, meta))).text
    one = make_meta(1, ["cat"], num_clips=1, num_crops=3)
    text = Outline(html(report_of(tmp_path / "one", [VideoPrediction("v", "p", 0, 3, np.ones(1))], one))).text
    assert "There is only one class, so the accuracy says nothing about the network." in text
    assert "the only clip, mean of its 3 crops, 1 evaluated video" in text
    failed = [VideoPrediction("v", "p", 0, error="p: broken")]
    text = Outline(html(report_of(tmp_path / "failed", failed, make_meta(1)))).text
    assert "no video could be evaluated, the only one failed." in text
    assert "Papers call" not in text
    assert "Wrong videos" not in text


def test_figures_of_the_training_run(predictions, report):
    curves = {"val/top1": [(1, 0.25), (2, 0.5)], "train/loss": [(1, 2.0)]}
    with_run = build_report(predictions, curves)
    assert with_run == {**report, "training": {"val/top1": [[1, 0.25], [2, 0.5]], "train/loss": [[1, 2.0]]}}
    labels = Outline(html(build_report(predictions, {"train/loss": [(1, 2.0)]}))).all("svg", "aria-label")
    assert "Lines: loss, top-1 and learning rate by epoch." in labels  # trained without a validation list
    labels = Outline(html(json.loads(json.dumps(with_run)))).all("svg", "aria-label")
    assert "Lines: loss, top-1 and learning rate by epoch; the best validation top-1 is 50.0%." in labels


def test_mistakes_link_to_the_videos_that_are_there(report):
    paths = [mistake["path"] for mistake in report["confident_mistakes"]]
    outline = Outline(render_html(report_document(report), None, {paths[0]: 'a/"b c.mp4'}.get))
    assert [link for link in outline.all("a", "href") if not link.startswith("#")] == ['a/"b c.mp4']
    assert len(paths) > 1


# ---------------------------------------------------------------- frames


def test_film_strips_show_frames_side_by_side(report):
    asked = []

    def read(path):
        asked.append(path)
        frames = np.zeros((6, 40, 50, 3), dtype=np.uint8)
        frames[np.arange(6), :, :, 0] = 40 * np.arange(6)[:, None, None]
        return frames

    outline = Outline(html(report, read))
    mistakes = report["confident_mistakes"]
    assert asked == [m["path"] for m in mistakes]
    images = outline.of("img")
    assert [image["alt"] for image in images] == [f"Frames of {m['video_id']}" for m in mistakes]
    assert {(image["width"], image["height"]) for image in images} == {("315", "40")}
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(images[0]["src"].partition(",")[2]))))
    np.testing.assert_allclose(pixels[20, 25::53, 0], 40 * np.arange(6), atol=6)
    assert (pixels[20, 51::53] > 180).all()  # a white gap between frames


def test_a_video_without_frames_is_a_box_with_the_reason():
    assert film_strip("a<b not found", "alt") == '<div class="no-frames">a&lt;b not found</div>'


def test_film_strips_have_a_size_limit():
    """Noise does not compress, and these frames are larger than usual."""
    rng = np.random.default_rng(0)
    strips = FilmStrips(Table("videos", ["video"], [["v"]] * 20, "l"), ["p"] * 20)
    page = render_html(
        Document("", [strips], []), lambda path: rng.integers(256, size=(6, 720, 1280, 3), dtype=np.uint8)
    )
    boxes = re.findall(r'<img|<div class="no-frames">left out, to keep this file small</div>', page)
    assert boxes[0] == "<img"
    assert boxes[-1] != "<img"
    assert len(page) < 4e6
