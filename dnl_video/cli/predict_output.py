"""Output of `predict`: tables on the terminal, segments, timelines, an annotated copy of the video."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from dnl_video.cli.screen import plain, plain_table, show
from dnl_video.cli.terminal import say, say_json
from dnl_video.data.manifest import VideoRecord
from dnl_video.inference.segments import Segment, find_segments, make_timeline, read_clips, write_segments
from dnl_video.progress_bar import progress_bar
from dnl_video.results.tables import TopClasses

_MOST_PARTS = 50  # clips or segments in the table
_MOST_CLASSES = 10


def print_lines(
    records: Sequence[VideoRecord], top: TopClasses, names: Sequence[str], parts: Mapping[str, Sequence[Segment]]
) -> None:
    """Print path, class and score of every video, separated by tabs; lines of clips or segments add start and end."""
    for row, record in enumerate(records):
        if row not in top.errors:
            say(_line(record, names[top.classes[row, 0]], top.scores[row, 0]))
        for part in parts.get(record.video_id, ()):
            say(_line(record, names[part.class_index], part.score, part.start_s, part.end_s))


def _line(record: VideoRecord, name: str, score: float, *seconds: float) -> str:
    fields = (record.path, name, f"{score:.4f}", *(f"{second:.3f}" for second in seconds))
    return "\t".join(field.replace("\t", "\\t").replace("\n", "\\n") for field in fields)


def print_table(
    records: Sequence[VideoRecord], top: TopClasses, names: Sequence[str], parts: Mapping[str, Sequence[Segment]]
) -> None:
    """Print the best classes of every video, or the reason why it failed; then its clips or segments."""
    table = plain_table("video", "class", "score", numbers=["score"])
    last = top.classes.shape[1] - 1
    for row, record in enumerate(records):
        if row in top.errors:
            table.add_row(plain(record.path), plain(f"failed: {top.errors[row]}", "red"), "", end_section=True)
            continue
        for place, (index, score) in enumerate(zip(top.classes[row], top.scores[row], strict=True)):
            name = plain(record.path) if place == 0 else ""
            table.add_row(name, plain(names[index]), f"{100 * score:.1f}%", end_section=place == last)
    show(table)
    if parts:
        show(_table_of_parts(records, names, parts))


def _table_of_parts(
    records: Sequence[VideoRecord], names: Sequence[str], parts: Mapping[str, Sequence[Segment]]
) -> Table:
    table = plain_table("video", "from s", "to s", "class", "score", numbers=["from s", "to s", "score"])
    rows = [(r.path, place, part) for r in records for place, part in enumerate(parts.get(r.video_id, ()))]
    for path, place, one in rows[:_MOST_PARTS]:
        times = (f"{one.start_s:.2f}", f"{one.end_s:.2f}")
        name = plain(path) if place == 0 else ""
        table.add_row(name, *times, plain(names[one.class_index]), f"{100 * one.score:.1f}%")
    if len(rows) > _MOST_PARTS:
        table.add_row(plain(f"{len(rows) - _MOST_PARTS} more", "dim"))
    return table


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


def print_json(
    records: Sequence[VideoRecord],
    top: TopClasses,
    names: Sequence[str],
    parts: Mapping[str, Sequence[Segment]],
    key: str,
) -> None:
    """Print one JSON object per video; ``key`` names the list of its parts, clips or segments."""
    for row, record in enumerate(records):
        if row in top.errors:
            say_json({"path": record.path, "error": top.errors[row]})
            continue
        pairs = zip(top.classes[row].tolist(), top.scores[row].tolist(), strict=True)
        found = {"path": record.path, "classes": [{"class": names[index], "score": score} for index, score in pairs]}
        if record.video_id in parts:
            found[key] = [
                {"start_s": p.start_s, "end_s": p.end_s, "class": names[p.class_index], "score": p.score}
                for p in parts[record.video_id]
            ]
        say_json(found)


def best_of_clips(output: Path) -> dict[str, list[Segment]]:
    """Return the best class of every clip, by video id."""
    clips: dict[str, list[Segment]] = {}
    for video_id, *columns in read_clips(output):
        rows = zip(*columns, strict=True)
        clips[video_id] = [Segment(start, end, int(s.argmax()), float(s.max())) for start, end, s in rows]
    return clips


def write_segments_and_timelines(
    output: Path, records: Sequence[VideoRecord], names: Sequence[str], plot_format: str, most_plots: int
) -> tuple[dict[str, list[Segment]], list[object]]:
    """Write segments.csv, segments.json and timelines of the first videos; return the segments and what was written."""
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
    files = write_segments(output, [(record.video_id, record.path) for record in records], segments)
    several = [f"{len(drawn)} timelines in {output / 'timelines'}"]
    return segments, [*files, *(drawn if len(drawn) <= 1 else several)]


def annotate(output: Path, record: VideoRecord, names: Sequence[str], target: Path) -> Path:
    """Write a copy of the video that shows its best classes."""
    from dnl_video.visualize.timelines import annotate_video

    _, *columns = next(read_clips(output))
    timeline = make_timeline(*columns)
    with progress_bar(disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("annotate", total=None)
        annotate_video(
            record.path, target, timeline, names, progress=lambda done, n: bar.update(task, completed=done, total=n)
        )
    return target


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
