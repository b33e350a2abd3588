"""The numbers of a report, from predictions: one dictionary of plain JSON types, written as report.json.

`schema` is "dnl-video-report/1". The number rises when a field is renamed, removed or changes its meaning, not when one
is added. A figure that cannot be computed is null, and `notes` says why::

    schema          "dnl-video-report/1"
    complete        whether every listed video is finished
    notes           sentences about missing or wrong data
    model           the ModelSpec; preprocessing: frames, stride, size, mean, ...
    weights         {name, sha256};   manifest {source, sha256}: the list of videos
    protocol        {num_clips, num_crops, num_views, frame_order, text}
    versions        of packages;   run {command, device, precision, date, ...}
    num_classes     K;   confidence_level of every interval
    coverage        listed, finished, evaluated, failed, nan_scores: numbers of videos;
                    failures [{reason, videos, example}], failed_videos [{video_id, path, label, error}]
    accuracy        evaluated {video, centre_clip, clip}, listed {video}: each {top1, top5, mean_class_accuracy};
                    top5 only with more than five classes
    by_num_clips    [{num_clips, top1}]: for the mean over k evenly spaced clips of J
    per_class       [{index, name, videos, correct, failed, accuracy, low, high, most_taken_for {name, videos}}]
    confused_pairs  [{label, label_index, predicted, predicted_index, videos, share_of_label}], at most 20
    confusion       [[true class, predicted class, videos]]: the non-zero cells
    calibration     {ece, mean_confidence, videos, bins [{low, high, videos, confidence, accuracy}]}
    training        {metric: [[epochs done, value]]} of the training run, such as val/top1; null if it is not found
    confident_mistakes  [{video_id, path, label, predicted, confidence, label_score, label_place}], at most 20

An accuracy is {value, low, high} with its counts: {correct, total}, or {num_classes} for mean class accuracy. Shares
are in [0, 1]. Rules for ties and NaN: `results/metrics.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.report.curves import Curves
from dnl_video.results import metrics
from dnl_video.results.clip_metrics import ClipAccuracy, accuracy_by_num_clips
from dnl_video.results.predictions import Predictions

SCHEMA = "dnl-video-report/1"
_MOST_LISTED = 20  # longest list of confused pairs, and of confident mistakes


def build_report(predictions: Predictions, training: Curves | None = None) -> dict[str, Any]:
    """Compute the numbers of a report from labelled predictions; the module's docstring lists the fields.

    Args:
        predictions: The predictions.
        training: The curves of the training run; see `read_curves`.

    Raises:
        InputError: Videos have no labels.
    """
    require_labels(predictions, "a report needs labels")
    done, num_classes = predictions.evaluated, len(predictions.meta.class_names)
    rank, predicted = rank_and_predict(predictions)
    coverage = coverage_of(predictions)
    complete = coverage["listed"] in (None, coverage["finished"])
    notes = list(predictions.notes)
    if not complete:
        notes.append(
            f"Incomplete: {coverage['finished']} of {coverage['listed']} videos. "
            "Run the same command again to finish the others; until then there is no figure over all listed videos."
        )
    if coverage["nan_scores"]:
        number = count_text(coverage["nan_scores"], "video")
        notes.append(f"NaN scores count as wrong ({number}); check the network and its precision.")
    if num_classes == 1:
        notes.append("There is only one class, so the accuracy says nothing about the network.")
    clips = _clip_accuracy(predictions, notes)
    labels, listed = predictions.label, complete and coverage["listed"] is not None
    return {
        "schema": SCHEMA,
        "complete": complete,
        "notes": notes,
        **origin_of(predictions),
        "versions": predictions.meta.versions,
        "num_classes": num_classes,
        "confidence_level": metrics.CONFIDENCE,
        "coverage": coverage,
        "accuracy": {
            "evaluated": {
                "video": figures_of(rank[done], labels[done], num_classes),
                "centre_clip": clips and figures_of(clips.centre_rank, labels[clips.video], num_classes),
                "clip": clips and _clip_figures(clips, num_classes),
            },
            "listed": {"video": figures_of(rank, labels, num_classes) if listed else None},
        },
        "by_num_clips": clips
        and [{"num_clips": int(k), "top1": _share(r == 0)} for k, r in zip(clips.k, clips.rank_by_k, strict=True)],
        **_by_class(predictions, rank),
        "calibration": calibration_of(predictions, done, notes),
        "training": {name: list(map(list, points)) for name, points in training.items()} if training else None,
        "confident_mistakes": _confident_mistakes(predictions, rank, predicted),
    }


def require_labels(predictions: Predictions, reason: str) -> None:
    """Raise InputError if a video has no label; `reason` says which output needs labels."""
    missing = np.flatnonzero(predictions.label < 0)
    if len(missing):
        raise InputError(
            f"{len(missing)} of {len(predictions.label)} predictions have no label (first: "
            f"{predictions.video_id[missing[0]]!r}), and {reason}; run `dnl-video evaluate --checkpoint FILE "
            "--manifest LIST` with a list that has them (Kinetics CSV, `path label` lines or class folders)"
        )


def video_of(predictions: Predictions, i: int | np.integer) -> dict[str, Any]:
    """Return id, path and label of the video with index i."""
    name = predictions.meta.class_names[predictions.label[i]]
    return {"video_id": predictions.video_id[i], "path": predictions.path[i], "label": name}


def rank_and_predict(predictions: Predictions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the label's rank and the predicted class of each video, int [n]; K and -1 for failed videos."""
    done = predictions.evaluated
    scores, labels = predictions.scores[done], predictions.label[done]
    rank = np.full(len(done), predictions.scores.shape[1], dtype=np.int64)  # a failed video is wrong at every k
    rank[done] = metrics.rank_of_label(scores, labels)
    predicted = np.full(len(done), -1, dtype=np.int64)
    predicted[done] = metrics.predicted_class(scores, labels)
    return rank, predicted


