"""Appending to a predictions directory."""

from __future__ import annotations

import os
import re
import time
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.files import atomic_path, dump_json, write_atomic
from dnl_video.results.records import PredictionsMeta, VideoPrediction, agree_on_meta
from dnl_video.results.shards import list_shards, lock_rank

_ADVICE = "fix that and run the same command again (finished work is kept)"


class PredictionsWriter:
    """Appends the predictions of one process to a predictions directory.

    Use it as a context manager: whatever ends the block, Ctrl-C included, finished videos are written.

    Args:
        directory: The predictions directory; made when absent.
        meta: What is predicted; must agree with the directory's own, if it has one.
        rank: Number of this process among those that write at the same time.
        flush_every: Videos after which a shard is written.
        flush_seconds: Seconds after which `add` writes a shard.
        clip_scores: Store the scores of clips.

    Raises:
        InputError: The directory belongs to another run, cannot be made, or another process of this rank writes to it.
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
        self._with_clips = clip_scores
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the predictions directory {self.directory}: {error.strerror}; choose another --output"
            ) from error
        agree_on_meta(self.directory, meta)
        self._lock = lock_rank(self.directory, rank)
        self._pending = _Pending(self._clean_up() + 1)
        self._closed = False

    def __enter__(self) -> PredictionsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    def add(self, prediction: VideoPrediction) -> None:
        """Take one finished video; writes a shard when enough of them, or of time, has gathered.

        Raises:
            ValueError: Shapes or fields do not fit the directory's class names.
            InputError: The shard cannot be written.
        """
        if self._closed:
            raise ValueError("this PredictionsWriter is closed")
        self._pending.videos.append(self._checked(prediction))
        age = time.monotonic() - self._pending.since
        if len(self._pending.videos) >= self._flush_every or age >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write the gathered videos as one shard; nothing when there are none."""
        pending = self._pending
        if not pending.videos:
            return
        name = f"{self.rank:04d}-{pending.seq:06d}"
        arrays, rows = _tabulate(pending.videos, self.meta.class_names, self._with_clips)
        with atomic_path(self.directory / f"scores-{name}.npz", advice=_ADVICE) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]
        lines = "".join(dump_json(row) + "\n" for row in rows)
        write_atomic(self.directory / f"videos-{name}.jsonl", lines, advice=_ADVICE)
        # One assignment, so that Ctrl-C anywhere above or below repeats this very shard or starts the next.
        self._pending = _Pending(pending.seq + 1)

    def close(self) -> None:
        """Write what is left and let go of the directory."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self._closed = True
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _clean_up(self) -> int:
        """Remove what a killed process of this rank left; return its last finished shard's number, or -1."""
        finished = {seq for rank, seq, _ in list_shards(self.directory) if rank == self.rank}
        for path in self.directory.iterdir():
            left = re.fullmatch(r"(\.\w+\.)?(scores|videos)-(\d+)-(\d+)\.(npz|jsonl)", path.name)
            if left and int(left[3]) == self.rank and (left[1] or int(left[4]) not in finished):
                path.unlink(missing_ok=True)
        return max(finished, default=-1)

    def _checked(self, prediction: VideoPrediction) -> VideoPrediction:
        p, num_classes = prediction, len(self.meta.class_names)
        if (p.scores is None) == (p.error is None):
            raise ValueError(f"video {p.video_id!r} must have either scores or an error")
        if p.label is None and self.meta.labelled:
            raise ValueError(f"video {p.video_id!r} has no label, and meta says that every video has one")
        if p.label is not None and not 0 <= p.label < num_classes:
            raise ValueError(f"video {p.video_id!r} has label {p.label}; allowed: 0 to {num_classes - 1}")
        if p.scores is not None and np.shape(p.scores) != (num_classes,):
            raise ValueError(
                f"video {p.video_id!r} has scores of shape {np.shape(p.scores)}; expected ({num_classes},)"
            )
        if p.clip_scores is not None:
            arrays: list[Any] = [p.clip_start_s, p.clip_end_s, p.clip_scores]
            shapes = [np.shape(array) for array in arrays]
            num_clips = len(p.clip_scores)
            if p.scores is None or shapes != [(num_clips,), (num_clips,), (num_clips, num_classes)]:
                raise ValueError(f"video {p.video_id!r} has clip starts, ends and scores of shapes {shapes}")
        return p


@dataclass
class _Pending:
    """Videos waiting to become shard `seq`."""

    seq: int
    videos: list[VideoPrediction] = field(default_factory=list)
    since: float = field(default_factory=lambda: time.monotonic())


def _tabulate(
    videos: list[VideoPrediction], class_names: list[str], with_clips: bool
) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """Return the arrays of the npz and the rows of the jsonl of one shard."""
    good = [video for video in videos if video.scores is not None]
    scores = np.array([video.scores for video in good], dtype=np.float32).reshape(len(good), len(class_names))
    # Stable, so that equal scores keep the order of the classes; NaN comes last.
    top5 = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    rows: list[dict[str, Any]] = []
    row = 0
    for video in videos:
        label = None if video.label is None else int(video.label)
        common = {"id": video.video_id, "path": video.path, "label": label, "num_views": int(video.num_views)}
        if video.scores is None:
            rows.append({**common, "row": None, "error": video.error})
            continue
        best = [[int(c), class_names[c], _finite(scores[row, c])] for c in top5[row]]
        rows.append({**common, "row": row, "top5": best})
        row += 1
    arrays: dict[str, NDArray[Any]] = {"scores": scores}
    with_clip_rows = [(i, video) for i, video in enumerate(good) if with_clips and video.clip_scores is not None]
    if with_clip_rows:
        counts = [len(video.clip_scores) for _, video in with_clip_rows]  # type: ignore[arg-type]
        arrays["clip_video"] = np.repeat(np.array([i for i, _ in with_clip_rows], dtype=np.int64), counts)
        for name, dtype in (("clip_start_s", np.float64), ("clip_end_s", np.float64), ("clip_scores", np.float32)):
            arrays[name] = np.concatenate([np.asarray(getattr(v, name), dtype=dtype) for _, v in with_clip_rows])
    return arrays, rows


def _finite(value: np.floating) -> float | None:
    """JSON has no NaN."""
    return round(float(value), 6) if np.isfinite(value) else None
