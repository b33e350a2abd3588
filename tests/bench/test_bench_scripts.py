"""The benchmark scripts from the command line: tables, the JSON file, memory of child processes, bad input."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

import block
import network
import train
from tests.conftest import TinyRun


@pytest.fixture(autouse=True)
def _threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_block_prints_a_row_for_each_case_and_writes_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "new" / "block.json"
    words = "--device cpu --block nl --stage res4 --frames 1 --keys pooled --repeats 1 --budget-s 0 --no-memory"
    block.main([*words.split(), "--json", str(figures)])
    out = capsys.readouterr().out
    assert "196 x 49" in out
    assert f"figures: {figures}" in out
    results = json.loads(figures.read_text())["results"]
    assert [(r["case"]["block"], r["case"]["backward"]) for r in results] == [("nl", False), ("nl", True)]
    assert all(r["seconds"]["ours"] > 0 and r["seconds"]["naive"] > 0 for r in results)


def test_network_shows_naive_ours_and_folded(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--device cpu --context none dnl --keys pooled --frames 2 --size 32 --repeats 1 --budget-s 0"
    network.main(words.split())
    out = capsys.readouterr().out
    assert "naive ms" in out
    assert "folded ms" in out
    assert "measured on" in out


def test_train_shows_stages_of_both_inputs_and_the_share_of_blocks(
    tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "train.json"
    words = "--device cpu --context none gc --stem-channels 8 --frames 2 --crop-size 32 --repeats 1 --budget-s 0"
    words += f" --no-memory --input synthetic videos --videos {tiny.train} --num-workers 0 --activation-checkpointing"
    train.main([*words.split(), "--json", str(figures)])
    out = capsys.readouterr().out
    assert f"{tiny.train} videos, loader alone with 0 processes: " in out
    for row in ("none 32-true eager ", "gc 32-true eager ", "gc 32-true eager checkpointed", "checkpointed videos"):
        assert row in out
    results = json.loads(figures.read_text())["results"]
    assert [(r["case"]["context"], r["case"]["checkpointed"]) for r in results[:4]] == [
        ("none", False),
        ("gc", False),
        ("none", True),
        ("gc", True),
    ]
    assert [r["source"] for r in results] == ["synthetic"] * 4 + [str(tiny.train)] * 4
    assert all(sum(r["stages_s"].values()) > 0 and r["peak"] is None for r in results)
    assert [r["added"] is None for r in results] == [True, False] * 4


@pytest.mark.parametrize("script", ["block", "growth", "network", "train", "data"])
def test_help_shows_examples(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(script).main(["--help"])
    assert f"python scripts/bench/{script}.py" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --batch-size 0", "argument --batch-size: '0' is not an integer of at least 1"),
        ("train --precision fp8", "argument --precision: invalid choice: 'fp8'"),
        ("block --frames 0", "argument --frames: '0' is not an integer of at least 1"),
        ("growth --frames 4", "--frames is [4]; give at least two numbers to fit a growth"),
        ("network --size 0", "argument --size: '0' is not an integer of at least 1"),
        ("block --block gc", "argument --block: invalid choice: 'gc'"),
        ("data --clips 0", "argument --clips: '0' is not an integer of at least 1"),
        ("data --files nowhere.mp4", "--files: nowhere.mp4 is not a file"),
    ],
)
def test_bad_input_ends_with_status_2(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    script, *options = words.split()
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(script).main(options)
    assert message in capsys.readouterr().err
