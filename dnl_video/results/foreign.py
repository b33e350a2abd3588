"""Results that other projects wrote, as the table that a predictions directory gives.

Told apart by their content:

- a CSV with the header ``video_id,label,score_0,...,score_{K-1}``;
- PySlowFast's ``TEST.SAVE_RESULTS_PATH`` (its tools/test_net.py): a pickle of ``[preds [n, K], labels [n]]``, where
  preds are **sums** of probabilities over views;
- mmaction2's ``tools/test.py --dump`` (1.x): a pickle of dicts with ``pred_score`` and ``gt_label`` (release
  candidates: ``pred_scores`` and ``gt_labels``, dicts with ``item``); ``--out`` (0.x): a pickle or JSON of score
  vectors without labels.

What such a file does not say (protocol, weights, which videos failed) stays unknown. Pickles are read without running
anything in them (`safe_pickle`).
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.results.foreign_csv import read_csv
from dnl_video.results.predictions import Predictions, PredictionsMeta
from dnl_video.safe_pickle import UnsafePickleError, as_array, loads

KINDS = (
    "a CSV (video_id,label,score_0,...), PySlowFast's TEST.SAVE_RESULTS_PATH, mmaction2's --dump, or a predictions "
    "directory"
)
_MMACTION_SCORES = ("pred_score", "pred_scores", "_pred_scores")
_MMACTION_LABELS = ("gt_label", "gt_labels", "_gt_labels")


class ListedVideo(NamedTuple):
    """One video of the list that was tested."""

    video_id: str
    path: str
    label: int | None


@dataclass(frozen=True)
class _Table:
    """What a file says.

    Args:
        origin: Who wrote it, as a person would say.
        scores: [n, K].
        labels: Class indices, int64 [n]; None when the file has none.
        video_id: Names of the videos; None when the file has none, and rows follow the list that was tested.
        unscored: Rows whose video was never scored, bool [n].
    """

    origin: str
    scores: NDArray[Any]
    labels: NDArray[np.int64] | None
    video_id: list[str] | None = None
    unscored: NDArray[np.bool_] | None = None


def read_foreign(
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    videos: Sequence[ListedVideo] | None = None,
) -> Predictions:
    """Read results that another project wrote.

    Args:
        path: The file.
        class_names: Names of the K classes, in the order of the scores; None names them 0, 1, ...
        videos: The list that was tested, in its order: gives ids, paths and, where the file has none, labels. A CSV is
            matched by id instead, and listed videos it lacks count as failed.

    Returns:
        The table, with what was concluded about the scores in `notes`.

    Raises:
        InputError: The file is of no known kind, damaged, unsafe, or does not fit the classes or the list.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give {KINDS}") from error
    table = _parse(path, data, class_names)
    n, num_classes = table.scores.shape
    names = [str(c) for c in range(num_classes)] if class_names is None else list(class_names)
    if len(names) != num_classes:
        raise InputError(f"{path} has scores of {num_classes} classes, but {len(names)} class names were given")
    unscored = np.zeros(n, dtype=bool) if table.unscored is None else table.unscored
    scores, notes = as_probabilities(table.scores, unscored)
    rows, order = _rows(path, table, videos)
    labels = np.array([row.label for row in rows], dtype=np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise InputError(
            f"{path}: video {rows[wrong[0]].video_id!r} has label {labels[wrong[0]]}, but there are scores of "
            f"{num_classes} classes (0 to {num_classes - 1})"
        )
    # Row -1 of the padded tables stands for a listed video that the file lacks.
    errors = [*("never scored: all scores are 0" if left else None for left in unscored), "not in the results file"]
    padded = np.concatenate([scores, np.full((1, num_classes), np.nan, dtype=np.float32)])
    if videos is None:
        notes.append("The file does not say how many videos were listed or failed: figures are over those it holds.")
    return Predictions(
        meta=_meta(path, data, table.origin, names, None if videos is None else len(videos)),
        video_id=[row.video_id for row in rows],
        path=[row.path for row in rows],
        label=labels,
        num_views=np.zeros(len(rows), dtype=np.int64),
        scores=padded[order],
        error=[errors[i] for i in order],
        notes=notes,
    )


def _meta(path: Path, data: bytes, origin: str, names: list[str], num_videos: int | None) -> PredictionsMeta:
    return PredictionsMeta(
        model={},
        preprocessing={},
        weights="",
        weights_sha256="",
        num_clips=None,
        num_crops=None,
        class_names=names,
        manifest="",
        manifest_sha256="",
        num_videos=num_videos,
        labelled=True,
        run={"results file": str(path), "written by": origin, "file sha256": hashlib.sha256(data).hexdigest()},
    )


def _parse(path: Path, data: bytes, class_names: Sequence[str] | None) -> _Table:
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if data[:1] == b"\x80":
        try:
            return _of_projects(path, loads(data))
        except UnsafePickleError as error:
            raise InputError(
                f"{path} is a pickle that asks for {error}, which plain results do not need; nothing of it was run. "
                f"Give {KINDS}"
            ) from error
        except pickle.UnpicklingError as error:
            raise InputError(f"{path} is a damaged pickle ({error}); write it again") from error
    if data[:4] == b"PK\x03\x04":
        raise InputError(f"{path} is a zip file, as torch.save and numpy.savez write; give {KINDS}")
    if start in (b"[", b"{"):
        try:
            return _of_projects(path, json.loads(data))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is damaged JSON ({error}); write it again") from error
    video_id, labels, scores = read_csv(path, data, class_names)
    return _Table("a CSV of scores", scores, labels, video_id)


def _of_projects(path: Path, content: Any) -> _Table:
    """Return the table of unpickled, or JSON, content."""
    if isinstance(content, (list, tuple)) and content:
        if isinstance(content[0], dict):
            return _of_mmaction(path, content)
        first = as_array(content[0])
        if len(content) == 2 and first is not None and first.ndim == 2 and as_array(content[1]) is not None:
            return _of_pyslowfast(path, first, as_array(content[1]))
        if first is not None and first.ndim == 1:
            return _Table("mmaction2 0.x (--out)", _stack(path, [as_array(row) for row in content]), None)
    raise InputError(f"{path} holds no scores of a known layout; give {KINDS}")


def _of_pyslowfast(path: Path, preds: NDArray[Any], labels: NDArray[Any] | None) -> _Table:
    if labels is None or labels.shape != preds.shape[:1] or labels.dtype.kind not in "iu":
        shape = None if labels is None else labels.shape
        raise InputError(
            f"{path} has predictions of shape {preds.shape} and labels of shape {shape}; one class index a video is "
            "needed (multi-label results have no top-1)"
        )
    scores = _stack(path, list(preds)) if len(preds) else preds
    return _Table("PySlowFast", scores, labels.astype(np.int64), unscored=(scores == 0).all(axis=1))


def _of_mmaction(path: Path, content: Sequence[Any]) -> _Table:
    scores, labels = [], []
    for number, sample in enumerate(content):
        score, label = (_field(sample, names) for names in (_MMACTION_SCORES, _MMACTION_LABELS))
        if score is None:
            raise InputError(f"{path}: result {number} has no pred_score; give what mmaction2's recognisers --dump")
        if label is None or label.size != 1 or label.dtype.kind not in "iu":
            raise InputError(f"{path}: result {number} has not exactly one gt_label; top-1 needs one")
        scores.append(score)
        labels.append(int(label.reshape(())))
    return _Table("mmaction2 (--dump)", _stack(path, scores), np.array(labels, dtype=np.int64))


def _field(sample: Any, names: Sequence[str]) -> NDArray[Any] | None:
    for name in names:
        value = sample.get(name) if isinstance(sample, dict) else None
        if isinstance(value, dict):
            value = value.get("item")
        if value is not None:
            return np.array(value) if type(value) is int else as_array(value)
    return None


def _stack(path: Path, rows: Sequence[NDArray[Any] | None]) -> NDArray[Any]:
    """Return score vectors as [n, K]."""
    shape = None if rows[0] is None else rows[0].shape
    for number, row in enumerate(rows):
        if row is None or row.ndim != 1 or not len(row) or row.shape != shape or row.dtype.kind not in "fiu":
            found = "no vector of numbers" if row is None else f"of shape {row.shape}"
            raise InputError(
                f"{path}: the scores of result {number} are {found}; one score a class is needed for every video "
                "(in mmaction2 set average_clips='prob')"
            )
    return np.stack([np.asarray(row) for row in rows])


def _rows(
    path: Path, table: _Table, videos: Sequence[ListedVideo] | None
) -> tuple[list[ListedVideo], NDArray[np.int64]]:
    """Return the videos of the result, and each one's row of the file (−1: the file lacks it)."""
    n = len(table.scores)
    if videos is None:
        if table.labels is None:
            raise InputError(f"{path} ({table.origin}) has no labels; give the list that was tested with --manifest")
        ids = table.video_id or [str(i) for i in range(n)]
        return [ListedVideo(v, v, int(k)) for v, k in zip(ids, table.labels, strict=True)], np.arange(n)
    if table.video_id is None:
        if n != len(videos):
            raise InputError(f"{path} has {n} results, but the list has {len(videos)} videos; give the list tested")
        order = np.arange(n)
    else:
        place = {video_id: i for i, video_id in enumerate(table.video_id)}
        strangers = [v for v in table.video_id if v not in {listed.video_id for listed in videos}]
        if strangers:
            raise InputError(
                f"{path}: {len(strangers)} of its videos are not in the list, such as {strangers[0]!r} (the list's ids "
                f"look like {videos[0].video_id!r}); give the list tested"
            )
        order = np.array([place.get(listed.video_id, -1) for listed in videos], dtype=np.int64)
    rows = []
    for listed, i in zip(videos, order, strict=True):
        label = listed.label if table.labels is None or i < 0 else int(table.labels[i])
        if label is None:
            raise InputError(f"the list has no label for {listed.video_id!r}; give a list with labels")
        if listed.label is not None and label != listed.label:
            raise InputError(
                f"{path}: video {listed.video_id!r} has label {label}, but the list says {listed.label}; the file "
                "belongs to another list, or to another order of it or of the classes"
            )
        rows.append(ListedVideo(listed.video_id, listed.path, label))
    return rows, order


def as_probabilities(
    scores: NDArray[Any], unscored: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float32], list[str]]:
    """Return scores as probabilities, and a sentence about what was done to them, if anything.

    Rows that sum to 1 stay as they are. Rows that sum to a whole number are sums of probabilities over views, and other
    rows within [0, 1] maxima over views or sigmoids: both are divided by their sum. Anything else is taken for logits
    and goes through a softmax. None of this changes the order of a row's scores. Rows with a NaN stay NaN.

    Args:
        scores: [n, K].
        unscored: Rows to leave out of the decision and to set to NaN, bool [n].
    """
    values = np.array(scores, dtype=np.float64)
    if unscored is not None:
        values[unscored] = np.nan
    known = values[~np.isnan(values).any(axis=1)]
    if not len(known):
        return values.astype(np.float32), []
    sums = known.sum(axis=1)
    whole = np.maximum(np.round(sums), 1)
    with np.errstate(over="ignore", invalid="ignore"):
        if known.min() >= 0 and (np.abs(sums - 1) <= 0.02).all():  # as loose as scores printed with three digits
            return values.astype(np.float32), []
        if known.min() >= 0 and (np.abs(sums - whole) <= 0.02).all():
            low, high = int(whole.min()), int(whole.max())
            what = f"{low}" if low == high else f"{low} to {high}"
            note = f"Scores sum to {what}: they were taken for sums of probabilities over views, and divided."
        elif known.min() >= 0 and known.max() <= 1 and sums.min() > 0:
            note = "Scores within [0, 1] do not sum to 1; they were divided by their sum, and calibration is theirs."
        else:
            values = np.exp(values - values.max(axis=1, keepdims=True))
            note = "Scores are no probabilities; they were taken for logits, and went through a softmax."
        values /= values.sum(axis=1, keepdims=True)
    return values.astype(np.float32), [note]
