"""MkDocs hooks: generate the command line reference, the list of public names and the code map from the package."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

# The site describes this tree, not an installed copy.
sys.path.insert(0, str(Path(__file__).parents[1]))

import dnl_video
from dnl_video.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
COLUMNS = "96"
PUBLIC_NAMES = """# Public names

`import dnl_video` gives these names, and `dnl_video.__version__`. It loads no torch: a name loads what it needs when it
is first used.
"""


def on_config(config: Any) -> Any:
    """Put the commands into the navigation."""
    section = next(entry for entry in config.nav if "Command line" in entry)
    section["Command line"] = ["cli/index.md", *({name: f"cli/{name}.md"} for name in COMMANDS)]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add cli/index.md, one page per command, api/index.md and code-map.md."""
    pages = {"cli/index.md": overview(), "api/index.md": public_names(), "code-map.md": code_map()}
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
        keys = help_text(name, "--help-all").partition("\noptions:\n")[2]
        parts += ["## All options and recipe keys", f"```text\n{keys}\n```"]
    return "\n\n".join(parts) + "\n"


def help_text(*words: str) -> str:
    """Return what ``dnl-video WORDS`` prints, without the usage line: the options below it say the same."""
    os.environ["COLUMNS"] = COLUMNS
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main(words)
    # jsonargparse writes a backspace into one line.
    text = printed.getvalue().replace(" \b", "").rstrip()
    text = re.sub(r"\Ausage: .*?\n\n", "", text, flags=re.DOTALL)
    if not text:
        raise RuntimeError(f"dnl-video {' '.join(words)} printed no help")
    return text


def public_names() -> str:
    """Return a page of mkdocstrings directives, one per name of `dnl_video.__all__`."""
    return PUBLIC_NAMES + "".join(f"\n::: dnl_video.{name}\n" for name in dnl_video.__all__)


def code_map() -> str:
    """Return a page with the first line of every module's docstring, by folder."""
    parts = ["# Code map", "Each line is the first line of the module's docstring."]
    package = ROOT / "dnl_video"
    for folder in [package, *sorted(path.parent for path in package.rglob("*/__init__.py"))]:
        rows = []
        for path in sorted(folder.glob("*.py")):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            if path.name != "__init__.py" or folder == package:
                rows.append(f"| `{path.name}` | {text.splitlines()[0] if text else ''} |")
        name = folder.relative_to(ROOT).as_posix()
        parts += [f"## {name}/", "\n".join(["| file | what it does |", "|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"
