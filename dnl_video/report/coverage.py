"""How many of the listed videos a report speaks of, and what became of the others."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePath
from typing import Any

import numpy as np

from dnl_video.results.predictions import Predictions


def coverage_of(predictions: Predictions) -> dict[str, Any]:
    """Count listed, finished, evaluated and failed videos, and group failures by reason.

    Args:
        predictions: Labelled predictions.

    Returns:
        The `coverage` part of the report.
    """
    names, done = predictions.meta.class_names, predictions.evaluated
    failed = [
        {
            "video_id": predictions.video_id[i],
            "path": predictions.path[i],
            "label": names[predictions.label[i]],
            "error": str(predictions.error[i]),
        }
        for i in np.flatnonzero(~done)
    ]
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
    """Return an error text without what is particular to one video, so that equal reasons compare equal.

    Its path, file name and id become VIDEO, and numbers become N.
    """
    name = PurePath(path).name
    for particular in sorted({path, name, video_id} - {""}, key=len, reverse=True):
        # Whole words only: the id "7" must not eat into "17 frames".
        error = re.sub(rf"(?<!\w){re.escape(particular)}(?!\w)", "VIDEO", error)
    return re.sub(r"\d+", "N", " ".join(error.split()))
