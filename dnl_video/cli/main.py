"""`dnl-video`: run a command; print expected errors as one line.

A command is a module of this folder with ``DESCRIPTION``, ``add_arguments(parser)`` and ``run(arguments) -> exit
status``. Only the module of the chosen command is imported, so help is fast.
"""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import platform
import sys
import traceback
from collections.abc import Sequence, Set
from importlib.metadata import version
from types import ModuleType
from typing import Any, NoReturn

from dnl_video.cli.terminal import log, say, write
from dnl_video.errors import InputError, Terminated, nearest

# Command -> its line in the overview, in the order of work. The module has the same name, with underscores.
COMMANDS = {
    "demo-data": "Generate small videos in Kinetics format for a first run.",
    "prepare": "Find and check the videos of a list; write the manifest to train on.",
    "recipes": "List the training recipes.",
    "train": "Train a network from a recipe.",
    "evaluate": "Score every video of a labelled list with many views.",
    "predict": "Classify video files, folders or lists.",
    "visualize": "Draw the attention maps of the context blocks in a clip.",
    "features": "Store the pooled backbone features of every clip.",
    "report": "Turn an evaluation into accuracy tables and figures.",
    "compare": "Compare networks evaluated on the same videos.",
    "show": "Say what a file or folder is, and what to do with it.",
    "export": "Write a trained network as one self-contained file.",
    "convert": "Convert weights of other projects to such a file.",
    "models": "List parameters and multiply-accumulates of the networks.",
    "ablate": "Compare contexts in a controlled study over several seeds.",
}
_PACKAGES = ("dnl-video", "torch", "torchvision", "pytorchvideo", "lightning", "numpy")  # versions for --verbose
_FLAGS = """with every command:
  --quiet    Print only results, warnings and errors.
  --verbose  Also print the versions, the device and each step, with milliseconds since the start.
  --debug    Print the traceback of an error."""
USAGE_ERROR = 2
VIDEOS_FAILED = 3  # some videos could not be read or scored
INTERRUPTED = 130
TERMINATED = 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 2 bad input, 3 videos failed, 130 and 143 stopped."""
    words = list(sys.argv[1:] if argv is None else argv)
    flags = {"--quiet", "--verbose", "--debug"} & set(words)
    words = [word for word in words if word not in flags]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the encoding may lack characters of a name, as ASCII does
    os.environ["MPLBACKEND"] = "agg"  # figures go to files; matplotlib cannot be imported with an unknown backend
    try:
        set_up_logging(flags)
        return _dispatch(words)
    except BrokenPipeError:
        return 0
    except (InputError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError):
            if error.filename is None:
                raise
            message = f"{error.filename}: {error.strerror}; check the path, its permissions and the free space"
        if "--debug" in flags:
            traceback.print_exc()
        say("dnl-video: error: " + message.replace("\n", "\\n"), error=True)
        return USAGE_ERROR
    except KeyboardInterrupt:
        say("dnl-video: interrupted; finished work is kept", error=True)
        return INTERRUPTED
    except Terminated as stop:
        say(f"dnl-video: terminated by {stop}; finished work is kept", error=True)
        return TERMINATED
    finally:
        log.debug("done")
        write("")  # flush here, because an error at the end of Python cannot be caught


def set_up_logging(flags: Set[str]) -> None:
    """Send the package's notes to stderr; `training.trainer` lets Lightning's logger follow."""
    log.setLevel(logging.WARNING if "--quiet" in flags else logging.DEBUG if "--verbose" in flags else logging.INFO)
    log.handlers, log.propagate = [_Stderr()], False
    timed = "%(relativeCreated)6d ms  %(message)s"
    log.handlers[0].setFormatter(logging.Formatter(timed if "--verbose" in flags else None))
    if {"--quiet", "--verbose"} <= flags:
        raise InputError("--quiet and --verbose were both given; give one")


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record), error=True)


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
    arguments = make_parser(name, module).parse_args(words[1:])
    if log.isEnabledFor(logging.DEBUG):
        versions = [f"{package} {version(package)}" for package in _PACKAGES]
        log.debug("%s, Python %s", ", ".join(versions), platform.python_version())
    return module.run(arguments)


def command_module(name: str) -> ModuleType:
    """Import the module of a command."""
    return importlib.import_module(f"dnl_video.cli.{name.replace('-', '_')}")


def make_parser(name: str, module: ModuleType) -> argparse.ArgumentParser:
    """Build the parser of a command; a module may define its own classes ``PARSER`` and ``FORMATTER``."""
    parser = getattr(module, "PARSER", CommandParser)(
        prog=f"dnl-video {name}",
        description=module.DESCRIPTION,
        epilog=_FLAGS,
        formatter_class=getattr(module, "FORMATTER", argparse.RawDescriptionHelpFormatter),
    )
    module.add_arguments(parser)
    return parser


class CommandParser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0]
        raise InputError(f"{message}{nearest(unknown, self._option_string_actions)}; see {self.prog} --help")


def _overview() -> str:
    width = max(len(name) for name in COMMANDS)
    commands = "\n".join(f"  {name:<{width}}  {line}" for name, line in COMMANDS.items())
    return f"""usage: dnl-video COMMAND ...

Disentangled Non-Local networks for video action recognition: train on Kinetics clips, classify videos,
report top-1 accuracy.

A first run on generated videos:
  dnl-video demo-data --output data/demo
  dnl-video train --config i3d_dnl --final-test

commands:
{commands}

options:
  --version  Print the version.

{_FLAGS}

`dnl-video COMMAND --help` shows examples and options of a command."""
