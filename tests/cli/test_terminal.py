"""What reaches the terminal: names with control characters, other encodings, readers that end early, narrow screens."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dnl_video.cli.main import main, set_up_logging
from dnl_video.cli.screen import plain_table, prediction_progress, show
from dnl_video.cli.terminal import command, say, suggest
from dnl_video.errors import visible
from dnl_video.results.predictions import VideoPrediction

HOSTILE = "\x1b]0;owned\x07\x9b2J\r\x7f\u202egpj.4pm\u2066 [red]x[/red]"
SHOWN = r"\u001b]0;owned\u0007\u009b2J\u000d\u007f\u202egpj.4pm\u2066 [red]x[/red]"


def run_python(code, *, closed=False, **environment):
    """Run code; with `closed`, the reader of its stdout has ended."""
    options = {"stderr": subprocess.PIPE, "text": True, "encoding": "utf-8", "env": os.environ | environment}
    if not closed:
        return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False, **options)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run([sys.executable, "-c", code], stdout=writing, check=False, **options)
    finally:
        os.close(writing)


def test_control_characters_are_shown_as_escapes():
    assert visible(HOSTILE) == SHOWN
    assert visible("caf\udce9") == r"caf\udce9"
    assert visible("Ünïcode 走る 👍🏽\u200d \t\n") == "Ünïcode 走る 👍🏽\u200d \t\n"


def test_every_way_to_print_escapes_names(capsys):
    set_up_logging(set())
    say(HOSTILE)
    table = plain_table("video", title=HOSTILE)
    show(table)
    with prediction_progress("predict") as progress:
        progress(1, 1, VideoPrediction("v", HOSTILE, error=HOSTILE))
    suggest("show", HOSTILE)
    assert main(["show", HOSTILE]) == 2
    printed = capsys.readouterr()
    assert SHOWN in printed.out
    assert printed.err.count(SHOWN) == 4
    assert not set(printed.out + printed.err) & set("\x1b\x07\x9b\r\x7f\u202e\u2066")


def test_commands_are_quoted_for_a_shell():
    words = ["show", Path("my runs/it's"), "--json", "a'b", 3]
    assert shlex.split(command(*words)) == ["dnl-video", *map(str, words)]
    assert command("show", "runs/demo") == "dnl-video show runs/demo"


def test_an_error_is_one_line(capsys):
    assert main(["show", "a\nb"]) == 2
    assert capsys.readouterr().err.startswith("dnl-video: error: a\\nb does not exist; ")


@pytest.mark.parametrize("words", [["show", "x" * 300], ["report", "x" * 300], ["predict", "x" * 300 + ".mp4"]])
def test_a_name_that_is_too_long_is_one_line(words, capsys):
    assert main([*words, "--checkpoint", "none"] if words[0] == "predict" else words) == 2
    assert "Traceback" not in (error := capsys.readouterr().err)
    assert "ile name too long" in error


def test_an_error_of_the_system_names_the_file(monkeypatch, capsys):
    def refuse(path, **options):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("dnl_video.cli.run_facts.facts_of", refuse)
    assert main(["show", "private"]) == 2
    assert capsys.readouterr().err == (
        "dnl-video: error: private: Permission denied; check the path, its permissions and the free space\n"
    )


def test_an_encoding_without_the_characters_of_a_name():
    code = "from dnl_video.cli.main import main; main(['--version']); print('é 走 \\udce9')"
    result = run_python(code, PYTHONIOENCODING="ascii")
    assert (result.stderr, result.returncode) == ("", 0)
    assert result.stdout.splitlines()[1] == r"\xe9 \u8d70 \udce9"


@pytest.mark.parametrize("backend", ["nonsense", "TkAgg", "module://nowhere"])
def test_no_backend_of_matplotlib_stops_a_command(backend):
    code = "from dnl_video.cli.main import main; main(['--version']); import matplotlib.figure"
    result = run_python(code, MPLBACKEND=backend)
    assert (result.stderr, result.returncode) == ("", 0)


def test_a_narrow_terminal_cuts_no_number_off(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    numbers = ["91.2% [85.8, 94.7]", "100.0% [97.7, 100.0]", "91.9% [87.0, 95.1]"]
    table = plain_table("video", *"abc", numbers="abc")
    table.add_row("a name of many words", *numbers)
    show(table)
    printed = capsys.readouterr().out
    assert all(number in printed for number in numbers)
    show(plain_table("video", "a", numbers=["a"]))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40


def test_work_goes_on_when_the_reader_has_ended():
    code = (
        "import sys; from dnl_video.cli.terminal import say; from dnl_video.cli.screen import plain_table, show\n"
        "say('x' * 100_000); say('more'); show(plain_table('a')); print('done', file=sys.stderr)"
    )
    result = run_python(code, closed=True)
    assert (result.stderr, result.returncode) == ("done\n", 0)


@pytest.mark.parametrize("words", [["--quiet", "recipes"], ["report", "--help"]])
def test_a_command_whose_reader_has_ended(words):
    code = f"import sys; from dnl_video.cli.main import main; sys.exit(main({words}))"
    for unbuffered in ("1", ""):
        result = run_python(code, closed=True, PYTHONUNBUFFERED=unbuffered)
        assert (result.stderr, result.returncode) == ("", 0)
