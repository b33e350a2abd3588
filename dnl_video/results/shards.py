"""The files of a predictions directory: their names, writing them whole, reading them with clear errors.

`predictions.py` says what they mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from dnl_video.errors import InputError
from dnl_video.files import lock_file, locked, write_atomic

_SHARD = re.compile(r"videos-(\d+)-(\d+)\.jsonl")


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


def lock_rank(directory: Path, rank: int) -> FileLock:
    """Take the lock of the process that writes as ``rank``; it ends with the process.

    Raises:
        InputError: Another process holds it, or the directory is not writable.
    """
    busy = (
        f"another process is writing to {directory} as rank {rank}; wait for it, choose another --output, "
        "or start several processes with torchrun"
    )
    return lock_file(directory / f".writer-{rank:04d}.lock", busy)


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
    with locked(directory / ".lock"):
        yield not (stamp.exists() and stamp.read_text(encoding="ascii") == digest)
        write_atomic(stamp, digest)
