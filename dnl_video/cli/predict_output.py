"""Output of `predict`: tables on the terminal, segments, timelines, an annotated copy of the video."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dnl_video.cli.screen import plain, plain_table, show
from dnl_video.cli.terminal import say
from dnl_video.data.manifest import VideoRecord
from dnl_video.inference.segments import Segment, find_segments, make_timeline, read_clips, write_segments
from dnl_video.progress_bar import progress_bar
from dnl_video.results.tables import TopClasses

_MOST_SEGMENTS = 50
_MOST_CLASSES = 10


def print_table(paths: Sequence[str], top: TopClasses, names: Sequence[str]) -> None:
    """Print the best classes of every video, or the reason why it failed."""
    table = plain_table("video", "class", "score", numbers=["score"])
    last = top.classes.shape[1] - 1
    for row, path in enumerate(paths):
        if row in top.errors:
            table.add_row(plain(path), plain(f"failed: {top.errors[row]}", "red"), "", end_section=True)
            continue
        for place, (index, score) in enumerate(zip(top.classes[row], top.scores[row], strict=True)):
            name = plain(path) if place == 0 else ""
            table.add_row(name, plain(names[index]), f"{100 * score:.1f}%", end_section=place == last)
    show(table)


def print_summary(top: TopClasses, names: Sequence[str]) -> None:
    """Print the most frequent best classes with their number of videos."""
    best = np.bincount(top.classes[top.classes[:, 0] >= 0, 0], minlength=len(names))
    title = f"{len(top.classes):,} videos, {len(top.errors):,} failed"
    table = plain_table("best class", "videos", numbers=["videos"], title=title)
    for index in np.argsort(-best, kind="stable")[:_MOST_CLASSES]:
        if best[index]:
            table.add_row(plain(names[index]), str(best[index]))
    more = np.count_nonzero(best) - _MOST_CLASSES
    if more > 0:
        table.add_row(plain(f"{more} more", "dim"), str(np.sort(best)[:-_MOST_CLASSES].sum()))
    show(table)


def print_clips(output: Path, records: Sequence[VideoRecord], names: Sequence[str]) -> None:
    """Print the best class of every clip."""
    clips: dict[str, list[Segment]] = {}
    for video_id, *columns in read_clips(output):
        rows = zip(*columns, strict=True)
        clips[video_id] = [Segment(start, end, int(s.argmax()), float(s.max())) for start, end, s in rows]
    if clips:
        _print_segments([(record.path, clips.get(record.video_id, [])) for record in records], names, "score")
    else:
        say("no clip scores were stored; drop --no-clip-scores to see them")


def write_and_print_timelines(
    output: Path, records: Sequence[VideoRecord], names: Sequence[str], plot_format: str, most_plots: int
) -> None:
    """Write segments.csv, segments.json and timelines of the first videos; print the segments of a few."""
    from dnl_video.visualize.panels import save_figure
    from dnl_video.visualize.timelines import draw_timeline

    plots = _plot_paths(output / "timelines", records[:most_plots], plot_format)
    segments: dict[str, list[Segment]] = {}
    drawn = []
    for video_id, *columns in read_clips(output):
        timeline = make_timeline(*columns)
        segments[video_id] = find_segments(timeline)
        if video_id in plots:
            title, plot = plots[video_id]
            plot.parent.mkdir(exist_ok=True)
            save_figure(draw_timeline(timeline, names, title=title), plot)
            drawn.append(plot)
    table, document = write_segments(output, [(record.video_id, record.path) for record in records], segments)
    shown = [(record.path, segments.get(record.video_id, [])) for record in records[:most_plots]]
    _print_segments(shown, names, "mean score", _MOST_SEGMENTS)
    say(f"wrote {table}", f"wrote {document}")
    if len(drawn) == 1:
        say(f"wrote {drawn[0]}")
    elif drawn:
        only = f" (of the first {most_plots} videos)" if len(records) > most_plots else ""
        say(f"wrote {len(drawn)} timelines in {output / 'timelines'}{only}")


def annotate(output: Path, record: VideoRecord, names: Sequence[str], target: Path) -> None:
    """Write a copy of the video that shows its best classes."""
    from dnl_video.visualize.timelines import annotate_video

    _, *columns = next(read_clips(output))
    timeline = make_timeline(*columns)
    with progress_bar(disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("annotate", total=None)
        annotate_video(
            record.path, target, timeline, names, progress=lambda done, n: bar.update(task, completed=done, total=n)
        )
    say(f"wrote {target}")


def _plot_paths(folder: Path, records: Sequence[VideoRecord], plot_format: str) -> dict[str, tuple[str, Path]]:
    """Return the title and path of the plot per id; if two files have the same name, the second gets its number."""
    plots: dict[str, tuple[str, Path]] = {}
    taken: set[str] = set()
    for place, record in enumerate(records, start=1):
        stem = Path(record.path).stem
        while stem in taken:
            stem = f"{stem}-{place}"
        taken.add(stem)
        plots[record.video_id] = Path(record.path).name, folder / f"{stem}.{plot_format}"
    return plots


def _print_segments(
    videos: Sequence[tuple[str, Sequence[Segment]]], names: Sequence[str], score: str, most: int | None = None
) -> None:
    table = plain_table("video", "from s", "to s", "class", score, numbers=["from s", "to s", score])
    rows = [(path, place, one) for path, found in videos for place, one in enumerate(found)]
    for path, place, one in rows[:most]:
        times = (f"{one.start_s:.2f}", f"{one.end_s:.2f}")
        name = plain(path) if place == 0 else ""
        table.add_row(name, *times, plain(names[one.class_index]), f"{100 * one.score:.1f}%")
    if most is not None and len(rows) > most:
        table.add_row(plain(f"{len(rows) - most} more in segments.csv", "dim"))
    show(table)
