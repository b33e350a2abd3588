"""Scores and features of one video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class VideoFeatures:
    """Pooled backbone features of one video.

    Attributes:
        features: Features of each clip, averaged over its crops, [J, C].
        clip_start_s: Start of each clip in seconds, [J].
        clip_end_s: End of each clip in seconds, [J].
    """

    features: NDArray[np.float32]
    clip_start_s: NDArray[np.float64]
    clip_end_s: NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class VideoScores:
    """Scores of one video.

    Attributes:
        scores: Mean of the softmax over all views, [K].
        clip_scores: Scores of each clip, averaged over its crops, [J, K].
        clip_start_s: Start of each clip in seconds, [J].
        clip_end_s: End of each clip in seconds, [J].
        class_names: Names of the K classes.
        clip_features: Pooled features of each clip, averaged over its crops, [J, C]; None unless requested.
    """

    scores: NDArray[np.float32]
    clip_scores: NDArray[np.float32]
    clip_start_s: NDArray[np.float64]
    clip_end_s: NDArray[np.float64]
    class_names: tuple[str, ...]
    clip_features: NDArray[np.float32] | None = None

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k most probable classes with their scores."""
        return [(self.class_names[i], float(self.scores[i])) for i in np.argsort(-self.scores, kind="stable")[:k]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON: `class` and `score` of the most probable class, and the attributes as lists."""
        name, score = self.top(1)[0]
        lists = {key: np.asarray(value).tolist() for key, value in vars(self).items() if value is not None}
        return {"class": name, "score": score, **lists}

    def __repr__(self) -> str:
        best = ", ".join(f"{name} {100 * score:.1f} %" for name, score in self.top(3))
        return f"VideoScores({best}; {len(self.clip_scores)} clips up to {self.clip_end_s.max():.2f} s)"