def origin_of(predictions: Predictions) -> dict[str, Any]:
    """Return model, weights, preprocessing, protocol, list of videos and run."""
    meta = predictions.meta
    return {
        "model": meta.model,
        "weights": {"name": meta.weights, "sha256": meta.weights_sha256},
        "preprocessing": meta.preprocessing,
        "protocol": protocol_of(predictions),
        "manifest": {"source": meta.manifest, "sha256": meta.manifest_sha256},
        "run": meta.run,
    }


def protocol_of(predictions: Predictions) -> dict[str, Any]:
    """Return the views whose scores are averaged for a video, as numbers and as text."""
    clips, crops, order = predictions.meta.num_clips, predictions.meta.num_crops, predictions.meta.frame_order
    if clips is None or crops is None:
        unknown = dict.fromkeys(("num_clips", "num_crops", "num_views", "frame_order"))
        return {**unknown, "text": "protocol unknown"}
    size, frames, stride = map(predictions.meta.preprocessing.get, ("crop_size", "num_frames", "frame_stride"))
    text = f"{count_text(clips, 'clip')} x {count_text(crops, 'crop')}" + (f" at {size}" if size else "")
    if frames and stride:
        text += f", clips of {count_text(frames, 'frame')} with stride {stride}"
    if order != "natural":
        text += f", frames {order}"
    views = clips * crops
    return {"num_clips": clips, "num_crops": crops, "num_views": views, "frame_order": order, "text": text}


def count_text(number: int, noun: str, plural: str = "") -> str:
    """Return a text such as "1 video" or "1,200 videos"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def model_name(described: dict[str, Any]) -> str:
    """Return the name of a report's or a run's model, such as "slow_r50 + dnl"; of other projects, the file's name."""
    model = described["model"]
    if not model and "results file" in described["run"]:
        return PurePath(described["run"]["results file"]).name
    name, context = str(model.get("architecture", "model")), model.get("context", "none")
    return name if context == "none" else f"{name} + {context}"


def coverage_of(predictions: Predictions) -> dict[str, Any]:
    """Count listed, finished, evaluated and failed videos, and group failures by reason."""
    done = predictions.evaluated
    failed = [{**video_of(predictions, i), "error": str(predictions.error[i])} for i in np.flatnonzero(~done)]
    reasons = [failure_reason(video["error"], video["path"], video["video_id"]) for video in failed]
    first = {reason: video["video_id"] for reason, video in zip(reversed(reasons), reversed(failed), strict=True)}
    return {
        "listed": predictions.meta.num_videos,  # None: unknown
        "finished": len(done),
        "evaluated": int(np.count_nonzero(done)),
        "failed": len(failed),
        "nan_scores": int(np.count_nonzero(np.isnan(predictions.scores[done]).any(axis=1))),
        "failures": [
            {"reason": reason, "videos": count, "example": first[reason]}
            for reason, count in sorted(Counter(reasons).items(), key=lambda item: (-item[1], item[0]))
        ],
        "failed_videos": failed,
    }


def failure_reason(error: str, path: str, video_id: str) -> str:
    """Replace the video's path, file name and id in a message by VIDEO, and numbers by N, to group by reason."""
    for particular in sorted({path, PurePath(path).name, video_id} - {""}, key=len, reverse=True):
        # Whole words only: the id "7" must not match in "17 frames".
        error = re.sub(rf"(?<!\w){re.escape(particular)}(?!\w)", "VIDEO", error)
    return re.sub(r"\d+", "N", " ".join(error.split()))


