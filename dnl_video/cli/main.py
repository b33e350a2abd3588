"""`dnl-video`: picks the command's module and turns foreseen errors into one line.

A command is a module here with ``DESCRIPTION``, ``add_arguments(parser)`` and ``run(arguments) -> exit status``. Only
the chosen one is imported, so help answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any, NoReturn

from dnl_video.errors import InputError, Terminated, nearest

# In the order of work. Each name is a module beside this one, and has its line here so that help imports none of them.
COMMANDS = {
    "demo-data": "Write small videos in Kinetics format to try everything on.",
    "prepare": "Find and check the videos of a list; write the manifest to train on.",
    "recipes": "List the training recipes.",
    "train": "Train a network from a recipe.",
    "evaluate": "Score every video of a labelled list with many views.",
    "predict": "Classify video files, folders or lists.",
    "visualize": "Draw what the attention blocks attend to in a clip.",
    "features": "Store the backbone's pooled features of every clip.",
    "report": "Turn an evaluation into accuracy tables and figures.",
    "compare": "Compare networks evaluated on the same videos.",
    "show": "Show what a run, a model file, predictions or features are.",
    "export": "Write a trained network as one file that needs nothing else.",
    "convert": "Turn weights of other projects into such a file.",
    "models": "List what networks cost: parameters and multiply-accumulates.",
    "ablate": "Compare the contexts in a controlled study, over several seeds.",
    "bench": "Measure speed and memory of blocks and networks on this machine.",
}
USAGE_ERROR = 2
VIDEOS_FAILED = 3  # some videos could not be read or scored
INTERRUPTED = 130
TERMINATED = 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 2 bad input, 130 and 143 stopped, others its own."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words)
    except InputError as error:
        if debug:
            traceback.print_exc()
        print(f"dnl-video: error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("dnl-video: interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED
    except Terminated as stop:
        print(f"dnl-video: terminated by {stop}; what was finished is kept", file=sys.stderr)
        return TERMINATED
    except BrokenPipeError:
        # The reader (head, less) has left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        print(f"dnl-video {version('dnl-video')}")
        return 0
    name = words[0]
    if name not in COMMANDS:
        raise InputError(f"no command {name!r}; allowed: {', '.join(COMMANDS)}{nearest(name, COMMANDS)}")
    module = command_module(name)
    parser = make_parser(name, module)
    return module.run(parser.parse_args(words[1:]))


def command_module(name: str) -> ModuleType:
    """Import the module of a command."""
    return importlib.import_module(f"dnl_video.cli.{name.replace('-', '_')}")


def make_parser(name: str, module: ModuleType) -> argparse.ArgumentParser:
    """Build a command's parser; a module may bring its own kind as ``PARSER``."""
    kind = getattr(module, "PARSER", CommandParser)
    parser = kind(
        prog=f"dnl-video {name}",
        description=module.DESCRIPTION,
        formatter_class=getattr(module, "FORMATTER", argparse.RawDescriptionHelpFormatter),
    )
    module.add_arguments(parser)
    return parser


class CommandParser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the whole usage."""
        raise InputError(f"{message}; see {self.prog} --help")


def _overview() -> str:
    width = max(len(name) for name in COMMANDS)
    commands = "\n".join(f"  {name:<{width}}  {line}" for name, line in COMMANDS.items())
    return (
        "usage: dnl-video COMMAND ...\n\n"
        "Disentangled Non-Local networks for video action recognition: train on Kinetics clips, classify videos,\n"
        "report top-1 accuracy.\n\n"
        f"commands:\n{commands}\n\n"
        "options:\n"
        "  --version  Print the version.\n"
        "  --debug    With any command: show the traceback of an error.\n\n"
        "`dnl-video COMMAND --help` explains one. A first run, end to end, on generated videos:\n"
        "  dnl-video demo-data data/demo\n"
        "  dnl-video train --config i3d_dnl --final-test"
    )
