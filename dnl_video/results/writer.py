"""Appends videos to a predictions directory."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.files import atomic_path, dump_json, list_folder, lock_file, locked, make_folder, write_atomic
from dnl_video.results.predictions import CLIP_COLUMNS, PredictionsMeta, VideoPrediction, list_shards, read_meta
from dnl_video.spec import Preprocessing, differences, to_dict

_ADVICE = "fix that and run the same command again (finished videos are kept)"
# A restart may change these, because they do not change the scores. Files are compared by their hashes.
_NOT_COMPARED = ("versions", "run", "weights", "manifest")


class PredictionsWriter:
    """Appends the predictions of one process to a predictions directory.

    Use it as a context manager: when the block ends, also by Ctrl-C, finished videos are written.

    Args:
        directory: The predictions directory; made when missing.
        meta: The run; an existing meta.json must describe the same run.
        rank: Rank of this process; processes that write at the same time need different ranks.
        flush_every: Number of videos after which a shard is written.
        flush_seconds: Seconds after which `add` writes a shard.
        clip_scores: Store the scores of clips.

    Raises:
        InputError: The directory cannot be made, belongs to another run, or is in use by a process of the same rank.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        meta: PredictionsMeta,
        *,
        rank: int = 0,
        flush_every: int = 50,
        flush_seconds: float = 30.0,
        clip_scores: bool = True,
    ) -> None:
        self.directory = Path(directory)
        self.meta = meta
        self.rank = rank
        self._flush_every = flush_every
        self._flush_seconds = flush_seconds
        skipped = {"clip_scores": not clip_scores, "clip_features": not meta.clip_features}
        self._clip_columns = [name for name in CLIP_COLUMNS if not skipped.get(name)]
        make_folder(self.directory)
        _agree_on_meta(self.directory, meta)
        busy = (
            f"another process is writing to {self.directory} as rank {rank}; wait for it, choose another --output, "
            "or start several processes with torchrun"
        )
        self._lock = lock_file(self.directory / f".writer-{rank:04d}.lock", busy)
        # (number of the next shard, its videos, its start in seconds); replaced in one assignment (see `flush`).
        self._pending: tuple[int, list[VideoPrediction], float] = (self._remove_incomplete() + 1, [], time.monotonic())
        self._closed = False

    def __enter__(self) -> PredictionsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, prediction: VideoPrediction) -> None:
        """Add a finished video; write a shard if `flush_every` or `flush_seconds` is reached.

        Raises:
            ValueError: Its fields or shapes do not fit the meta.
            InputError: The shard cannot be written.
        """
        if self._closed:
            raise ValueError("this PredictionsWriter is closed")
        _check(prediction, self.meta)
        _, videos, since = self._pending
        videos.append(prediction)
        if len(videos) >= self._flush_every or time.monotonic() - since >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write the pending videos, if any, as one shard."""
        seq, videos, _ = self._pending
        if not videos:
            return
        name = f"{self.rank:04d}-{seq:06d}"
        arrays, rows = self._tabulate(videos)
        with atomic_path(self.directory / f"scores-{name}.npz", advice=_ADVICE) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]
        lines = "".join(dump_json(row) + "\n" for row in rows)
        write_atomic(self.directory / f"videos-{name}.jsonl", lines, advice=_ADVICE)
        # A single assignment: after Ctrl-C, the next flush repeats this shard or starts the next one.
        self._pending = (seq + 1, [], time.monotonic())

    def close(self) -> None:
        """Write the pending videos and release the directory."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self._closed = True
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _remove_incomplete(self) -> int:
        """Remove incomplete files of this rank; return the number of its last complete shard, or -1."""
        complete = {seq for rank, seq, _ in list_shards(self.directory) if rank == self.rank}
        for path in list_folder(self.directory):
            match = re.fullmatch(r"(\.\w+\.)?(scores|videos)-(\d+)-(\d+)\.(npz|jsonl)", path.name)
            if match and int(match[3]) == self.rank and (match[1] or int(match[4]) not in complete):
                path.unlink(missing_ok=True)
        return max(complete, default=-1)

    def _tabulate(self, videos: list[VideoPrediction]) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
        """Return the arrays of the npz and the rows of the jsonl of one shard."""
        names = self.meta.class_names
        scored = [video for video in videos if video.scores is not None]
        scores = np.array([video.scores for video in scored], dtype=np.float32).reshape(len(scored), len(names))
        # Stable: equal scores keep the order of the classes; NaN comes last.
        top5 = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        rows: list[dict[str, Any]] = []
        row = 0
        for video in videos:
            label = None if video.label is None else int(video.label)
            common = {"id": video.video_id, "path": video.path, "label": label, "num_views": int(video.num_views)}
            if video.scores is None:
                rows.append({**common, "row": None, "error": video.error})
                continue
            best = [[int(c), names[c], _json_number(scores[row, c])] for c in top5[row]]
            rows.append({**common, "row": row, "top5": best})
            row += 1
        arrays: dict[str, NDArray[Any]] = {"scores": scores}
        clips = [[getattr(video, name) for name in self._clip_columns] for video in scored]
        places = [i for i, columns in enumerate(clips) if not any(column is None for column in columns)]
        if places and len(self._clip_columns) > 2:  # more than the times
            arrays["clip_video"] = np.repeat(np.array(places, dtype=np.int64), [len(clips[i][0]) for i in places])
            for column, name in enumerate(self._clip_columns):
                dtype = np.float64 if name.endswith("_s") else np.float32
                arrays[name] = np.concatenate([np.asarray(clips[i][column], dtype=dtype) for i in places])
        return arrays, rows


