"""One long video: clips that slide over it, each scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dnl_video.cores import default_workers
from dnl_video.data.sliding_clips import SlidingClips, read_ahead
from dnl_video.inference.predictor import Predictor, VideoScores


def predict_sliding(
    predictor: Predictor,
    path: str | Path,
    *,
    hop_s: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> VideoScores:
    """Score clips every `hop_s` seconds over the whole video, in memory that does not grow with its length.

    Args:
        predictor: The network; of its options `num_crops`, `views_per_forward` and `num_workers` count (here:
            decoding threads; 0 decodes and scores in turn).
        path: The video.
        hop_s: Seconds from the start of one clip to the next.
        progress: Called with (clips done, clips of the video).

    Returns:
        Scores of each clip, and their mean.

    Raises:
        VideoDecodeError: It cannot be decoded to its end.
        ValueError: `hop_s` is not above 0.
    """
    options = predictor.options
    workers = default_workers(options.num_workers)
    clips = SlidingClips(
        str(path),
        predictor.preprocessing,
        hop_s=hop_s,
        num_crops=options.num_crops,
        clips_at_once=max(options.views_per_forward // options.num_crops, 1),
        threads=max(workers, 1),
    )
    total, done = len(clips.indices), 0
    scores = np.full((total, len(predictor.class_names)), np.nan, dtype=np.float32)
    for batch in read_ahead(clips) if workers else clips:
        views = predictor.score_views(batch.views).numpy()
        # [G * R, K] -> [G, K]
        found = views.reshape(-1, options.num_crops, views.shape[1]).mean(axis=1)
        scores[batch.first : batch.first + len(found)] = found
        done += len(found)
        if progress is not None:
            progress(done, total)
    return VideoScores(scores.mean(axis=0), scores, clips.clip_start_s, clips.clip_end_s, predictor.class_names)
