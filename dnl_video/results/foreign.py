"""Reads the results of other projects as `Predictions`. The format is recognised by the file's content:

- a CSV with the header ``video_id,label,score_0,...,score_{K-1}``;
- PySlowFast's ``TEST.SAVE_RESULTS_PATH`` (its tools/test_net.py): a pickle of ``[preds [n, K], labels [n]]``, where
  preds are **sums** of probabilities over views;
- mmaction2's ``tools/test.py --dump`` (1.x): a pickle of dicts with ``pred_score`` and ``gt_label`` (release
  candidates: ``pred_scores`` and ``gt_labels``, dicts with ``item``); ``--out`` (0.x): a pickle or JSON of score
  vectors without labels.

Such a file does not say the protocol, the weights and the failed videos; they stay unknown. No code in a pickle is run
(`safe_pickle`).
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.results.foreign_csv import read_csv
from dnl_video.results.predictions import Predictions, PredictionsMeta
from dnl_video.safe_pickle import UnsafePickleError, as_array, loads

_KINDS = (
    "a CSV (video_id,label,score_0,...), PySlowFast's TEST.SAVE_RESULTS_PATH, mmaction2's --dump, or a predictions "
    "directory"
)
_MMACTION_SCORES = ("pred_score", "pred_scores", "_pred_scores")
_MMACTION_LABELS = ("gt_label", "gt_labels", "_gt_labels")


class ListEntry(NamedTuple):
    """One video of the tested list."""

    video_id: str
    path: str
    label: int | None


class _Content(NamedTuple):
    """The content of a results file."""

    origin: str  # the project that wrote it
    scores: NDArray[Any]  # [n, K]
    labels: NDArray[np.int64] | None = None  # class indices [n]; None when the file has none
    video_id: list[str] | None = None  # None when the file has none; then its rows are in the order of the list
    unscored: list[bool] | None = None  # videos that were never scored [n]; their scores are NaN


def read_foreign(
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    videos: Sequence[ListEntry] | None = None,
) -> Predictions:
    """Read the results of another project; `notes` says how the scores were converted.

    Args:
        path: The file.
        class_names: Names of the K classes, in the order of the scores; None names them 0, 1, ...
        videos: The tested list, in its order, for ids, paths and labels. A CSV is matched by id instead of by order;
            listed videos that it lacks count as failed.

    Raises:
        InputError: The file has an unknown format, is damaged or unsafe, or does not fit the classes or the list.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give {_KINDS}") from error
    table = _parse(path, data, class_names)
    num_classes = table.scores.shape[1]
    names = [str(c) for c in range(num_classes)] if class_names is None else list(class_names)
    if len(names) != num_classes:
        raise InputError(f"{path} has scores of {num_classes} classes, but {len(names)} class names were given")
    scores, notes = as_probabilities(table.scores)
    rows, order = _rows(path, table, videos)
    labels = np.array([row.label for row in rows], dtype=np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise InputError(
            f"{path}: video {rows[wrong[0]].video_id!r} has label {labels[wrong[0]]}, but there are scores of "
            f"{num_classes} classes (0 to {num_classes - 1})"
        )
    # The last row of `errors` and `padded`, index -1, is for listed videos that the file lacks.
    unscored = [False] * len(scores) if table.unscored is None else table.unscored
    errors = [*("never scored: all scores are 0" if left else None for left in unscored), "not in the results file"]
    padded = np.concatenate([scores, np.full((1, num_classes), np.nan, dtype=np.float32)])
    if videos is None:
        notes.append("The file does not say how many videos were listed or failed: figures are over the videos in it.")
    meta = PredictionsMeta(
        model={},
        preprocessing={},
        weights="",
        weights_sha256="",
        num_clips=None,
        num_crops=None,
        class_names=names,
        manifest="",
        manifest_sha256="",
        num_videos=None if videos is None else len(videos),
        labelled=True,
        run={"results file": str(path), "written by": table.origin, "file sha256": hashlib.sha256(data).hexdigest()},
    )
    return Predictions(
        meta=meta,
        video_id=[row.video_id for row in rows],
        path=[row.path for row in rows],
        label=labels,
        num_views=np.zeros(len(rows), dtype=np.int64),
        scores=padded[order],
        error=[errors[i] for i in order],
        notes=notes,
    )


def _parse(path: Path, data: bytes, class_names: Sequence[str] | None) -> _Content:
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if data[:1] == b"\x80":
        try:
            return _of_projects(path, loads(data))
        except UnsafePickleError as error:
            raise InputError(
                f"{path} is a pickle that asks for {error}, which plain results do not need; no code in it was run. "
                f"Give {_KINDS}"
            ) from error
        except pickle.UnpicklingError as error:
            raise InputError(f"{path} is a damaged pickle ({error}); write it again") from error
    if data[:4] == b"PK\x03\x04":
        raise InputError(f"{path} is a zip file, as torch.save and numpy.savez write; give {_KINDS}")
    if start in (b"[", b"{"):
        try:
            return _of_projects(path, json.loads(data))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is damaged JSON ({error}); write it again") from error
    video_id, labels, scores = read_csv(path, data, class_names)
    return _Content("a CSV of scores", scores, labels, video_id)


def _of_projects(path: Path, content: Any) -> _Content:
    """Return the results in an unpickled or JSON value."""
    if isinstance(content, (list, tuple)) and content:
        if isinstance(content[0], dict):
            return _of_mmaction(path, content)
        first = as_array(content[0])
        if len(content) == 2 and first is not None and first.ndim == 2 and as_array(content[1]) is not None:
            return _of_pyslowfast(path, first, as_array(content[1]))
        if first is not None and first.ndim == 1:
            return _Content("mmaction2 0.x (--out)", _stack(path, [as_array(row) for row in content]))
    raise InputError(f"{path} holds no scores of a known layout; give {_KINDS}")


def _of_pyslowfast(path: Path, preds: NDArray[Any], labels: NDArray[Any] | None) -> _Content:
    if labels is None or labels.shape != preds.shape[:1] or labels.dtype.kind not in "iu":
        shape = None if labels is None else labels.shape
        raise InputError(
            f"{path} has predictions of shape {preds.shape} and labels of shape {shape}; give one class index per "
            "video (multi-label results have no top-1)"
        )
    scores = _stack(path, list(preds)) if len(preds) else preds
    unscored = (scores == 0).all(axis=1)
    scores = np.where(unscored[:, None], np.nan, scores)
    return _Content("PySlowFast", scores, labels.astype(np.int64), unscored=unscored.tolist())


def _of_mmaction(path: Path, content: Sequence[Any]) -> _Content:
    scores, labels = [], []
    for number, sample in enumerate(content):
        score, label = (_field(sample, names) for names in (_MMACTION_SCORES, _MMACTION_LABELS))
        if score is None:
            raise InputError(f"{path}: result {number} has no pred_score; give the --dump of mmaction2's recognisers")
        if label is None or label.size != 1 or label.dtype.kind not in "iu":
            raise InputError(f"{path}: result {number} has not exactly one gt_label; top-1 needs one")
        scores.append(score)
        labels.append(int(label.reshape(())))
    return _Content("mmaction2 (--dump)", _stack(path, scores), np.array(labels, dtype=np.int64))


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
                f"{path}: the scores of result {number} are {found}; every video needs one score per class "
                "(in mmaction2 set average_clips='prob')"
            )
    return np.stack([np.asarray(row) for row in rows])


