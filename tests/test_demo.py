"""The pipeline of scripts/demo.sh. At full size its accuracy is that of the documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dnl_video.cli.main import main
from tests.conftest import REPOSITORY, TinyRun

RECIPE = REPOSITORY / "configs" / "demo" / "i3d_dnl.yaml"


def top1(directory: Path) -> dict[str, Any]:
    assert main(["report", str(directory)]) == 0
    report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    figure: dict[str, Any] = report["accuracy"]["listed"]["video"]["top1"]
    return figure


@pytest.mark.full
def test_the_network_learns_motion(
    full_size: bool, tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full size: >= 85 % on motion; 12.5 % on a repeated frame; <= 55 % shuffled; >= 80 % opposite when reversed."""
    monkeypatch.chdir(tmp_path)
    if full_size:
        assert main(["demo-data", "--output", "data/demo"]) == 0
        assert main(["train", "--config", str(RECIPE), "--trainer.accelerator", "cpu"]) == 0
        run, data = tmp_path / "runs" / "demo" / "i3d_dnl", tmp_path / "data" / "demo"
    else:
        run, data = tiny.run, tiny.val.parent
    figures = {}
    for order, listing in (
        ("natural", "val"),
        ("reversed", "val_reversed"),
        ("shuffled", "val"),
        ("repeated", "val"),
    ):
        words = ["--checkpoint", str(run), "--manifest", str(data / f"{listing}.csv"), "--output", order]
        views = ["--num-clips", "2" if full_size else "1", "--num-workers", "0", "--device", "cpu"]
        assert main(["evaluate", *words, *views, "--frame-order", order]) == 0
        figures[order] = top1(tmp_path / order)
        assert figures[order]["total"] == (160 if full_size else 8)
    if full_size:
        assert figures["natural"]["value"] >= 0.85
        assert figures["reversed"]["value"] >= 0.80
        assert figures["shuffled"]["value"] <= 0.55
        assert figures["repeated"]["low"] <= 0.125 <= figures["repeated"]["high"]
