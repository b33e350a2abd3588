"""An append-only file of what was found out about files, so that no work is done twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any


class Journal:
    """JSON lines, each under a key and a stamp; the last line of a key counts, and only while its stamp holds.

    A killed writer may leave half a line: it is passed over. Use as a context manager.

    Args:
        path: The file; made when the first line is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, tuple[Any, Any]] = {}
        self._file: int | None = None
        content = path.read_bytes() if path.is_file() else b""
        self._is_torn = bool(content) and not content.endswith(b"\n")
        for line in content.split(b"\n"):
            try:
                entry = json.loads(line)
                self._entries[entry["key"]] = entry["stamp"], entry["value"]
            except (ValueError, KeyError, TypeError):
                continue

    def get(self, key: str, stamp: Any) -> Any:
        """Return the value of a key, or None where there is none or it was found out about another state."""
        known, value = self._entries.get(key, (None, None))
        return value if known == stamp else None

    def forget(self, key: str) -> None:
        """Let a key count no more until it is added again."""
        self._entries.pop(key, None)

    def add(self, key: str, stamp: Any, value: Any) -> None:
        """Append a line; it is in the file when this returns."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        line = json.dumps({"key": key, "stamp": stamp, "value": value}) + "\n"
        os.write(self._file, (("\n" if self._is_torn else "") + line).encode())
        self._is_torn = False
        self._entries[key] = stamp, value

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
