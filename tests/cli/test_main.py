from __future__ import annotations

import logging
import re

import pytest

from dnl_video.cli.main import COMMANDS, command_module, main, make_parser


def test_overview_names_every_command(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    for name, line in COMMANDS.items():
        assert f"  {name}" in printed
        assert line in printed


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dnl-video 0.")


def test_unknown_command(capsys):
    assert main(["evalute"]) == 2
    assert capsys.readouterr().err == (
        f"dnl-video: error: no command 'evalute'; allowed: {', '.join(COMMANDS)}; did you mean 'evaluate'?\n"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples(name):
    text = make_parser(name, command_module(name)).format_help()
    assert f"dnl-video {name}" in text
    assert text.count("dnl-video ") >= 2, "help shows no example"


@pytest.mark.parametrize("name", ["evaluate", "predict", "report", "compare", "show", "demo-data", "export", "convert"])
def test_missing_arguments_are_one_line(name, capsys):
    assert main([name]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("dnl-video: error: the following arguments are required: ")
    assert error.endswith(f"; see dnl-video {name} --help\n")


def test_unknown_options_name_the_nearest(capsys):
    assert main(["models", "--context", "nl", "--sizes", "64"]) == 2
    assert capsys.readouterr().err == (
        "dnl-video: error: unrecognized arguments: --sizes 64; did you mean '--size'?; see dnl-video models --help\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        "train --config i3d_dnl --trainer.max 1",
        "train --config i3d_dnl --dry",
        "ablate --config study.yaml --job 1",
        "evaluate --checkpoint c --manifest m --num-cl 1",
        "predict v --checkpoint c --num-cl 1",
        "visualize v --checkpoint c --out o",
        "features v --checkpoint c --output o --num-cl 1",
        "report d --cl c",
        "compare a b --out o",
        "show d --js",
        "export --checkpoint c --output o --on",
        "convert s --output o --num-fr 8",
        "models --si 64",
        "demo-data --output o --num-w 1",
        "prepare --videos v --output m.csv --num-w 1",
        "recipes --he",
    ],
)
def test_abbreviated_options_are_refused(words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text("recipe: i3d_dnl")
    assert main(words.split()) == 2
    option = [word for word in words.split() if word.startswith("--")][-1].removeprefix("--")
    assert re.search(rf"(unrecognized arguments: --|unknown option '--){re.escape(option)}\b", capsys.readouterr().err)


@pytest.mark.parametrize(("flags", "shown"), [("", "IW"), ("--quiet", "W"), ("--verbose", "DIW")])
def test_quiet_and_verbose_choose_the_notes(flags, shown, capsys):
    assert main([*flags.split(), "recipes"]) == 0
    printed = capsys.readouterr()
    assert "i3d_dnl" in printed.out
    assert ("next: dnl-video train --config NAME\n" in printed.err) == ("I" in shown)
    facts = (r"^ *\d+ ms  dnl-video \S+, torch \S+, .*, Python 3\.\d+\.\d+$", r"^ *\d+ ms  done$")
    assert [bool(re.search(fact, printed.err, re.MULTILINE)) for fact in facts] == ["D" in shown] * 2
    for letter, level in (("D", logging.DEBUG), ("I", logging.INFO), ("W", logging.WARNING)):
        # A logger of another part of the package follows.
        logging.getLogger("dnl_video.data").log(level, "note %s", "of data")
        error = capsys.readouterr().err
        assert error.endswith("note of data\n") == (letter in shown)
        assert error in ("", "note of data\n") or "D" in shown


def test_quiet_and_verbose_exclude_each_other(capsys):
    assert main(["--quiet", "recipes", "--verbose"]) == 2
    assert capsys.readouterr().err == "dnl-video: error: --quiet and --verbose were both given; give one\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_names_the_options_of_all_commands(name):
    text = make_parser(name, command_module(name)).format_help()
    assert all(f"  {option} " in text for option in ("--quiet", "--verbose", "--debug"))


def test_debug_adds_the_traceback(capsys):
    assert main(["--debug", "report", "nowhere"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("dnl-video: error: ")
