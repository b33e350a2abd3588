from __future__ import annotations

import subprocess
import sys

from dnl_video.cli.main import main


def test_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["models", "--context", "dnl", "--size", "64", "96"]) == 0
    header, row = (line.split() for line in capsys.readouterr().out.splitlines() if "64" in line or "dnl" in line)
    assert header == ["network", "context", "params", "added", "GMACs", "64", "+64", "GMACs", "96", "+96"]
    assert row[:4] == ["slow_r50", "dnl", "39.81M", "7.36M"]


def test_the_usual_table_needs_no_network(capsys):
    code = "import sys; from dnl_video.cli.main import main; main(['models']); sys.exit('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    rows = {row[1]: row[2:] for row in map(str.split, found.stdout.splitlines()) if row[:1] == ["slow_r50"]}
    assert list(rows) == ["none", "nl", "dnl", "pairwise", "unary", "snl", "gc"]
    assert rows["none"] == ["32.45M", "0.00M", "41.92", "0.00", "54.75", "0.00"]  # PySlowFast and mmaction2: 54.75
    assert rows["nl"] == ["39.81M", "7.36M", "64.18", "22.26", "88.61", "33.85"]


def test_small_sizes_are_refused(capsys):
    assert main(["models", "--size", "16"]) == 2
    assert "--size 16 is too small; give at least 32 pixels" in capsys.readouterr().err
