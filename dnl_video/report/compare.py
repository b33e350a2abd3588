"""From the predictions of several networks on the same videos to the numbers of a comparison, as plain JSON types.

The first run is the reference; every difference is another run's figure minus the reference's. Layout, version 1::

    schema_version, confidence_level, num_classes, notes
    runs          [{letter, name, model, weights, protocol, manifest, run, coverage, accuracy {evaluated, listed}}]
    videos        {listed, compared, left_out, left_out_videos [{video_id, failed_in}]}
    comparisons   [{run, reference, differences {evaluated, listed}, mcnemar, won, lost,
                  classes {better, worse, equal, interval_without_0, table}}]

**evaluated** is over the videos that every run has scores for; **listed** over all videos, a failed one being wrong:
the two figures of a report. `differences` and `accuracy` hold top1, top5 and mean_class_accuracy, each {value, low,
high}. A figure that cannot be had is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.report.alignment import Run, align, unfinished
from dnl_video.report.build import CONFIDENCE, figures_of, protocol_of
from dnl_video.report.coverage import coverage_of
from dnl_video.report.markdown import model_name
from dnl_video.results.paired import (
    count_pairs,
    holm,
    mcnemar_exact,
    paired_difference,
    paired_mean_class_difference,
    paired_per_class,
)
from dnl_video.results.predictions import Predictions

SCHEMA_VERSION = 1
_EXAMPLES = 10  # videos won, and lost, that are named
_MOST_LEFT_OUT = 200  # videos named that a run has no scores for


def build_comparison(runs: Sequence[tuple[str, Predictions]]) -> dict[str, Any]:
    """Compare runs with the first of them.

    Args:
        runs: Name, such as the directory, and labelled predictions of each; two or more.

    Returns:
        A dictionary of plain JSON types; see the top of this file.

    Raises:
        InputError: Fewer than two runs, or their classes, videos or labels differ; the message says how.
    """
    aligned = align(runs)
    reference = runs[0][1]
    labels, num_classes = reference.label, len(reference.meta.class_names)
    everywhere = np.logical_and.reduce([run.done for run in aligned])
    if not everywhere.any():
        raise InputError("no video has scores in every run, so there is nothing to compare")
    notes = _notes(runs, everywhere)
    comparisons = [_compare(aligned[0], run, labels, everywhere, num_classes) for run in aligned[1:]]
    if len(comparisons) > 1:
        adjusted = holm([comparison["mcnemar"]["p"] for comparison in comparisons])
        for comparison, p in zip(comparisons, adjusted, strict=True):
            comparison["mcnemar"]["p_holm"] = p
    return {
        "schema_version": SCHEMA_VERSION,
        "confidence_level": CONFIDENCE,
        "num_classes": num_classes,
        "notes": notes,
        "runs": [_describe(run, labels, everywhere, num_classes) for run in aligned],
        "videos": _coverage(aligned, reference, everywhere),
        "comparisons": comparisons,
    }


def _notes(runs: Sequence[tuple[str, Predictions]], everywhere: NDArray[np.bool_]) -> list[str]:
    notes = [f"{name}: {note}" for name, predictions in runs for note in predictions.notes]
    protocols = {protocol_of(predictions)["text"] for _, predictions in runs}
    if len(protocols) > 1:
        notes.append(f"The protocols differ ({'; '.join(sorted(protocols))}), and the differences include that.")
    left_out = int(np.count_nonzero(~everywhere))
    if left_out:
        notes.append(
            f"{left_out} of {len(everywhere)} videos have no scores in one run or more. Figures over evaluated videos "
            "leave them out of every run; figures over listed videos count them as wrong where they failed."
        )
    for name, predictions in runs:
        if what := unfinished(name, predictions).removeprefix("; "):
            notes.append(f"Incomplete: {what}, so there are no figures over listed videos.")
    return notes


def _describe(run: Run, labels: NDArray[np.int64], everywhere: NDArray[np.bool_], num_classes: int) -> dict[str, Any]:
    meta, coverage = run.predictions.meta, coverage_of(run.predictions)
    return {
        "letter": run.letter,
        "name": run.name,
        "model_name": model_name({"model": meta.model, "run": meta.run}),
        "model": meta.model,
        "weights": {"name": meta.weights, "sha256": meta.weights_sha256},
        "preprocessing": meta.preprocessing,
        "protocol": protocol_of(run.predictions),
        "manifest": {"source": meta.manifest, "sha256": meta.manifest_sha256},
        "run": meta.run,
        "coverage": {key: coverage[key] for key in ("listed", "finished", "evaluated", "failed", "nan_scores")},
        "accuracy": {
            "evaluated": figures_of(run.rank[everywhere], labels[everywhere], num_classes),
            "listed": figures_of(run.rank, labels, num_classes) if run.complete else None,
        },
    }


def _coverage(runs: Sequence[Run], reference: Predictions, everywhere: NDArray[np.bool_]) -> dict[str, Any]:
    out = np.flatnonzero(~everywhere)
    return {
        "listed": reference.meta.num_videos,
        "compared": int(np.count_nonzero(everywhere)),
        "left_out": len(out),
        "left_out_videos": [
            {"video_id": reference.video_id[i], "failed_in": [run.letter for run in runs if not run.done[i]]}
            for i in out[:_MOST_LEFT_OUT]
        ],
    }


def _compare(
    first: Run, other: Run, labels: NDArray[np.int64], everywhere: NDArray[np.bool_], num_classes: int
) -> dict[str, Any]:
    hits_1, hits_2 = first.rank[everywhere] == 0, other.rank[everywhere] == 0
    counts = count_pairs(hits_1, hits_2)
    whole = first.complete and other.complete
    return {
        "run": other.letter,
        "reference": first.letter,
        "differences": {
            "evaluated": _differences(first.rank[everywhere], other.rank[everywhere], labels[everywhere], num_classes),
            "listed": _differences(first.rank, other.rank, labels, num_classes) if whole else None,
        },
        "mcnemar": {
            "both_right": counts.both,
            "only_reference_right": counts.only_first,
            "only_run_right": counts.only_second,
            "both_wrong": counts.neither,
            "p": mcnemar_exact(counts),
            "p_holm": None,
        },
        "classes": _classes(first, hits_1, hits_2, labels[everywhere], num_classes),
        "won": _examples(first, other, labels, everywhere & (first.rank > 0) & (other.rank == 0), other),
        "lost": _examples(first, other, labels, everywhere & (first.rank == 0) & (other.rank > 0), first),
    }


def _differences(
    rank_1: NDArray[np.int64], rank_2: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int
) -> dict[str, Any]:
    def top(k: int) -> dict[str, float]:
        k = min(k, num_classes)
        return paired_difference(count_pairs(rank_1 < k, rank_2 < k), CONFIDENCE)._asdict()

    by_class = paired_mean_class_difference(rank_1 == 0, rank_2 == 0, labels, CONFIDENCE)
    return {"top1": top(1), "top5": top(5), "mean_class_accuracy": by_class._asdict()}


def _classes(
    first: Run,
    hits_1: NDArray[np.bool_],
    hits_2: NDArray[np.bool_],
    labels: NDArray[np.int64],
    num_classes: int,
) -> dict[str, Any]:
    table = paired_per_class(hits_1, hits_2, labels, num_classes, CONFIDENCE)
    net = table.only_second - table.only_first
    rows: list[dict[str, Any]] = [
        {
            "index": int(c),
            "name": first.predictions.meta.class_names[c],
            "videos": int(table.num_videos[c]),
            "reference": float(table.first[c]),
            "run": float(table.second[c]),
            "won": int(table.only_second[c]),
            "lost": int(table.only_first[c]),
            "difference": float(net[c] / table.num_videos[c]),
            "low": float(table.low[c]),
            "high": float(table.high[c]),
        }
        for c in np.flatnonzero(table.num_videos)
    ]
    return {
        "better": int(np.count_nonzero(net > 0)),
        "worse": int(np.count_nonzero(net < 0)),
        "equal": int(np.count_nonzero((net == 0) & (table.num_videos > 0))),
        "interval_without_0": sum(not row["low"] <= 0 <= row["high"] for row in rows),
        "table": rows,
    }


def _examples(
    first: Run, other: Run, labels: NDArray[np.int64], which: NDArray[np.bool_], sure: Run
) -> list[dict[str, Any]]:
    """Return the videos on which the network that is right is most confident."""
    names = first.predictions.meta.class_names
    found = np.flatnonzero(which)
    confidence = sure.scores[found, labels[found]]
    chosen = found[np.argsort(-confidence, kind="stable")[:_EXAMPLES]]

    def answer(run: Run, i: int) -> dict[str, Any]:
        c = int(run.predicted[i])
        return (
            {"predicted": names[c], "score": float(run.scores[i, c])} if c >= 0 else {"predicted": None, "score": None}
        )

    return [
        {
            "video_id": first.predictions.video_id[i],
            "path": first.predictions.path[i],
            "label": names[labels[i]],
            "reference": answer(first, i),
            "run": answer(other, i),
        }
        for i in chosen
    ]
