"""The predictions directory: what `predict` and `evaluate` write, and everything else reads.

One directory holds one table of videos, appended to by any number of processes, now or after a restart::

    .lock                      held while meta.json or the merged files are written
    meta.json                  the run: model, weights, protocol, classes, list of videos
    scores-<rank>-<seq>.npz    scores [n, K]; clip_video [m], clip_start_s [m], clip_end_s [m], clip_scores [m, K]
    videos-<rank>-<seq>.jsonl  a line per video: id, path, label, num_views, row of `scores`, and top5 or error

A shard is finished when its jsonl exists: the npz is written first, and each file appears whole (temporary file, then
rename). So a killed process loses at most the videos since its last flush, and a reader never meets half a shard.
"""

from __future__ import annotations

from dnl_video.results.reader import finished_ids, iter_predictions, read_predictions
from dnl_video.results.records import SCHEMA_VERSION, Predictions, PredictionsMeta, VideoPrediction, read_meta
from dnl_video.results.writer import PredictionsWriter

__all__ = [
    "SCHEMA_VERSION",
    "Predictions",
    "PredictionsMeta",
    "PredictionsWriter",
    "VideoPrediction",
    "finished_ids",
    "iter_predictions",
    "read_meta",
    "read_predictions",
]
