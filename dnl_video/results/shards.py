"""The files of a predictions directory: their names, writing them whole, reading them with clear errors.

`predictions.py` says what they mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import uuid
import weakref
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from dnl_video.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: two processes of one rank are not noticed there
    fcntl = None  # type: ignore[assignment]

_SHARD = re.compile(r"videos-(\d+)-(\d+)\.jsonl")
_locks: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], None], *, exclusive: bool = False) -> None:
    """Write a file that appears whole or not at all, even when the process is killed.

    Args:
        path: The file.
        content: Its bytes, or a function that writes them to an open file.
        exclusive: Keep the file that is there, and raise FileExistsError.

    Raises:
        InputError: The file cannot be written (disk full, no permission).
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a power cut may leave the new name on an empty file
        if exclusive:
            _rename_to_new(temporary, path)
        else:
            temporary.replace(path)
    except FileExistsError:
        raise
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; mend that and run the same command again "
            "(finished work is kept)"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Rename, or raise FileExistsError."""
    try:
        os.link(temporary, path)  # unlike a rename, fails when the name exists
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(path) from None
        temporary.replace(path)


@contextlib.contextmanager
def open_npz(jsonl: Path) -> Iterator[Any]:
    """Open the scores that belong to a jsonl.

    Raises:
        InputError: The file is missing or damaged, or what the block does with it fails.
    """
    path = _scores_path(jsonl)
    try:
        with np.load(path, allow_pickle=False) as npz:
            yield npz
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise InputError(damaged(path, what)) from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a jsonl, without their top5 (the npz has all scores).

    Raises:
        InputError: The file is empty or damaged.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; make it readable") from error
    if not lines:
        raise InputError(damaged(path, "is empty"))
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            row.pop("top5", None)
            row["id"], row["path"], row["label"], row["num_views"], row["row"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(damaged(path, f"is damaged in line {number}")) from error
        rows.append(row)
    return rows


def list_shards(directory: Path) -> list[tuple[int, int, Path]]:
    """Return (rank, seq, jsonl) of every finished shard, sorted; empty when there is no directory."""
    if not directory.is_dir():
        return []
    found = ((_SHARD.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match[1]), int(match[2]), path) for match, path in found if match)


def _scores_path(jsonl: Path) -> Path:
    return jsonl.with_name(jsonl.name.replace("videos-", "scores-").replace(".jsonl", ".npz"))


def damaged(path: Path, what: str) -> str:
    """Return the message for a shard that cannot be used, with the way out."""
    jsonl = path.with_name(path.name.replace("scores-", "videos-").replace(".npz", ".jsonl"))
    return (
        f"{path} {what}; delete {jsonl.name} and {_scores_path(jsonl).name} and run the same command again: "
        "only their videos are redone"
    )


def lock_rank(directory: Path, rank: int) -> IO[bytes] | None:
    """Hold a lock that ends with this process; None where the file system has no locks.

    Raises:
        InputError: Another process holds it, or the directory is not writable.
    """
    if fcntl is None:
        return None
    path = directory / f".writer-{rank:04d}.lock"
    try:
        file = path.open("wb")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another --output") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(
            f"another process is writing to {directory} as rank {rank}; wait for it, choose another --output, "
            "or start several processes with torchrun"
        ) from None
    except OSError:
        file.close()
        return None
    _locks.add(file)
    return file


def _drop_inherited_locks() -> None:
    """Close a forked child's copies: loader workers outlive a killed process for seconds and would hold its lock."""
    for file in _locks:
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_inherited_locks)


@contextlib.contextmanager
def merging(directory: Path, settings: str) -> Iterator[bool]:
    """Let one process at a time merge, and tell it whether these shards were not merged with these settings before.

    Of processes that finish together each finds the directory complete: the first to come here merges, the others see
    that it is done.

    Args:
        directory: The predictions directory.
        settings: What the merged files depend on besides the shards.
    """
    names = "\n".join([settings, *(path.name for *_, path in list_shards(directory))])
    digest = hashlib.sha256(names.encode()).hexdigest()
    stamp = directory / ".merged"
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            lock = stack.enter_context((directory / ".merge.lock").open("wb"))
            with contextlib.suppress(OSError):  # a file system without locks: both merge, to the same files
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield not (stamp.exists() and stamp.read_text(encoding="ascii") == digest)
        write_atomically(stamp, digest.encode("ascii"))


def dump_json(value: Any, indent: int | None = None) -> str:
    """Return strict JSON (no NaN)."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)


def encode(text: str) -> bytes:
    """Return JSON text as UTF-8."""
    # File names that are no Unicode hold lone surrogates, and those become JSON escapes.
    return text.encode("utf-8", "backslashreplace")
