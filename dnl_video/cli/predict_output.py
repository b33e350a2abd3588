"""What `predict` shows and writes at its end: tables on the screen, segments, timelines, an annotated copy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from dnl_video.cli.screen import plain_table
from dnl_video.results.predictions import read_meta
from dnl_video.results.reader import read_predictions
from dnl_video.results.tables import TopClasses

if TYPE_CHECKING:
    from dnl_video.data.manifest import VideoRecord
    from dnl_video.inference.segments import Segment

_MOST_SEGMENTS = 50
_MOST_CLASSES = 10


def print_table(paths: Sequence[str], top: TopClasses, names: Sequence[str]) -> None:
    """Show the best classes of every video, failed ones with their reason."""
    table = plain_table("video", "class", "score", numbers=["score"])
    last = top.classes.shape[1] - 1
    for row, path in enumerate(paths):
        if row in top.errors:
            table.add_row(Text(path), Text(f"failed: {top.errors[row]}", style="red"), "", end_section=True)
            continue
        for place, (index, score) in enumerate(zip(top.classes[row], top.scores[row], strict=True)):
            name = Text(path) if place == 0 else ""
            table.add_row(name, Text(names[index]), f"{100 * score:.1f}%", end_section=place == last)
    Console().print(table)


def print_summary(top: TopClasses, names: Sequence[str]) -> None:
    """Show how many videos there are of the commonest best classes."""
    num_videos = len(top.classes)
    best = np.bincount(top.classes[top.classes[:, 0] >= 0, 0], minlength=len(names))
    title = f"{num_videos:,} videos, {len(top.errors):,} failed"
    table = plain_table("best class", "videos", numbers=["videos"], title=title)
    for index in np.argsort(-best, kind="stable")[:_MOST_CLASSES]:
        if best[index]:
            table.add_row(Text(names[index]), str(best[index]))
    more = np.count_nonzero(best) - _MOST_CLASSES
    if more > 0:
        table.add_row(Text(f"{more} more", style="dim"), str(np.sort(best)[:-_MOST_CLASSES].sum()))
    Console().print(table)


def print_clips(output: Path, records: Sequence[VideoRecord]) -> None:
    """Show the best class of every clip, along time."""
    predictions = read_predictions(output, order=[record.video_id for record in records])
    if predictions.clip_video is None or predictions.clip_scores is None:
        print("no clip scores were stored; drop --no-clip-scores to see them")
        return
    assert predictions.clip_start_s is not None
    assert predictions.clip_end_s is not None
    names = predictions.meta.class_names
    table = plain_table("video", "from s", "to s", "class", "score", numbers=["from s", "to s", "score"])
    for row, video in enumerate(predictions.clip_video):
        best = int(predictions.clip_scores[row].argmax())
        first = row == 0 or predictions.clip_video[row - 1] != video
        table.add_row(
            Text(predictions.path[video]) if first else "",
            f"{predictions.clip_start_s[row]:.2f}",
            f"{predictions.clip_end_s[row]:.2f}",
            Text(names[best]),
            f"{100 * predictions.clip_scores[row, best]:.1f}%",
        )
    Console().print(table)


def write_and_print_timelines(output: Path, records: Sequence[VideoRecord], plot_format: str, most_plots: int) -> None:
    """Write segments.csv, segments.json and pictures of the first videos; show the segments of a few."""
    from dnl_video.inference.segments import find_segments, read_timelines, write_segments
    from dnl_video.visualize.timeline_picture import draw_timeline, save_figure

    names = read_meta(output).class_names
    plots = _plot_paths(output / "timelines", records[:most_plots], plot_format)
    titles = {record.video_id: Path(record.path).name for record in records[:most_plots]}
    segments: dict[str, list[Segment]] = {}
    for video_id, timeline in read_timelines(output):
        segments[video_id] = find_segments(timeline)
        if video_id in plots:
            plots[video_id].parent.mkdir(exist_ok=True)
            save_figure(draw_timeline(timeline, names, title=titles[video_id]), plots[video_id])
    table, document = write_segments(output, [(record.video_id, record.path) for record in records], segments)
    _print_segments([(record.path, segments.get(record.video_id, [])) for record in records[:most_plots]], names)
    print(f"wrote {table}\nwrote {document}")
    drawn = [plots[video_id] for video_id in segments if video_id in plots]
    if len(drawn) == 1:
        print(f"wrote {drawn[0]}")
    elif drawn:
        only = f" (of the first {most_plots} videos)" if len(records) > most_plots else ""
        print(f"wrote {len(drawn)} timelines in {output / 'timelines'}{only}")


def annotate(output: Path, record: VideoRecord, target: Path) -> None:
    """Write the copy of a video with its current best classes."""
    from dnl_video.inference.segments import read_timelines
    from dnl_video.visualize.annotate import annotate_video

    _, timeline = next(read_timelines(output))
    names = read_meta(output).class_names
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("annotate", total=None)
        annotate_video(
            record.path,
            target,
            timeline,
            names,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"wrote {target}")


def _plot_paths(folder: Path, records: Sequence[VideoRecord], plot_format: str) -> dict[str, Path]:
    """Return a path per id, named like the file; a second file of one name gets its place in the list."""
    paths: dict[str, Path] = {}
    taken: set[str] = set()
    for place, record in enumerate(records, start=1):
        stem = Path(record.path).stem
        while stem in taken:
            stem = f"{stem}-{place}"
        taken.add(stem)
        paths[record.video_id] = folder / f"{stem}.{plot_format}"
    return paths


def _print_segments(videos: Sequence[tuple[str, list[Segment]]], names: Sequence[str]) -> None:
    table = plain_table("video", "from s", "to s", "class", "mean score", numbers=["from s", "to s", "mean score"])
    rows = [(path, place, one) for path, found in videos for place, one in enumerate(found)]
    for path, place, one in rows[:_MOST_SEGMENTS]:
        times = (f"{one.start_s:.2f}", f"{one.end_s:.2f}")
        name = Text(path) if place == 0 else ""
        table.add_row(name, *times, Text(names[one.class_index]), f"{100 * one.score:.1f}%")
    if len(rows) > _MOST_SEGMENTS:
        table.add_row(Text(f"{len(rows) - _MOST_SEGMENTS} more in segments.csv", style="dim"))
    Console().print(table)