def figures_of(rank: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> dict[str, Any] | None:
    """Return top-1, top-5 (of more than five classes) and mean class accuracy of videos; None when there are none."""
    if not len(rank):
        return None
    by_class = metrics.mean_class_accuracy(rank == 0, labels)
    return {
        **{f"top{k}": _share(rank < k) for k in metrics.reported_k(num_classes)},
        "mean_class_accuracy": {**by_class._asdict(), "num_classes": len(np.unique(labels))},
    }


def _clip_figures(clips: ClipAccuracy, num_classes: int) -> dict[str, Any]:
    return {
        **{f"top{k}": _share(clips.clip_rank < k, clips.clip_video) for k in metrics.reported_k(num_classes)},
        "mean_class_accuracy": None,  # not a usual figure for clips
    }


def _share(hits: NDArray[np.bool_], clip_video: NDArray[np.int64] | None = None) -> dict[str, Any]:
    """Return the share of hits of videos, or of clips with the video of each clip."""
    interval = metrics.share_interval(hits) if clip_video is None else metrics.clustered_interval(hits, clip_video)
    return {**interval._asdict(), "correct": int(np.count_nonzero(hits)), "total": len(hits)}


def _clip_accuracy(predictions: Predictions, notes: list[str]) -> ClipAccuracy | None:
    """Return the accuracy of clips; None and a note when not all videos have clip scores."""
    evaluated = int(np.count_nonzero(predictions.evaluated))
    lacking = "there are no clip-level and centre-clip figures."
    if predictions.clip_scores is None or predictions.clip_video is None:
        if evaluated and predictions.meta.num_clips not in (None, 1):  # of one clip, they equal the video-level ones
            notes.append(f"No clip scores are stored (--no-clip-scores), so {lacking}")
        return None
    with_clips = len(np.unique(predictions.clip_video))
    if with_clips < evaluated:
        notes.append(f"Clip scores are stored for {with_clips} of {evaluated} evaluated videos, so {lacking}")
        return None
    return accuracy_by_num_clips(predictions.clip_scores, predictions.clip_video, predictions.label)


def _by_class(predictions: Predictions, rank: NDArray[np.int64]) -> dict[str, Any]:
    """Return per_class, confused_pairs and confusion, over evaluated videos."""
    names, done = predictions.meta.class_names, predictions.evaluated
    num_classes, labels = len(names), predictions.label[done]
    failed = np.bincount(predictions.label[~done], minlength=num_classes).tolist()
    confusion = metrics.confusion_matrix(predictions.scores[done], labels)
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    rows: list[dict[str, Any]] = []
    for c, row in enumerate(metrics.per_class(rank[done] == 0, labels, num_classes)):
        other = int(np.argmax(wrong[c]))
        taken_for = {"name": names[other], "videos": int(wrong[c, other])} if wrong[c, other] else None
        rows.append({"index": c, "name": names[c], **row._asdict(), "failed": failed[c], "most_taken_for": taken_for})
    true, predicted = np.nonzero(wrong)
    most = np.argsort(-wrong[true, predicted], kind="stable")[:_MOST_LISTED]
    pairs = [
        {
            "label": names[t],
            "label_index": int(t),
            "predicted": names[p],
            "predicted_index": int(p),
            "videos": int(wrong[t, p]),
            "share_of_label": float(wrong[t, p] / rows[t]["videos"]),
        }
        for t, p in zip(true[most], predicted[most], strict=True)
    ]
    cells = [[int(t), int(p), int(confusion[t, p])] for t, p in zip(*np.nonzero(confusion), strict=True)]
    return {"per_class": rows, "confused_pairs": pairs, "confusion": cells}


def calibration_of(predictions: Predictions, chosen: NDArray[np.bool_], notes: list[str]) -> dict[str, Any] | None:
    """Return the calibration over the chosen videos [n]; None and a note when the scores are no probabilities."""
    if not chosen.any():
        return None
    try:
        result = metrics.expected_calibration_error(predictions.scores[chosen], predictions.label[chosen])
    except InputError as error:
        notes.append(f"No calibration: {error}.")
        return None
    return {**result._asdict(), "bins": [b._asdict() for b in result.bins]}


def _confident_mistakes(
    predictions: Predictions, rank: NDArray[np.int64], predicted: NDArray[np.int64]
) -> list[dict[str, Any]]:
    names, scores, label = predictions.meta.class_names, predictions.scores, predictions.label
    wrong = np.flatnonzero((predicted >= 0) & (predicted != label))
    most = wrong[np.argsort(-scores[wrong, predicted[wrong]], kind="stable")[:_MOST_LISTED]]
    return [
        {
            **video_of(predictions, i),
            "predicted": names[predicted[i]],
            "confidence": _finite(scores[i, predicted[i]]),
            "label_score": _finite(scores[i, label[i]]),
            "label_place": int(rank[i]) + 1,
        }
        for i in most
    ]


def _finite(score: np.floating) -> float | None:
    """Return a score for JSON, which has no infinity."""
    return float(score) if np.isfinite(score) else None