def _rows(path: Path, table: _Content, videos: Sequence[ListEntry] | None) -> tuple[list[ListEntry], NDArray[np.int64]]:
    """Return the videos of the result, and the row of each in the file (-1: not in the file)."""
    n = len(table.scores)
    if videos is None:
        if table.labels is None:
            raise InputError(f"{path} ({table.origin}) has no labels; give the tested list with --manifest")
        ids = table.video_id or [str(i) for i in range(n)]
        return [ListEntry(v, v, int(k)) for v, k in zip(ids, table.labels, strict=True)], np.arange(n)
    if table.video_id is None:
        if n != len(videos):
            raise InputError(f"{path} has {n} results, but the list has {len(videos)} videos; give the tested list")
        order = np.arange(n)
    else:
        place = {video_id: i for i, video_id in enumerate(table.video_id)}
        listed_ids = {listed.video_id for listed in videos}
        unknown = [v for v in table.video_id if v not in listed_ids]
        if unknown:
            raise InputError(
                f"{path}: {len(unknown)} of its videos are not in the list, such as {unknown[0]!r} (the list has, "
                f"for example, {videos[0].video_id!r}); give the tested list"
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
                "belongs to another list, or the list or the classes have another order"
            )
        rows.append(ListEntry(listed.video_id, listed.path, label))
    return rows, order


def as_probabilities(scores: NDArray[Any]) -> tuple[NDArray[np.float32], list[str]]:
    """Return scores [n, K] as probabilities, and a note if they were converted.

    Rows that sum to 1 are unchanged. Rows that sum to an integer are sums of probabilities over views; other rows in
    [0, 1] are maxima over views or sigmoids; both are divided by their sum. Other scores are logits and get a softmax.
    The order of the scores in a row never changes. Rows with a NaN stay NaN.
    """
    values = np.array(scores, dtype=np.float64)
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
            note = f"Scores sum to {what}: they are read as sums of probabilities over views, and divided by their sum."
        elif known.min() >= 0 and known.max() <= 1 and sums.min() > 0:
            note = "Scores in [0, 1] do not sum to 1; they are divided by their sum, which affects calibration."
        else:
            values = np.exp(values - values.max(axis=1, keepdims=True))
            note = "Scores are not probabilities; they are read as logits, and converted by a softmax."
        values /= values.sum(axis=1, keepdims=True)
    return values.astype(np.float32), [note]