def _check(p: VideoPrediction, meta: PredictionsMeta) -> None:
    num_classes = len(meta.class_names)
    if (p.scores is None) == (p.error is None):
        raise ValueError(f"video {p.video_id!r} must have either scores or an error")
    if p.label is None and meta.labelled:
        raise ValueError(f"video {p.video_id!r} has no label, and meta says that every video has one")
    if p.label is not None and not 0 <= p.label < num_classes:
        raise ValueError(f"video {p.video_id!r} has label {p.label}; allowed: 0 to {num_classes - 1}")
    if p.scores is None:
        return
    if np.shape(p.scores) != (num_classes,):
        raise ValueError(f"video {p.video_id!r} has scores of shape {np.shape(p.scores)}; expected ({num_classes},)")
    if (p.clip_features is None) == meta.clip_features:
        raise ValueError(f"video {p.video_id!r} must have clip features if and only if meta says so")
    shapes = {name: np.shape(getattr(p, name)) for name in CLIP_COLUMNS if getattr(p, name) is not None}
    clips = shapes.get("clip_start_s", ())
    expected = {"clip_start_s": clips[:1], "clip_end_s": clips[:1], "clip_scores": (*clips, num_classes)}
    if meta.clip_features:
        expected["clip_features"] = (*clips, *shapes["clip_features"][1:])
    if shapes and shapes != expected:
        raise ValueError(f"video {p.video_id!r} has clip columns of shapes {shapes}; expected {expected}")


def _json_number(value: np.floating) -> float | None:
    """Return a score for JSON, which has no NaN."""
    return round(float(value), 6) if np.isfinite(value) else None


def _agree_on_meta(directory: Path, meta: PredictionsMeta) -> None:
    """Write meta.json, or check that the existing one describes the same run.

    Raises:
        InputError: It describes another run; the message names the differences.
    """
    path = directory / "meta.json"
    if not path.exists():
        # If several processes start together, one creates the file and the others compare.
        with locked(directory / ".lock"):
            if not path.exists():
                write_atomic(path, dump_json(dataclasses.asdict(meta), indent=1) + "\n")
    # Settings that an older version did not have had their defaults.
    defaults = to_dict(Preprocessing())
    there, now = (
        run | {"preprocessing": defaults | run["preprocessing"]}
        for run in (to_dict(read_meta(directory)), to_dict(meta))
    )
    found = differences(there, now)
    named = [_difference(key, *values) for key, values in found.items() if key.split(".")[0] not in _NOT_COMPARED]
    if named:
        raise InputError(
            f"{directory} holds predictions of another run, which differs in {', '.join(named)}; "
            "choose another --output or delete the directory"
        )


def _difference(key: str, there: Any, now: Any) -> str:
    if isinstance(there, list) or isinstance(now, list) or len(str(there)) > 80:
        return key
    if key.endswith("sha256"):
        there, now = str(there)[:12], str(now)[:12]
    return f"{key} ({there} there, {now} now)"
