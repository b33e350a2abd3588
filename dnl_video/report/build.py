"""From predictions to the report's numbers: one dictionary of plain JSON types, which every output shows.

report.json is this dictionary. `schema` is "dnl-video-report/1"; the number rises when a field is renamed, removed or
changes its meaning, not when one is added. A figure that cannot be had is null, and `notes` says why::

    schema          "dnl-video-report/1"
    complete        whether every listed video is finished
    notes           sentences on what is missing or wrong
    model           the ModelSpec; preprocessing: frames, stride, size, mean, ...
    weights         {name, sha256};   manifest {source, sha256}: the list of videos
    protocol        {num_clips, num_crops, num_views, frame_order, text}
    versions        of packages;   run {command, device, precision, date, ...}
    num_classes     K;   confidence_level of every interval
    coverage        listed, finished, evaluated, failed, nan_scores: numbers of videos;
                    failures [{reason, videos, example}], failed_videos [{video_id, path, label, error}]
    accuracy        evaluated {video, centre_clip, clip}, listed {video}: each {top1, top5, mean_class_accuracy}
    by_num_clips    [{num_clips, top1}]: the mean of k evenly spaced ones of J clips
    per_class       [{index, name, videos, correct, failed, accuracy, low, high, most_taken_for {name, videos}}]
    confused_pairs  [{label, label_index, predicted, predicted_index, videos, share_of_label}], at most 20
    confusion       [[true class, predicted class, videos]]: the cells that are not 0
    calibration     {ece, mean_confidence, videos, bins [{low, high, videos, confidence, accuracy}]}
    confident_mistakes  [{video_id, path, label, predicted, confidence, label_score, label_place}], at most 20

A share is {value, low, high}, ends of its interval included, and of what: {correct, total}, or {num_classes} for mean
class accuracy. Shares are in [0, 1]. Rules of ties and NaN: `results/metrics.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.report.coverage import coverage_of
from dnl_video.results.clip_metrics import ClipAccuracy, accuracy_by_num_clips
from dnl_video.results.metrics import (
    Interval,
    clustered_interval,
    confusion_matrix,
    expected_calibration_error,
    mean_class_accuracy,
    per_class,
    predicted_class,
    rank_of_label,
    share_interval,
)
from dnl_video.results.predictions import Predictions

SCHEMA = "dnl-video-report/1"
CONFIDENCE = 0.95
_LONGEST = 20  # entries of confused pairs and of confident mistakes


def build_report(predictions: Predictions) -> dict[str, Any]:
    """Compute everything a report says.

    Args:
        predictions: Labelled predictions, as read by `read_predictions`.

    Returns:
        A dictionary of plain JSON types; see the top of this file.

    Raises:
        InputError: Videos have no labels.
    """
    _require_labels(predictions)
    meta, done = predictions.meta, predictions.evaluated
    num_classes, notes = len(meta.class_names), list(predictions.notes)
    scores, labels = predictions.scores[done], predictions.label[done]
    ranks = np.full(len(done), num_classes, dtype=np.int64)  # a failed video is wrong at every k
    ranks[done] = rank_of_label(scores, labels)
    coverage = coverage_of(predictions)
    listed = coverage["listed"]
    complete = listed is None or coverage["finished"] == listed
    if not complete:
        notes.append(
            f"Incomplete: {coverage['finished']} of {coverage['listed']} videos. "
            "Run the same command again to finish the others; there is no figure over all listed videos until then."
        )
    if coverage["nan_scores"]:
        notes.append(
            f"{coverage['nan_scores']} videos have NaN among their scores and count as wrong; the network "
            "or its precision is at fault."
        )
    clips = _clip_accuracy(predictions, notes)
    return {
        "schema": SCHEMA,
        "complete": complete,
        "notes": notes,
        "model": meta.model,
        "weights": {"name": meta.weights, "sha256": meta.weights_sha256},
        "preprocessing": meta.preprocessing,
        "protocol": protocol_of(predictions),
        "manifest": {"source": meta.manifest, "sha256": meta.manifest_sha256},
        "versions": meta.versions,
        "run": meta.run,
        "num_classes": num_classes,
        "confidence_level": CONFIDENCE,
        "coverage": coverage,
        "accuracy": {
            "evaluated": {
                "video": figures_of(ranks[done], labels, num_classes),
                "centre_clip": clips and figures_of(clips.centre_rank, predictions.label[clips.video], num_classes),
                "clip": clips and _clip_figures(clips, num_classes),
            },
            "listed": {
                "video": figures_of(ranks, predictions.label, num_classes) if complete and listed is not None else None
            },
        },
        "by_num_clips": clips and _by_num_clips(clips),
        **_by_class(predictions, ranks),
        "calibration": _calibration(scores, labels, notes),
        "confident_mistakes": _confident_mistakes(predictions, ranks),
    }


def _require_labels(predictions: Predictions) -> None:
    missing = np.flatnonzero(predictions.label < 0)
    if len(missing):
        raise InputError(
            f"{len(missing)} of {len(predictions.label)} predictions have no label (first: "
            f"{predictions.video_id[missing[0]]!r}), and a report needs labels; run `dnl-video evaluate --checkpoint "
            "FILE --manifest LIST` with a list that has them (Kinetics CSV, `path label` lines or class folders)"
        )


def protocol_of(predictions: Predictions) -> dict[str, Any]:
    """Return what was averaged for a video's scores, in numbers and in words."""
    meta = predictions.meta
    if meta.num_clips is None or meta.num_crops is None:
        unknown = dict.fromkeys(("num_clips", "num_crops", "num_views", "frame_order"))
        return {**unknown, "text": "protocol unknown"}
    size = meta.preprocessing.get("crop_size")
    text = f"{_count(meta.num_clips, 'clip')} x {_count(meta.num_crops, 'crop')}" + (f" at {size}" if size else "")
    frames, stride = meta.preprocessing.get("num_frames"), meta.preprocessing.get("frame_stride")
    if frames and stride:
        text += f", clips of {_count(frames, 'frame')} with stride {stride}"
    if meta.frame_order != "natural":
        text += f", frames {meta.frame_order}"
    return {
        "num_clips": meta.num_clips,
        "num_crops": meta.num_crops,
        "num_views": meta.num_clips * meta.num_crops,
        "frame_order": meta.frame_order,
        "text": text,
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def figures_of(ranks: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> dict[str, Any] | None:
    """Return top-1, top-5 and mean class accuracy of videos; None when there are none."""
    if not len(ranks):
        return None
    return {
        "top1": _share(share_interval(ranks == 0, CONFIDENCE), ranks == 0),
        "top5": _share(share_interval(ranks < min(5, num_classes), CONFIDENCE), ranks < min(5, num_classes)),
        "mean_class_accuracy": {
            **mean_class_accuracy(ranks == 0, labels, CONFIDENCE)._asdict(),
            "num_classes": len(np.unique(labels)),
        },
    }


def _share(interval: Interval, hits: NDArray[np.bool_]) -> dict[str, Any]:
    return {**interval._asdict(), "correct": int(np.count_nonzero(hits)), "total": len(hits)}


def _clip_accuracy(predictions: Predictions, notes: list[str]) -> ClipAccuracy | None:
    num_evaluated = int(np.count_nonzero(predictions.evaluated))
    if predictions.clip_scores is None or predictions.clip_video is None:
        if num_evaluated and predictions.meta.num_clips is not None:
            notes.append(
                "No clip scores are stored (--no-clip-scores), so there are no clip-level and centre-clip figures."
            )
        return None
    with_clips = len(np.unique(predictions.clip_video))
    if with_clips < num_evaluated:
        notes.append(
            f"Clip scores are stored for {with_clips} of {num_evaluated} evaluated videos, "
            "so there are no clip-level and centre-clip figures."
        )
        return None
    return accuracy_by_num_clips(predictions.clip_scores, predictions.clip_video, predictions.label)


def _clip_figures(clips: ClipAccuracy, num_classes: int) -> dict[str, Any]:
    top1, top5 = clips.clip_rank == 0, clips.clip_rank < min(5, num_classes)
    return {
        "top1": _share(clustered_interval(top1, clips.clip_video, CONFIDENCE), top1),
        "top5": _share(clustered_interval(top5, clips.clip_video, CONFIDENCE), top5),
        "mean_class_accuracy": None,  # not a figure anyone quotes for clips
    }


def _by_num_clips(clips: ClipAccuracy) -> list[dict[str, Any]]:
    return [
        {"num_clips": int(k), "top1": _share(share_interval(ranks == 0, CONFIDENCE), ranks == 0)}
        for k, ranks in zip(clips.k, clips.rank_by_k, strict=True)
    ]


def _by_class(predictions: Predictions, ranks: NDArray[np.int64]) -> dict[str, Any]:
    """Return per_class, confused_pairs and confusion, over evaluated videos."""
    names, done = predictions.meta.class_names, predictions.evaluated
    num_classes, labels = len(names), predictions.label[done]
    table = per_class(ranks[done] == 0, labels, num_classes, CONFIDENCE)
    failed = np.bincount(predictions.label[~done], minlength=num_classes)
    confusion = confusion_matrix(predictions.scores[done], labels)
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    rows = []
    for c, name in enumerate(names):
        seen, other = table.num_videos[c] > 0, int(np.argmax(wrong[c]))
        rows.append(
            {
                "index": c,
                "name": name,
                "videos": int(table.num_videos[c]),
                "correct": int(table.correct[c]),
                "failed": int(failed[c]),
                "accuracy": float(table.accuracy[c]) if seen else None,
                "low": float(table.low[c]) if seen else None,
                "high": float(table.high[c]) if seen else None,
                "most_taken_for": {"name": names[other], "videos": int(wrong[c, other])} if wrong[c, other] else None,
            }
        )
    true, predicted = np.nonzero(wrong)
    most = np.argsort(-wrong[true, predicted], kind="stable")[:_LONGEST]
    pairs = [
        {
            "label": names[t],
            "label_index": int(t),
            "predicted": names[p],
            "predicted_index": int(p),
            "videos": int(wrong[t, p]),
            "share_of_label": float(wrong[t, p] / table.num_videos[t]),
        }
        for t, p in zip(true[most], predicted[most], strict=True)
    ]
    cells = [[int(t), int(p), int(confusion[t, p])] for t, p in zip(*np.nonzero(confusion), strict=True)]
    return {"per_class": rows, "confused_pairs": pairs, "confusion": cells}


def _calibration(scores: NDArray[np.float32], labels: NDArray[np.int64], notes: list[str]) -> dict[str, Any] | None:
    if not len(scores):
        return None
    try:
        result = expected_calibration_error(scores, labels)
    except InputError as error:
        notes.append(f"No calibration: {error}.")
        return None
    bins = [
        {
            "low": float(result.edges[b]),
            "high": float(result.edges[b + 1]),
            "videos": int(count),
            "confidence": float(result.confidence[b]) if count else None,
            "accuracy": float(result.accuracy[b]) if count else None,
        }
        for b, count in enumerate(result.count)
    ]
    mean = float(np.nansum(result.confidence * result.count) / result.count.sum())
    return {"ece": result.ece, "mean_confidence": mean, "videos": int(result.count.sum()), "bins": bins}


def _confident_mistakes(predictions: Predictions, ranks: NDArray[np.int64]) -> list[dict[str, Any]]:
    names = predictions.meta.class_names
    predicted = np.full(len(ranks), -1, dtype=np.int64)
    done = predictions.evaluated
    predicted[done] = predicted_class(predictions.scores[done], predictions.label[done])
    wrong = np.flatnonzero((predicted >= 0) & (predicted != predictions.label))
    confidence = predictions.scores[wrong, predicted[wrong]]
    return [
        {
            "video_id": predictions.video_id[i],
            "path": predictions.path[i],
            "label": names[predictions.label[i]],
            "predicted": names[predicted[i]],
            "confidence": _finite(predictions.scores[i, predicted[i]]),
            "label_score": _finite(predictions.scores[i, predictions.label[i]]),
            "label_place": int(ranks[i]) + 1,
        }
        for i in wrong[np.argsort(-confidence, kind="stable")[:_LONGEST]]
    ]


def _finite(score: np.floating) -> float | None:
    """JSON has no infinity."""
    return float(score) if np.isfinite(score) else None
