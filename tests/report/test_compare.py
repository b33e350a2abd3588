"""Comparisons of small runs, checked by hand."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnl_video.cli.main import main
from dnl_video.errors import InputError
from dnl_video.report import build_report
from dnl_video.report.compare import build_comparison
from dnl_video.report.compare_document import compare_document, p_value
from dnl_video.report.document import points
from dnl_video.report.render_html import render_html
from dnl_video.report.render_text import render_markdown
from dnl_video.results.metrics import mean_class_accuracy
from dnl_video.results.paired import PairedCounts, mcnemar_exact, paired_difference
from dnl_video.results.predictions import Predictions, VideoPrediction
from dnl_video.results.reader import read_predictions
from tests.browser import chromium
from tests.report.directories import make_meta, write

NAMES = ["moving <left>", "moving | right", "growing"]
# Video, label, prediction of A and prediction of B; None: failed.
VIDEOS = [
    *((f"both{i}", i % 3, i % 3, i % 3) for i in range(6)),
    *((f"won{i}", 0, 1, 0) for i in range(5)),
    *((f"lost{i}", 1, 1, 2) for i in range(2)),
    *((f"wrong{i}", 2, 0, 1) for i in range(3)),
    ("onlyA", 0, 0, None),
    ("onlyB", 1, None, 1),
]


def predictions(
    folder: Path, which: int, videos: list[Any] = VIDEOS, names: list[str] = NAMES, **changes: Any
) -> Predictions:
    """Write and read the predictions of network `which`, 0 or 1."""
    values = {
        **{"model": {"architecture": "slow_r50", "context": ["none", "dnl"][which]}, "num_clips": 2, "num_crops": 1},
        **{"preprocessing": {"crop_size": 224}, "weights_sha256": str(which), **changes},
    }
    made = []
    for name, label, *predicted in videos if which else reversed(videos):  # the order must not matter
        if predicted[which] is None:
            made.append(VideoPrediction(name, name, label, error="broken"))
        else:
            scores = np.where(np.arange(len(names)) == predicted[which], 0.8, 0.1)
            made.append(VideoPrediction(name, name, label, 2, scores))
    return read_predictions(write(folder, made, make_meta(values.pop("num_videos", len(videos)), names, **values)))


def markdown(comparison: dict[str, Any]) -> str:
    return render_markdown(compare_document(comparison))


Runs = list[tuple[str, Predictions]]


def two_runs(folder: Path, *args: Any, **changes: Any) -> Runs:
    return [(name, predictions(folder / name, which, *args, **changes)) for which, name in enumerate("AB")]


@pytest.fixture
def pair(tmp_path: Path) -> Runs:
    return two_runs(tmp_path)


@pytest.mark.parametrize("num_classes", [5, 6])
def test_top5_is_compared_if_there_are_more_than_five_classes(num_classes: int, tmp_path: Path) -> None:
    names = [f"class {c}" for c in range(num_classes)]
    # A scores one class above the label and all others equal to it, which counts as wrong; B is right.
    videos = [(f"v{i}", i % num_classes, (i + 1) % num_classes, i % num_classes) for i in range(12)]
    result = build_comparison(two_runs(tmp_path, videos, names))
    expected = {"top1": 1.0, "top5": 1.0, "mean_class_accuracy": 1.0}
    if num_classes == 5:
        del expected["top5"]
    found = result["comparisons"][0]["differences"]["evaluated"]
    assert {key: figure["value"] for key, figure in found.items()} == expected
    assert list(result["runs"][0]["accuracy"]["evaluated"]) == list(expected)
    for text in (markdown(result), render_html(compare_document(result))):
        assert ("top-5" in text) == (num_classes == 6)


def test_the_numbers_by_hand(pair: Runs) -> None:
    result = build_comparison(pair)
    one = result["comparisons"][0]
    assert one["mcnemar"] == {
        "both_right": 6, "only_reference_right": 2, "only_run_right": 5, "both_wrong": 3,
        "p": 58 / 128, "p_holm": None,  # 2 · (1 + 7 + 21) / 2^7
    }  # fmt: skip
    expected = paired_difference(PairedCounts(6, 2, 5, 3))
    assert one["differences"]["evaluated"]["top1"] == expected._asdict()
    assert expected.value == pytest.approx(3 / 16)
    assert list(one["differences"]["evaluated"]) == ["top1", "mean_class_accuracy"]
    assert "top-5" not in markdown(result) + render_html(compare_document(result))
    # Classes 0: 2 of 7 against 7; 1: 4 of 4 against 2; 2: 2 of 5 twice.
    assert one["differences"]["evaluated"]["mean_class_accuracy"]["value"] == pytest.approx((5 / 7 - 2 / 4 + 0) / 3)
    table = {row["name"]: row for row in one["classes"]["table"]}
    assert table["moving <left>"]["difference"] == pytest.approx(5 / 7)
    assert [table["moving <left>"][key] for key in ("won", "lost", "videos")] == [5, 0, 7]
    assert table["moving | right"]["difference"] == pytest.approx(-2 / 4)
    assert (one["classes"]["better"], one["classes"]["worse"], one["classes"]["equal"]) == (1, 1, 1)
    assert {video["video_id"] for video in one["won"]} == {f"won{i}" for i in range(5)}
    assert {video["video_id"] for video in one["lost"]} == {"lost0", "lost1"}
    assert one["won"][0]["reference"] == {"predicted": "moving | right", "score": pytest.approx(0.8)}
    assert one["won"][0]["run"] == {"predicted": "moving <left>", "score": pytest.approx(0.8)}


def test_failed_videos_are_left_out_or_wrong(pair: Runs) -> None:
    """As in a report: over evaluated videos, and over all listed ones where a failure is wrong."""
    result = build_comparison(pair)
    assert result["videos"]["compared"] == 16
    assert result["videos"]["left_out_videos"] == [
        {"video_id": "onlyA", "failed_in": ["B"]},
        {"video_id": "onlyB", "failed_in": ["A"]},
    ]
    listed = result["comparisons"][0]["differences"]["listed"]["top1"]
    assert listed == paired_difference(PairedCounts(6, 3, 6, 3))._asdict()
    for run, (_, read) in zip(result["runs"], pair, strict=True):
        assert run["accuracy"]["listed"] == build_report(read)["accuracy"]["listed"]["video"]
        assert run["accuracy"]["evaluated"]["top1"]["total"] == 16
    assert "2 of 18 videos have no scores in at least one run." in result["notes"][0]


def test_without_failures_accuracies_are_the_reports(tmp_path: Path) -> None:
    runs = two_runs(tmp_path, [video for video in VIDEOS if None not in video])
    result = build_comparison(runs)
    for run, (_, read) in zip(result["runs"], runs, strict=True):
        assert run["accuracy"]["evaluated"] == build_report(read)["accuracy"]["evaluated"]["video"]
    differences = result["comparisons"][0]["differences"]
    assert differences["evaluated"] == differences["listed"]
    assert result["notes"] == []
    means = [mean_class_accuracy(r.scores.argmax(axis=1) == r.label, r.label).value for _, r in runs]
    assert differences["evaluated"]["mean_class_accuracy"]["value"] == pytest.approx(means[1] - means[0])


def test_ties_and_nan_are_wrong(tmp_path: Path) -> None:
    runs = two_runs(tmp_path, [(f"v{i}", 0, 0, 0) for i in range(4)])
    runs[1][1].scores[0] = 0.5  # all classes alike
    runs[1][1].scores[1] = np.nan
    result = build_comparison(runs)
    one = result["comparisons"][0]
    assert (one["mcnemar"]["both_right"], one["mcnemar"]["only_reference_right"]) == (2, 2)
    predicted = {video["video_id"]: video["run"]["predicted"] for video in one["lost"]}
    assert predicted == {"v0": "moving | right", "v1": None}
    assert "NaN scores" in markdown(result)


def test_several_runs_have_adjusted_p_values(pair: Runs, tmp_path: Path) -> None:
    third = predictions(tmp_path / "C", 1, [(v, k, a, k) for v, k, a, _ in VIDEOS])
    result = build_comparison([*pair, ("C", third)])
    assert [run["letter"] for run in result["runs"]] == ["A", "B", "C"]
    # All runs are compared on the videos that have scores in every run.
    assert result["videos"]["compared"] == 16
    p = [one["mcnemar"]["p"] for one in result["comparisons"]]
    assert p == [58 / 128, mcnemar_exact(PairedCounts(8, 0, 8, 0))]
    assert [one["mcnemar"]["p_holm"] for one in result["comparisons"]] == [58 / 128, 2 * p[1]]
    text = markdown(result)
    assert "the Holm-adjusted p accounts for these 2 tests" in text
    assert "| C, A | 8 | 8 | 0 | 0 | 0.0078 | 0.016 |" in text
    # By gain.
    assert (
        text.index("| moving &lt;left> |") < text.index("| growing |") < text.index("| moving \\| right |")
    )  # by gain


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"videos": [*VIDEOS[1:], ("new", 0, 0, 0)]},
            "A and B are of different videos: 1 ('both0') only in A, 1 ('new') only in B; evaluate both on one list",
        ),
        (
            {"videos": VIDEOS[5:]},
            "A and B are of different videos: 5 ('both0', 'both1', 'both2', ...) only in A, 0 only in B; evaluate",
        ),
        (
            {"videos": VIDEOS[1:], "num_videos": 18},
            "0 only in B; B is unfinished (17 of 18); evaluate both on one list",
        ),
        (
            {"videos": [("both0", 2, 0, 0), *VIDEOS[1:]]},
            "the labels of 1 of 18 videos differ: 'both0' is 'moving <left>' in A and 'growing' in B; evaluate both",
        ),
        ({"names": [*NAMES, "more"]}, "A has 3 classes, B has 4; compare networks with one class list"),
        (
            {"names": NAMES[::-1]},
            "the classes of A and B differ (the same names in another order): class 0 is 'moving <left>' and 'growing'",
        ),
        ({"names": ["x", *NAMES[1:]]}, "A and B differ (1 of 3 names differ): class 0 is 'moving <left>' and 'x'"),
    ],
)
def test_error_names_the_difference(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    first, second = predictions(tmp_path / "A", 0), predictions(tmp_path / "B", 1, **changed)
    with pytest.raises(InputError) as error:
        build_comparison([("A", first), ("B", second)])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_to_compare(tmp_path: Path) -> None:
    runs = two_runs(tmp_path, [("v", 0, 0, None)])
    with pytest.raises(InputError, match="no video has scores in every run, so there is nothing to compare"):
        build_comparison(runs)
    with pytest.raises(InputError, match="a comparison needs two or more runs, and there are 1"):
        build_comparison(runs[:1])
    runs[0][1].label[:] = -1
    with pytest.raises(InputError, match=r"1 of 1 predictions have no label .*, and a comparison needs them in A; run"):
        build_comparison(runs)


def test_note_about_different_protocols(pair: Runs) -> None:
    pair[1][1].meta = dataclasses.replace(pair[1][1].meta, num_clips=10)
    notes = build_comparison(pair)["notes"]
    protocols = "10 clips x 1 crop at 224; 2 clips x 1 crop at 224"
    assert f"The protocols differ ({protocols}); the differences include their effect." in notes


def test_equally_unfinished_runs_have_no_figures_over_listed_videos(tmp_path: Path) -> None:
    result = build_comparison(two_runs(tmp_path, num_videos=30))
    assert result["comparisons"][0]["differences"]["listed"] is None
    assert "Incomplete: A is unfinished (18 of 30), so there are no figures over listed videos." in result["notes"]


def test_numbers_as_text() -> None:
    assert [points(x) for x in (0.0123, -0.004, 0.0, -0.0001)] == ["+1.2", "-0.4", "0.0", "0.0"]
    assert [p_value(p) for p in (1.0, 0.0385742, 0.00012)] == ["1", "0.039", "0.00012"]
    assert [p_value(p) for p in (1e-9, 0.0)] == ["< 0.0001"] * 2


def seeds(folder: Path, number: int) -> Runs:
    """Runs of one recipe with other seeds, the weights and the settings in their run folders."""
    runs = []
    for seed in range(number):
        run = folder / f"dnl_s{seed}"
        (run / "checkpoints").mkdir(parents=True)
        (run / "config.yaml").write_text(f"seed: {seed}\noptim: {{lr: 0.{seed + 1}, momentum: 0.9}}", encoding="utf-8")
        model = {"architecture": "slow_r50", "context": "dnl"}
        weights = str(run / "checkpoints" / "best-epoch001-top1_0.5.ckpt")
        read = predictions(run / "p", seed % 2, model=model, weights=weights, weights_sha256="0")
        runs.append((str(run / "p"), read))
    return runs


def test_two_seeds_of_one_recipe_have_names_and_a_legend(tmp_path: Path) -> None:
    result = build_comparison(seeds(tmp_path, 2))
    assert [run["short_name"] for run in result["runs"]] == ["dnl_s0", "dnl_s1"]
    assert result["runs"][1]["settings"] == {"seed": "1", "optim.lr": "0.2"}
    text = markdown(result)
    assert text.startswith("# dnl_s1 compared with dnl_s0\n")
    assert "| B | dnl_s1 | slow_r50 + dnl, seed 1, optim.lr 0.2 | " in text
    assert "**B (dnl_s1) minus A (dnl_s0): top-1 +18.8 points" in text
    assert text.index("| B | dnl_s1 |") < text.index("## Differences")


def test_seven_networks_have_a_panel_each(tmp_path: Path) -> None:
    page = render_html(compare_document(build_comparison(seeds(tmp_path, 7))))
    for name, networks in (("changed-classes", "BCDEFG"), ("reliability", "ABCDEFG")):
        figure = re.search(rf'<svg(?:(?!</svg>).)*id="{name}-figure_1".*?</svg>', page, re.DOTALL)
        assert figure is not None
        titles = [f"{letter}: dnl_s{ord(letter) - ord('A')}" for letter in networks]
        assert [text for text in re.findall(r">([A-G]: [^<]*)</text>", figure[0]) if text in titles] == titles


def test_calibration_of_each_network(pair: Runs) -> None:
    """All highest scores are 0.8: the error is the distance to the accuracy."""
    for run in build_comparison(pair)["runs"]:
        accuracy = run["accuracy"]["evaluated"]["top1"]["value"]
        assert run["calibration"]["ece"] == pytest.approx(abs(accuracy - 0.8), abs=1e-6)


def test_markdown_and_html_escape_names(pair: Runs) -> None:
    result = build_comparison(pair)
    text, page = markdown(result), render_html(compare_document(result))
    assert "B (slow_r50 + dnl) minus A" in text
    assert "moving &lt;left>" in text
    assert r"moving \| right" in text
    assert "moving &lt;left&gt;" in page
    assert "<left>" not in page


def test_the_command(pair: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path / "A"), str(tmp_path / "B"), "--output", str(tmp_path / "out")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "B (slow_r50 + dnl) minus A (slow_r50): top-1 +18.8 points" in shown
    assert shown.endswith(" ".join(f"wrote {tmp_path / 'out' / f'compare.{kind}'}" for kind in ("json", "md", "html")))
    written = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    named = [(str(tmp_path / name), read) for name, read in pair]
    assert written == json.loads(json.dumps(build_comparison(named)))


def test_two_comparisons_with_one_reference_have_two_folders(pair: Runs, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(tmp_path / "B", tmp_path / "C")
    for _ in range(2):
        for other in "BC":
            assert main(["compare", str(tmp_path / "A"), str(tmp_path / other)]) == 0
    folders = sorted(tmp_path.glob("comparison-????????"))
    names = [[run["name"] for run in json.loads((f / "compare.json").read_text())["runs"]] for f in folders]
    assert sorted(names) == [[str(tmp_path / "A"), str(tmp_path / other)] for other in "BC"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["A"], "only one run was given (A); give two or more, the reference first"),
        (["A", "./A"], "a run is given twice; give each once, the reference first"),
        (["A", "B", "--classes", "c.txt"], "--classes and --manifest are for results of other projects"),
        (["A", "nowhere"], "nowhere does not exist; give the directory"),
    ],
)
def test_bad_commands(
    words: list[str], message: str, pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *words]) == 2
    assert message in capsys.readouterr().err


def test_another_projects_file_against_a_directory(
    pair: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A CSV of B's scores in place of B gives the same differences."""
    read = pair[1][1]
    rows = ["video_id,label,score_0,score_1,score_2"]
    for video, label, scores, done in zip(read.video_id, read.label, read.scores, read.evaluated, strict=True):
        if done:
            rows.append(f"{video},{label},{','.join(str(x) for x in scores)}")
    (tmp_path / "b.csv").write_text("\n".join(rows), encoding="utf-8")
    # The list has class indices, because names with pipes would need quotes.
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(f"{v},{k}" for v, k, *_ in VIDEOS), encoding="utf-8")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")
    options = ["--classes", str(tmp_path / "classes.txt"), "--manifest", str(tmp_path / "list.csv")]
    out = str(tmp_path / "out")
    assert main(["compare", str(tmp_path / "A"), str(tmp_path / "b.csv"), *options, "--output", out]) == 0
    capsys.readouterr()
    written = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    expected = json.loads(json.dumps(build_comparison(pair)))
    for key in ("differences", "mcnemar", "classes"):
        assert written["comparisons"][0][key] == expected["comparisons"][0][key]
    assert written["runs"][1]["model_name"] == "b.csv"


DIFFERENCES = "[...document.querySelectorAll('table.sortable tbody tr')].map(r => r.cells[4].textContent)"
# A caption wraps at the width of the screen, although its table scrolls.
CAPTIONS_FIT = """[...document.querySelectorAll("caption")].every(
  e => e.getBoundingClientRect().right <= document.documentElement.clientWidth)"""


def test_in_a_browser(pair: Runs, tmp_path: Path) -> None:
    file = tmp_path / "compare.html"
    file.write_text(render_html(compare_document(build_comparison(pair))), encoding="utf-8")
    with chromium() as page:
        for width in (1200, 390):
            page.open(file, width)
            assert page.problems == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("document.querySelectorAll('figure svg').length") == 3
            assert page.evaluate(CAPTIONS_FIT)
            for shown in (["+71.4", "0.0", "-50.0"], ["-50.0", "0.0", "+71.4"]):
                page.click("table.sortable thead th:nth-child(5) button")
                assert page.evaluate(DIFFERENCES) == shown
