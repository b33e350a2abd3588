"""The numbers of a comparison of networks on the same videos: plain JSON types, written as compare.json.

The first run is the reference. Every difference is another run's figure minus the reference's. Layout, version 1::

    schema_version, confidence_level, num_classes, notes
    runs          [{letter, name, short_name, settings, model, weights, protocol, manifest, run, coverage,
                  accuracy {evaluated, listed}, calibration}]; short_name and settings say in what the runs differ
    videos        {listed, compared, left_out, left_out_videos [{video_id, failed_in}]}
    comparisons   [{run, reference, differences {evaluated, listed}, mcnemar, won, lost,
                  classes {better, worse, equal, interval_without_0, table}}]

**evaluated**: over the videos with scores in every run. **listed**: over all videos; a failed one is wrong.
`differences` and `accuracy` hold top1, top5 (with more than five classes) and mean_class_accuracy, each {value, low,
high}. A figure that cannot be computed is null.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.naming import differing_settings, network_names
from dnl_video.report import build
from dnl_video.report.origin import facts_of
from dnl_video.results import metrics, paired
from dnl_video.results.predictions import Predictions

SCHEMA_VERSION = 1
_EXAMPLES = 10  # videos won, and lost, that are named
_MOST_LEFT_OUT = 200  # videos without scores in a run that are named
_NAMED = 3  # ids in an error message


class AlignedRun(NamedTuple):
    """One network's predictions of n videos, in the order of the reference."""

    letter: str  # A for the reference, B, C, ... for the others
    name: str  # such as its directory
    predictions: Predictions
    rank: NDArray[np.int64]  # of the label [n]; K for failed videos
    predicted: NDArray[np.int64]  # class [n]; -1 for failed videos

    @property
    def complete(self) -> bool:
        """Whether all listed videos are finished; False when the list is unknown."""
        return self.predictions.meta.num_videos == len(self.rank)


def build_comparison(runs: Sequence[tuple[str, Predictions]]) -> dict[str, Any]:
    """Compare runs with the first of them; the module's docstring lists the fields.

    Args:
        runs: Two or more pairs of a name, such as the directory, and labelled predictions.

    Raises:
        InputError: Fewer than two runs, or their classes, videos or labels differ.
    """
    aligned = _align(runs)
    everywhere = np.logical_and.reduce([run.predictions.evaluated for run in aligned])
    if not everywhere.any():
        raise InputError("no video has scores in every run, so there is nothing to compare")
    comparisons = [_compare(aligned[0], run, everywhere) for run in aligned[1:]]
    if len(comparisons) > 1:
        adjusted = paired.holm([comparison["mcnemar"]["p"] for comparison in comparisons])
        for comparison, p in zip(comparisons, adjusted, strict=True):
            comparison["mcnemar"]["p_holm"] = p
    reference, out = aligned[0].predictions, np.flatnonzero(~everywhere)
    described = [_describe(run, everywhere) for run in aligned]
    facts = [facts_of(predictions, name) for name, predictions in runs]
    for run, short_name, settings in zip(described, network_names(facts), differing_settings(facts), strict=True):
        run |= {"short_name": short_name, "settings": settings}
    scored = {run.letter: run.predictions.evaluated for run in aligned}
    left_out = [
        {"video_id": reference.video_id[i], "failed_in": [letter for letter in scored if not scored[letter][i]]}
        for i in out[:_MOST_LEFT_OUT]
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "confidence_level": metrics.CONFIDENCE,
        "num_classes": len(reference.meta.class_names),
        "notes": _notes(runs, {run["protocol"]["text"] for run in described}, everywhere),
        "runs": described,
        "videos": {
            "listed": reference.meta.num_videos,
            "compared": int(np.count_nonzero(everywhere)),
            "left_out": len(out),
            "left_out_videos": left_out,
        },
        "comparisons": comparisons,
    }


