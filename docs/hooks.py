"""MkDocs hooks: generate the command line reference and the list of public names from the package."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

# The site describes this tree, not an installed copy.
sys.path.insert(0, str(Path(__file__).parents[1]))

import dnl_video
from dnl_video.cli.main import COMMANDS, main

COLUMNS = "96"
PUBLIC_NAMES = """# Public names

`import dnl_video` gives these names. Each loads torch on first use, so `import dnl_video` itself is fast.
"""


def on_config(config: Any) -> Any:
    """Put the commands into the navigation."""
    section = next(entry for entry in config.nav if "Command line" in entry)
    section["Command line"] = ["cli/index.md", *({name: f"cli/{name}.md"} for name in COMMANDS)]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add cli/index.md, one page per command, and api/index.md."""
    pages = {"cli/index.md": overview(), "api/index.md": public_names()}
    pages |= {f"cli/{name}.md": command_page(name) for name in COMMANDS}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def overview() -> str:
    """Return the page that lists the commands."""
    rows = [f"| [`{name}`]({name}.md) | {line} |" for name, line in COMMANDS.items()]
    return "\n".join(["# Command line", "", "| `dnl-video` … | what it does |", "|---|---|", *rows, ""])


def command_page(name: str) -> str:
    """Return the help of a command; of train also every key of a recipe."""
    parts = [f"# dnl-video {name}", COMMANDS[name], f"```text\n{help_text(name, '--help')}\n```"]
    if name == "train":
        parts += ["## All recipe keys", f"```text\n{help_text(name, '--help-all')}\n```"]
    return "\n\n".join(parts) + "\n"


def help_text(*words: str) -> str:
    """Return what ``dnl-video WORDS`` prints."""
    os.environ["COLUMNS"] = COLUMNS
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main(words)
    text = printed.getvalue().rstrip()
    if not text:
        raise RuntimeError(f"dnl-video {' '.join(words)} printed no help")
    return text


def public_names() -> str:
    """Return a page of mkdocstrings directives, one per name of `dnl_video.__all__`."""
    return PUBLIC_NAMES + "".join(f"\n::: dnl_video.{name}\n" for name in dnl_video.__all__)
