"""One page for several runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from dnl_video.cli.main import main
from dnl_video.report import build_report
from dnl_video.report.index import build_index
from dnl_video.results.predictions import VideoPrediction
from dnl_video.results.reader import read_predictions
from tests.browser import chromium
from tests.report.directories import make_meta, make_videos, write
from tests.report.pages import Outline

LOG = "epoch,step,val/top1\n0,9,0.25\n1,19,0.75\n2,29,0.5\n"


def evaluation(folder: Path, signal: float, n: int = 24, **changes) -> Path:
    return write(folder, make_videos(n, failed={3}, signal=signal), make_meta(n, **changes))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two seeds in run folders, one of them with its logs; two directories on another list; scores without labels."""
    monkeypatch.chdir(tmp_path)
    for seed, signal in enumerate((1.0, 3.0)):
        folder = Path("runs") / f"s{seed}"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(f"seed: {seed}")
        known = {"date": "2026-11-28T20:26:39Z", "parameters": "1,234,567"} if seed else {}
        evaluation(folder / "evaluation" / "best", signal, weights=f"{folder}/checkpoints/last.ckpt", run=known)
    (folder / "logs" / "csv").mkdir(parents=True)
    (folder / "logs" / "csv" / "metrics.csv").write_text(LOG)
    shutil.copytree(folder / "evaluation", Path("other") / "natural")
    evaluation(Path("other") / "small", 2.0, 16, manifest="small.csv", manifest_sha256="c" * 64)
    shutil.rmtree(Path("other") / "natural")
    unlabelled = make_meta(1, labelled=False)
    write(Path("runs") / "s0" / "predicted", [VideoPrediction("v", "v.mp4", None, error="broken")], unlabelled)
    return tmp_path


def test_runs_are_ranked_within_their_list(runs):
    folders = ["runs/s0/evaluation/best", "other/small", "runs/s1/evaluation/best"]
    first, second = build_index([(folder, read_predictions(folder, clip_scores=False)) for folder in folders])
    assert (first["source"], second["source"]) == ("data/val.csv", "small.csv")
    assert [run["name"] for run in first["runs"]] == ["s1", "s0"]  # the better one first, although given last
    for run in first["runs"]:
        report = build_report(read_predictions(run["directory"], clip_scores=False))
        assert run["accuracy"] == report["accuracy"]
    assert first["runs"][0]["val_top1"] == [(1, 0.25), (2, 0.75), (3, 0.5)]
    assert first["runs"][1]["val_top1"] is None


def test_the_command_writes_a_page_for_folders_of_runs(runs, capsys):
    assert main(["report", "runs/s1/evaluation/best"]) == 0
    capsys.readouterr()
    assert main(["report", "runs", "other/small", "--index", "--output", "pages/all.html"]) == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^ (s\d|slow_r50 \+ dnl) +(\S+%)", shown, re.MULTILINE) == [("s1", "87.0%"), ("s0", "52.2%")]
    assert shown.endswith("wrote pages/all.json\nwrote pages/all.md\nwrote pages/all.html\n")
    outline = Outline(Path("pages/all.html").read_text())
    caption = next(caption for caption in outline.tables if caption.startswith("Runs on data/val.csv, 24 videos, 8 "))
    header, best, other = outline.tables[caption]
    assert header[-5:] == ["failed", "views", "parameters", "date", "best validation"]
    assert (best[0], other[0]) == ("s1", "s0")
    assert best[-5:] == ["1", "10 x 3", "1.23M", "2026-11-28", " 75.0%"]
    assert other[-3:] == ["", "", ""]
    assert [link for link in outline.all("a", "href") if "report" in link] == ["../runs/s1/evaluation/best/report.html"]
    text = Path("pages/all.md").read_text()
    assert "[s1](../runs/s1/evaluation/best/report.html) | " in text
    assert "## 2. small.csv, 16 videos, 8 classes" in text
    assert [len(one["runs"]) for one in json.loads(Path("pages/all.json").read_text())["lists"]] == [2, 1]


def test_a_part_of_a_list_is_another_list(tmp_path):
    runs = [(str(tmp_path / str(n)), read_predictions(evaluation(tmp_path / str(n), 2.0, n))) for n in (8, 16)]
    assert [(one["listed"], len(one["runs"])) for one in build_index(runs)] == [(8, 1), (16, 1)]


def test_an_unfinished_run_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(Path("a"), list(make_videos(24))[:10], make_meta(24))
    assert main(["report", "a", "--index"]) == 0
    capsys.readouterr()
    assert "10 of 24, unfinished" in Path("index.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs/s0", "runs/s1"], "2 runs were given; give one, or --index for one page that lists them all"),
        (["runs", "--index", "--output", "all"], "--output all is not the name of a page; give a name that ends in"),
        (["runs/s0/predicted", "--index"], "1 of 1 predictions have no label"),
        (["nowhere", "--index"], "nowhere does not exist"),
        (["runs/s0/checkpoints", "--index"], "has no meta.json, so it is not a predictions directory"),
    ],
)
def test_bad_commands(runs, words, message, capsys):
    assert main(["report", *words]) == 2
    assert message in capsys.readouterr().err


def test_in_a_browser(runs):
    assert main(["report", "runs", "other", "--index"]) == 0
    with chromium() as page:
        for width in (1280, 390):
            page.open(Path("index.html"), width)
            assert page.problems == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            names = "[...document.querySelector('table').tBodies[0].rows].map(r => r.cells[0].textContent)"
            before = page.evaluate(names)
            page.click("table thead th:nth-child(2) button")  # top-1, the highest first as before
            assert page.evaluate(names) == before
            page.click("table thead th:nth-child(2) button")
            assert page.evaluate(names) == before[::-1]
            size = page.evaluate(
                "(r => [r.width, r.height])(document.querySelector('svg.curve').getBoundingClientRect())"
            )
            assert size == [60, 18]