def _align(runs: Sequence[tuple[str, Predictions]]) -> list[AlignedRun]:
    """Return the runs with their videos in the order of the first one."""
    if len(runs) < 2:
        raise InputError(f"a comparison needs two or more runs, and there are {len(runs)}")
    name, reference = runs[0]
    aligned = []
    for number, (other_name, other) in enumerate(runs):
        _require_same_classes(name, reference, other_name, other)
        order = _same_videos(name, reference, other_name, other)
        reordered = dataclasses.replace(
            other,
            video_id=reference.video_id,
            path=[other.path[i] for i in order],
            label=reference.label,
            num_views=other.num_views[order],
            scores=other.scores[order],
            error=[other.error[i] for i in order],
            clip_video=None,
            clip_scores=None,
        )
        letter = chr(ord("A") + number) if number < 26 else f"Z{number - 25}"
        aligned.append(AlignedRun(letter, other_name, reordered, *build.rank_and_predict(reordered)))
    return aligned


def _require_same_classes(first_name: str, first: Predictions, name: str, other: Predictions) -> None:
    ours, theirs = first.meta.class_names, other.meta.class_names
    advice = "compare networks with one class list (results of other projects take it with --classes)"
    if len(ours) != len(theirs):
        raise InputError(f"{first_name} has {len(ours)} classes, {name} has {len(theirs)}; {advice}")
    differ = [(c, *names) for c, names in enumerate(zip(ours, theirs, strict=True)) if names[0] != names[1]]
    if differ:
        c, one, two = differ[0]
        reordered = sorted(ours) == sorted(theirs)
        how = "the same names in another order" if reordered else f"{len(differ)} of {len(ours)} names differ"
        raise InputError(
            f"the classes of {first_name} and {name} differ ({how}): class {c} is {one!r} and {two!r}; {advice}"
        )


def _same_videos(first_name: str, first: Predictions, name: str, other: Predictions) -> NDArray[np.int64]:
    """Return the index in `other` of each video of `first`, int [n]."""
    place = {video_id: i for i, video_id in enumerate(other.video_id)}
    ours = set(first.video_id)
    missing, extra = [v for v in first.video_id if v not in place], [v for v in other.video_id if v not in ours]
    if missing or extra:
        raise InputError(
            f"{first_name} and {name} are of different videos: {_some(missing)} only in {first_name}, {_some(extra)} "
            f"only in {name}{_unfinished('; ', first_name, first)}{_unfinished('; ', name, other)}; evaluate both on "
            "one list"
        )
    order = np.array([place[v] for v in first.video_id], dtype=np.int64)
    build.require_labels(other, f"a comparison needs them in {name}")
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


def _unfinished(start: str, name: str, predictions: Predictions) -> str:
    """Return a text such as "B is unfinished (3 of 8)" after `start`; an empty string for a complete run."""
    listed, finished = predictions.meta.num_videos, len(predictions.video_id)
    return f"{start}{name} is unfinished ({finished} of {listed})" if listed is not None and finished < listed else ""


def _notes(runs: Sequence[tuple[str, Predictions]], protocols: set[str], everywhere: NDArray[np.bool_]) -> list[str]:
    notes = [f"{name}: {note}" for name, predictions in runs for note in predictions.notes]
    if len(protocols) > 1:
        notes.append(f"The protocols differ ({'; '.join(sorted(protocols))}); the differences include their effect.")
    left_out = int(np.count_nonzero(~everywhere))
    if left_out:
        notes.append(
            f"{left_out} of {len(everywhere)} videos have no scores in at least one run. Figures over evaluated videos "
            "leave them out of every run; figures over listed videos count failed ones as wrong."
        )
    for name, predictions in runs:
        if unfinished := _unfinished("Incomplete: ", name, predictions):
            notes.append(f"{unfinished}, so there are no figures over listed videos.")
    return notes


