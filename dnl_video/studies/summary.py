"""Rows of finished runs into figures: a context's mean and spread over seeds, and its paired differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from dnl_video.report.render_text import markdown_table
from dnl_video.studies.statistics import Difference, mean, paired_t, standard_deviation

REFERENCES = ("none", "nl")
"""What every context is compared with."""


def summarize(rows: Sequence[Mapping[str, Any]], contexts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the figures of each context that has a finished run, in the order of ``contexts``.

    A difference is over the seeds that both have: the same seed means the same backbone at the start and the same clips
    in the same order.

    Args:
        rows: Finished runs, each with context, seed and top1 (a share).
        contexts: The study's.
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
            "top1": {"mean": mean(values), "sd": standard_deviation(values)},
        }
        for reference in REFERENCES:
            other = top1.get(reference, {})
            shared = [seed for seed in seeds if seed in other]
            figures[f"minus_{reference}"] = (
                dataclasses.asdict(paired_t([other[seed] for seed in shared], [own[seed] for seed in shared]))
                if shared and reference != context
                else None
            )
        summary.append(figures)
    return summary


def results_table(summary: Sequence[Mapping[str, Any]], costs: Mapping[str, Mapping[str, int]]) -> str:
    """Return the figures as a Markdown table, accuracies in %, differences in points."""
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


def _spread(top1: Mapping[str, float | None]) -> str:
    sd = top1["sd"]
    return f"{100 * (top1['mean'] or 0):.1f}" + ("" if sd is None else f" ± {100 * sd:.1f}")


def _difference(values: Mapping[str, Any] | None) -> str:
    if values is None:
        return ""
    found = Difference(**values)
    if found.low is None or found.high is None:
        return f"{100 * found.mean:+.1f}"
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
