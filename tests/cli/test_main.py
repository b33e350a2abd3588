from __future__ import annotations

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


def test_debug_adds_the_traceback(capsys):
    assert main(["--debug", "report", "nowhere"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("dnl-video: error: ")