def _describe(run: AlignedRun, everywhere: NDArray[np.bool_]) -> dict[str, Any]:
    origin, coverage = build.origin_of(run.predictions), build.coverage_of(run.predictions)
    labels, num_classes = run.predictions.label, len(run.predictions.meta.class_names)
    return {
        "letter": run.letter,
        "name": run.name,
        "model_name": build.model_name(origin),
        **origin,
        "coverage": {key: coverage[key] for key in ("listed", "finished", "evaluated", "failed", "nan_scores")},
        "accuracy": {
            "evaluated": build.figures_of(run.rank[everywhere], labels[everywhere], num_classes),
            "listed": build.figures_of(run.rank, labels, num_classes) if run.complete else None,
        },
        "calibration": build.calibration_of(run.predictions, everywhere, []),
    }


def _compare(first: AlignedRun, other: AlignedRun, everywhere: NDArray[np.bool_]) -> dict[str, Any]:
    labels, names = first.predictions.label, first.predictions.meta.class_names
    ranks = first.rank[everywhere], other.rank[everywhere]
    hits = ranks[0] == 0, ranks[1] == 0
    counts = paired.count_pairs(*hits)
    listed = first.complete and other.complete
    return {
        "run": other.letter,
        "reference": first.letter,
        "differences": {
            "evaluated": _differences(*ranks, labels[everywhere], len(names)),
            "listed": _differences(first.rank, other.rank, labels, len(names)) if listed else None,
        },
        "mcnemar": {
            "both_right": counts.both,
            "only_reference_right": counts.only_first,
            "only_run_right": counts.only_second,
            "both_wrong": counts.neither,
            "p": paired.mcnemar_exact(counts),
            "p_holm": None,
        },
        "classes": _classes(*hits, labels[everywhere], names),
        "won": _examples(first, other, everywhere & (first.rank > 0) & (other.rank == 0), other),
        "lost": _examples(first, other, everywhere & (first.rank == 0) & (other.rank > 0), first),
    }


def _differences(
    rank_1: NDArray[np.int64], rank_2: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int
) -> dict[str, Any]:
    def top(k: int) -> dict[str, float]:
        return paired.paired_difference(paired.count_pairs(rank_1 < k, rank_2 < k))._asdict()

    by_class = paired.paired_mean_class_difference(rank_1 == 0, rank_2 == 0, labels)
    shares = {f"top{k}": top(k) for k in metrics.reported_k(num_classes)}
    return {**shares, "mean_class_accuracy": by_class._asdict()}


def _classes(
    hits_1: NDArray[np.bool_], hits_2: NDArray[np.bool_], labels: NDArray[np.int64], names: list[str]
) -> dict[str, Any]:
    table = paired.paired_per_class(hits_1, hits_2, labels)
    return {
        "better": sum(row.difference > 0 for row in table.values()),
        "worse": sum(row.difference < 0 for row in table.values()),
        "equal": sum(row.difference == 0 for row in table.values()),
        "interval_without_0": sum(not row.low <= 0 <= row.high for row in table.values()),
        "table": [{"index": c, "name": names[c], **row._asdict()} for c, row in table.items()],
    }


def _examples(
    first: AlignedRun, other: AlignedRun, which: NDArray[np.bool_], right: AlignedRun
) -> list[dict[str, Any]]:
    """Return the videos of `which` for whose label the network `right` has the highest scores."""
    names, labels, found = first.predictions.meta.class_names, first.predictions.label, np.flatnonzero(which)
    chosen = found[np.argsort(-right.predictions.scores[found, labels[found]], kind="stable")[:_EXAMPLES]]

    def answer(run: AlignedRun, i: int) -> dict[str, Any]:
        c, scores = int(run.predicted[i]), run.predictions.scores
        return {"predicted": None if c < 0 else names[c], "score": None if c < 0 else float(scores[i, c])}

    return [
        {**build.video_of(first.predictions, i), "reference": answer(first, i), "run": answer(other, i)} for i in chosen
    ]
