"""What happens when, of every video of a predictions directory: timelines, and segments.csv and segments.json."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dnl_video.files import dump_json, write_atomic
from dnl_video.inference.clip_votes import Segment, Timeline, make_timeline
from dnl_video.results.predictions import iter_predictions, read_meta
from dnl_video.results.tables import write_csv

SCHEMA_VERSION = 1


def read_timelines(directory: str | os.PathLike[str]) -> Iterator[tuple[str, Timeline]]:
    """Yield (video id, timeline) of each video with clip scores, one shard in memory at a time, in no fixed order.

    Raises:
        InputError: A file of the directory is damaged.
    """
    for prediction in iter_predictions(directory, clip_scores=True):
        if prediction.clip_scores is not None:
            assert prediction.clip_start_s is not None
            assert prediction.clip_end_s is not None
            yield (
                prediction.video_id,
                make_timeline(prediction.clip_start_s, prediction.clip_end_s, prediction.clip_scores),
            )


def write_segments(
    directory: Path, videos: Sequence[tuple[str, str]], segments: Mapping[str, Sequence[Segment]]
) -> tuple[Path, Path]:
    """Write ``segments.csv`` (``video,start_s,end_s,class,score``) and ``segments.json`` into a predictions directory.

    Args:
        directory: The predictions directory.
        videos: (id, path) of the videos, in the order wanted.
        segments: Segments by id; a failed video has none.

    Returns:
        The two paths.

    Raises:
        InputError: A file cannot be written.
    """
    meta = read_meta(directory)
    names = meta.class_names

    def lines() -> Iterator[list[str]]:
        yield ["video", "start_s", "end_s", "class", "score"]
        for video_id, path in videos:
            for one in segments.get(video_id, ()):
                yield [path, f"{one.start_s:.3f}", f"{one.end_s:.3f}", names[one.class_index], f"{one.score:.6f}"]

    def as_json(video_id: str, path: str) -> dict[str, Any]:
        found = [
            {
                "start_s": round(one.start_s, 3),
                "end_s": round(one.end_s, 3),
                "class": names[one.class_index],
                "score": round(one.score, 6),
            }
            for one in segments.get(video_id, ())
        ]
        return {"id": video_id, "path": path, "segments": found}

    content = {
        "schema_version": SCHEMA_VERSION,
        "weights_sha256": meta.weights_sha256,
        "hop_s": meta.hop_s,
        "videos": [as_json(video_id, path) for video_id, path in videos],
    }
    table, document = directory / "segments.csv", directory / "segments.json"
    write_csv(table, lines())
    write_atomic(document, dump_json(content, indent=1) + "\n")
    return table, document
