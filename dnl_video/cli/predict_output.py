"""Output of `predict`: tables on the terminal, segments, timelines, an annotated copy of the video."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dnl_video.cli.screen import plain, plain_table, show
from dnl_video.cli.terminal import say
from dnl_video.data.manifest import VideoRecord
from dnl_video.inference.segments import Segment, find_segments, make_timeline, read_clips, write_segments
from dnl_video.progress_bar import progress_bar
from dnl_video.results.tables import TopClasses


def describe(
    records: Sequence[VideoRecord],
    top: TopClasses,
    names: Sequence[str],
    parts: Mapping[str, Sequence[Segment]],
    key: str,
) -> Iterator[dict[str, Any]]:
    """Yield each video as in --json: path, and its best classes or its error; ``key`` names its clips or segments."""
    for row, record in enumerate(records):
        if row in top.errors:
            yield {"path": record.path, "error": top.errors[row]}
            continue
        best = zip(top.classes[row].tolist(), top.scores[row].tolist(), strict=True)
        found = {"path": record.path, "classes": [{"class": names[index], "score": score} for index, score in best]}
        if record.video_id in parts:
            found[key] = [
                {"start_s": float(p.start_s), "end_s": float(p.end_s), "class": names[p.class_index], "score": p.score}
                for p in parts[record.video_id]
            ]
        yield found


def print_lines(videos: Iterable[dict[str, Any]]) -> None:
    """Print path, class and score of every video, separated by tabs; lines of clips or segments add start and end."""
    for video in videos:
        for one in (*video.get("classes", ())[:1], *video.get("clips", ()), *video.get("segments", ())):
            seconds = (f"{one[name]:.3f}" for name in ("start_s", "end_s") if name in one)
            fields = (video["path"], one["class"], f"{one['score']:.4f}", *seconds)
            say("\t".join(field.replace("\t", "\\t").replace("\n", "\\n") for field in fields))


def print_table(videos: Iterable[dict[str, Any]], *, with_times: bool) -> None:
    """Print the best classes of every video, or the reason why it failed; then its clips or segments."""
    times = {"start_s": "from s", "end_s": "to s"} if with_times else {}
    table = plain_table("video", *times.values(), "class", "score", numbers=["from s", "to s", "score"])
    for video in videos:
        table.add_section()
        path = plain(video["path"])
        for one in (*video.get("classes", ()), *video.get("clips", ()), *video.get("segments", ())):
            seconds = (f"{one[name]:.2f}" if name in one else "" for name in times)
            table.add_row(path, *seconds, plain(one["class"]), f"{100 * one['score']:.1f}%")
            path = plain("")
        if "error" in video:
            table.add_row(path, *("" for _ in times), plain(f"failed: {video['error']}", "red"))
    show(table)


def best_of_clips(output: Path) -> dict[str, list[Segment]]:
    """Return the best class of every clip, by video id."""
    return {
        video_id: [Segment(start, end, int(s.argmax()), float(s.max())) for start, end, s in zip(*columns, strict=True)]
        for video_id, *columns in read_clips(output)
    }


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
            drawn.append(plots[video_id])
            drawn[-1].parent.mkdir(exist_ok=True)
            save_figure(draw_timeline(timeline, names, title=drawn[-1].stem), drawn[-1])
    files = write_segments(output, [(record.video_id, record.path) for record in records], segments)
    return segments, [*files, *(drawn if len(drawn) < 2 else [f"{len(drawn)} timelines in {output / 'timelines'}"])]


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


def _plot_paths(folder: Path, records: Sequence[VideoRecord], plot_format: str) -> dict[str, Path]:
    """Return the path of the plot per id; if two files have the same name, the second gets its number."""
    stems: dict[str, str] = {}  # with the id
    for place, record in enumerate(records, start=1):
        stem = Path(record.path).stem
        while stem in stems:
            stem = f"{stem}-{place}"
        stems[stem] = record.video_id
    return {video_id: folder / f"{stem}.{plot_format}" for stem, video_id in stems.items()}
