"""Lines up the predictions of several networks video by video, or says why that cannot be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.results.metrics import predicted_class, rank_of_label
from dnl_video.results.predictions import Predictions

_NAMED = 3  # ids in a refusal


@dataclass(frozen=True)
class Run:
    """One network's videos, in the order of the reference's.

    Args:
        letter: A for the reference, B, C, ... for the others.
        name: What it was called, such as its directory.
        predictions: What was read, in its own order.
        scores: [n, K], NaN where failed.
        done: Whether a video has scores, bool [n].
        rank: Rank of the label, int [n]; K where failed, which is wrong at every k.
        predicted: Predicted class, int [n]; -1 where failed.
    """

    letter: str
    name: str
    predictions: Predictions
    scores: NDArray[np.float32]
    done: NDArray[np.bool_]
    rank: NDArray[np.int64]
    predicted: NDArray[np.int64]

    @property
    def complete(self) -> bool:
        """Whether all listed videos are there; not where the list is unknown."""
        return self.predictions.meta.num_videos == len(self.rank)


def align(runs: Sequence[tuple[str, Predictions]]) -> list[Run]:
    """Return the runs with their videos in the order of the first one's.

    Args:
        runs: Name and labelled predictions of each; the first is the reference.

    Raises:
        InputError: Fewer than two runs, or their classes, videos or labels differ; the message says how.
    """
    if len(runs) < 2:
        raise InputError(f"a comparison needs two or more runs, and there are {len(runs)}")
    name, reference = runs[0]
    _require_labels(name, reference)
    orders = [np.arange(len(reference.video_id))]
    for other_name, other in runs[1:]:
        _same_classes(name, reference, other_name, other)
        orders.append(_same_videos(name, reference, other_name, other))
    letters = [chr(ord("A") + i) if i < 26 else f"Z{i - 25}" for i in range(len(runs))]
    return [
        _in_order(letter, name, predictions, order, reference.label)
        for letter, (name, predictions), order in zip(letters, runs, orders, strict=True)
    ]


def _require_labels(name: str, predictions: Predictions) -> None:
    missing = int(np.count_nonzero(predictions.label < 0))
    if missing:
        raise InputError(
            f"{missing} of {len(predictions.label)} videos of {name} have no label, and a comparison needs them; "
            "run `dnl-video evaluate` with a list that has labels"
        )


def _same_classes(first_name: str, first: Predictions, name: str, other: Predictions) -> None:
    ours, theirs = first.meta.class_names, other.meta.class_names
    if ours == theirs:
        return
    advice = "compare networks with one class list (results of other projects take it with --classes)"
    if len(ours) != len(theirs):
        raise InputError(f"{first_name} has {len(ours)} classes, {name} has {len(theirs)}; {advice}")
    differ = [c for c in range(len(ours)) if ours[c] != theirs[c]]
    how = (
        "the same names in another order"
        if sorted(ours) == sorted(theirs)
        else f"{len(differ)} of {len(ours)} names differ"
    )
    c = differ[0]
    raise InputError(
        f"the classes of {first_name} and {name} differ ({how}): class {c} is {ours[c]!r} and {theirs[c]!r}; {advice}"
    )


def _same_videos(first_name: str, first: Predictions, name: str, other: Predictions) -> NDArray[np.int64]:
    """Return the place in `other` of each video of `first`."""
    place = {video_id: i for i, video_id in enumerate(other.video_id)}
    lacking = [v for v in first.video_id if v not in place]
    ours = set(first.video_id)
    extra = [v for v in other.video_id if v not in ours]
    if lacking or extra:
        raise InputError(
            f"{first_name} and {name} are of different videos: {_some(lacking)} only in {first_name}, {_some(extra)} "
            f"only in {name}{unfinished(first_name, first)}{unfinished(name, other)}; evaluate both on one list"
        )
    order = np.array([place[v] for v in first.video_id], dtype=np.int64)
    _require_labels(name, other)
    wrong = np.flatnonzero(other.label[order] != first.label)
    if len(wrong):
        names, i = first.meta.class_names, wrong[0]
        raise InputError(
            f"the labels of {len(wrong)} of {len(order)} videos differ: {first.video_id[i]!r} is "
            f"{names[first.label[i]]!r} in {first_name} and {names[other.label[order[i]]]!r} in {name}; evaluate both "
            "on one list"
        )
    return order


def _some(ids: list[str]) -> str:
    named = ", ".join(repr(v) for v in ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")
    return f"{len(ids)} ({named})" if ids else "0"


def unfinished(name: str, predictions: Predictions) -> str:
    """Return such as "; B is unfinished (3 of 8)", or nothing."""
    listed, there = predictions.meta.num_videos, len(predictions.video_id)
    return f"; {name} is unfinished ({there} of {listed})" if listed is not None and there < listed else ""


def _in_order(
    letter: str, name: str, predictions: Predictions, order: NDArray[np.int64], labels: NDArray[np.int64]
) -> Run:
    scores, done = predictions.scores[order], predictions.evaluated[order]
    rank = np.full(len(order), scores.shape[1], dtype=np.int64)  # a failed video is wrong at every k
    rank[done] = rank_of_label(scores[done], labels[done])
    predicted = np.full(len(order), -1, dtype=np.int64)
    predicted[done] = predicted_class(scores[done], labels[done])
    return Run(letter, name, predictions, scores, done, rank, predicted)
