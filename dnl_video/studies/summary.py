"""Rows of finished runs to figures: mean and spread over seeds, and paired differences between contexts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from dnl_video.report.render_text import markdown_table

REFERENCES = ("none", "nl")
"""The contexts that every context is compared with."""


def summarize(rows: Sequence[Mapping[str, Any]], contexts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the figures of each context that has a finished run, in the order of ``contexts``.

    Differences are paired by the seeds that both contexts have: runs of one seed start from the same backbone and see
    the same clips in the same order.

    Args:
        rows: Finished runs, each with context, seed and top1 (a share).
        contexts: The contexts of the study.
    """
    top1: dict[str, dict[int, float]] = {context: {} for context in contexts}
    for row in rows:
        top1[row["context"]][row["seed"]] = row["top1"]
    summary: list[dict[str, Any]] = []
    for context in contexts:
        own = top1[context]
        if not own:
            continue
        seeds = sorted(own)
        values = [own[seed] for seed in seeds]
        figures: dict[str, Any] = {
            "context": context,
            "seeds": seeds,
            "top1": {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None},
        }
        for reference in REFERENCES:
            other = top1.get(reference, {})
            shared = [seed for seed in seeds if seed in other]
            figures[f"minus_{reference}"] = (
                paired_t([other[seed] for seed in shared], [own[seed] for seed in shared])
                if shared and reference != context
                else None
            )
        summary.append(figures)
    return summary


def results_table(summary: Sequence[Mapping[str, Any]], costs: Mapping[str, Mapping[str, int]]) -> str:
    """Return the figures as a Markdown table: accuracies in %, differences in points."""
    header = ["context", "parameters", "GMACs", "seeds", "top-1, mean ± sd", "minus `none`", "minus `nl`"]
    lines = [
        [
            f"`{figures['context']}`",
            f"{costs[figures['context']]['params']:,}",
            f"{costs[figures['context']]['macs'] / 1e9:.4f}",
            str(len(figures["seeds"])),
            _spread(figures["top1"]),
            *(_difference(figures[f"minus_{reference}"]) for reference in REFERENCES),
        ]
        for figures in summary
    ]
    return markdown_table(header, lines, "lrrrrrr")


def _spread(top1: Mapping[str, Any]) -> str:
    return f"{100 * top1['mean']:.1f}" + ("" if top1["sd"] is None else f" ± {100 * top1['sd']:.1f}")


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    text = f"{100 * found['mean']:+.1f}"
    return text if found["low"] is None else f"{text} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"


def paired_t(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> dict[str, Any]:
    """Return the mean of second minus first, pair by pair, with Student's t interval.

    Returns:
        mean, low and high (the interval; None for one pair, which has no spread), and the number of pairs.
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    count, mean = len(differences), fmean(differences)
    low = high = None
    if count > 1:
        half = t_quantile((1 + confidence) / 2, count - 1) * stdev(differences) / math.sqrt(count)
        low, high = mean - half, mean + half
    return {"mean": mean, "low": low, "high": high, "pairs": count}


def t_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution for a probability in [0.5, 1), by bisection of `t_cdf`."""
    high = 1.0
    while t_cdf(high, freedom) < probability:
        high *= 2
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        if t_cdf(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def t_cdf(t: float, freedom: int) -> float:
    """Return P(T <= t) for t >= 0, by the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4."""
    theta = math.atan2(t, math.sqrt(freedom))
    sine, square = math.sin(theta), math.cos(theta) ** 2
    odd = freedom % 2
    # A(t|v), the probability of [-t, t]: products of (even/odd) for odd v, of (odd/even) for even v.
    term, total = (math.cos(theta) if odd else 1.0), 0.0
    for k in range(freedom // 2):
        total += term
        term *= square * (2 * k + 2) / (2 * k + 3) if odd else square * (2 * k + 1) / (2 * k + 2)
    inside = 2 / math.pi * (theta + sine * total) if odd else sine * total
    return (1 + inside) / 2
