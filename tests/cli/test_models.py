from __future__ import annotations

from dnl_video.cli.main import main


def test_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["models", "--context", "dnl", "--size", "64", "96"]) == 0
    header, row = (line.split() for line in capsys.readouterr().out.splitlines() if "64" in line or "dnl" in line)
    assert header == ["network", "context", "params", "added", "GMACs", "64", "+64", "GMACs", "96", "+96"]
    assert row[:4] == ["slow_r50", "dnl", "39.81M", "7.36M"]


def test_small_sizes_are_refused(capsys):
    assert main(["models", "--size", "16"]) == 2
    assert "--size 16 is too small; give at least 32 pixels" in capsys.readouterr().err
