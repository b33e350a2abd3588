"""Atomic file writes, locks, checksums, JSON lines and lists of folders."""

from __future__ import annotations

import contextlib
import csv
import errno
import fnmatch
import hashlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock, Timeout

from dnl_video.errors import InputError

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # with the apostrophes of earlier texts, so that `cell_text` is exact
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


@contextlib.contextmanager
def atomic_path(path: Path, *, advice: str = "choose another path") -> Iterator[Path]:
    """Give a temporary path in the same folder; rename it to ``path`` when the block ends without an error.

    The temporary file is synced to disk before the rename, so a crash leaves the old file or the new one. On an error,
    Ctrl-C included, it is removed.

    Args:
        path: The file to write. The temporary name keeps its suffix.
        advice: End of the error message: what to do.

    Raises:
        InputError: The file cannot be written (disk full, no permission).
    """
    # File systems allow names of 255 bytes.
    name = path.name if len(os.fsencode(path.name)) < 240 else path.suffix[1:]
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); {advice}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_partial(folder: Path, pattern: str) -> None:
    """Delete the temporary files of killed processes that were writing files ``pattern`` with `atomic_path`."""
    for temporary in folder.glob(f".{'[0-9a-f]' * 8}.{pattern}"):
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | str, *, advice: str = "choose another path") -> None:
    """Write a whole file with `atomic_path`; text is encoded as UTF-8.

    Raises:
        InputError: The file cannot be written.
    """
    with atomic_path(path, advice=advice) as temporary:
        temporary.write_bytes(encode(content) if isinstance(content, str) else content)


def write_csv(path: Path, lines: Iterable[Sequence[Any]]) -> None:
    """Write lines of fields as CSV with an atomic write; see `encode` for text that is not Unicode.

    Spreadsheets run text that begins with ``=``, ``+``, ``-`` or ``@`` as a formula. Unless it is a number, it gets an
    apostrophe in front, which marks text; `cell_text` removes it.

    Raises:
        InputError: The file cannot be written.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(map(_cell, line) for line in lines)


def cell_text(cell: str) -> str:
    """Return the text of a cell that `write_csv` wrote."""
    return cell[1:] if _FORMULA.match(cell) and cell[0] == "'" else cell


def _cell(value: Any) -> Any:
    formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if formula else value


def make_folder(path: Path) -> None:
    """Make a folder and its parents, unless it exists.

    Raises:
        InputError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror or error}); choose another folder") from error


def check_output(path: Path, *, is_file: bool = False) -> None:
    """Check before long work that an output folder, or an output file, can be written. Nothing is made.

    Raises:
        InputError: It cannot be written.
    """
    try:
        if is_file and path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        place = path.absolute().parent if is_file else path.absolute()
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another path") from error


def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (folder, names of its folders, names of its files) for a folder and all folders below it, like `os.walk`.

    Links are followed, and each folder is read once. Hidden folders are left out.

    Raises:
        InputError: A folder cannot be read; `os.walk` and `Path.glob` leave it out without an error.
    """
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse_folder):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder already read
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield parent, folders, files


def refuse_folder(error: OSError) -> NoReturn:
    """Raise an InputError that names the folder that could not be read."""
    reason = error.strerror or error
    raise InputError(f"folder {error.filename} cannot be read ({reason}); make it readable, or move it away")


def list_folder(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the paths in a folder whose names match; none if the folder does not exist.

    Raises:
        InputError: The folder cannot be read.
    """
    if not folder.is_dir():
        return []
    _, folders, files = next(walk(folder))
    return [folder / name for name in (*folders, *files) if fnmatch.fnmatchcase(name, pattern)]


def sync_folder(folder: Path) -> None:
    """Sync a folder to disk, so that a renamed file survives a power failure. Windows cannot open folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def lock_file(path: Path, busy: str | None) -> FileLock:
    """Take a lock and return it; it ends with this process or with ``release()``. Forked children do not hold it.

    Args:
        path: The lock file; made when missing.
        busy: The error message when another process holds the lock; None waits for it.

    Raises:
        InputError: Another process holds it, or the file cannot be written.
    """
    try:
        path.touch()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another folder") from error
    # filelock's replacement for missing locks, a file with contents, would take an old empty file for a lock.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(blocking=busy is None)
    except Timeout:
        raise InputError(busy) from None
    except OSError:
        pass  # a file system without locks (some network drives): go on without one
    return lock


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold `lock_file`'s lock in a block; by default wait for it."""
    lock = lock_file(path, busy)
    try:
        yield
    finally:
        lock.release()


def dump_json(value: Any, indent: int | None = None) -> str:
    """Return strict JSON: no NaN or infinity."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)


def encode(text: str) -> bytes:
    """Return text as UTF-8. Lone surrogates, from file names that are not Unicode, become escapes."""
    return text.encode("utf-8", "backslashreplace")


def append_json_lines(path: Path, *values: Any, sync: bool = True) -> None:
    """Append one line of JSON for each value, in a single write.

    If a killed process left half a line at the end of the file, the new lines start after it.

    Args:
        path: The file; made when missing, with its folder.
        values: The values.
        sync: Sync to disk, which takes milliseconds. Without it, a power failure may lose the last lines.

    Raises:
        InputError: The file cannot be written.
    """
    lines = "".join(dump_json(value) + "\n" for value in values)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            if file.tell() and not _ends_with_newline(path):
                lines = "\n" + lines
            file.write(encode(lines))
            if sync:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another folder") from error


def read_json_lines(path: Path) -> list[Any]:
    """Return the values of a file that `append_json_lines` wrote; a half-written line is skipped.

    Returns an empty list when there is no such file.
    """
    values = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        with contextlib.suppress(ValueError):
            values.append(json.loads(line))
    return values


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
