"""Print the lines and files of the package and of the tests, and the longest functions of the package."""

from __future__ import annotations

import ast
from pathlib import Path

LONGEST = 10


def main() -> None:
    """Count Python lines below the repository root."""
    root = Path(__file__).resolve().parents[1]
    functions = []
    for folder in ("dnl_video", "tests", "scripts"):
        lines = 0
        paths = sorted((root / folder).rglob("*.py"))
        for path in paths:
            text = path.read_text(encoding="utf-8")
            lines += len(text.splitlines())
            for node in ast.walk(ast.parse(text)) if folder == "dnl_video" else ():
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or node.lineno) - node.lineno + 1
                    functions.append((length, f"{path.relative_to(root)}:{node.lineno} {node.name}"))
        print(f"{folder:<10} {lines:>7,} lines {len(paths):>5} files")
    print(f"\nlongest functions of {len(functions):,}")
    for length, name in sorted(functions, reverse=True)[:LONGEST]:
        print(f"{length:>4}  {name}")


if __name__ == "__main__":
    main()
