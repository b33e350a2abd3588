"""Output of `predict`: tables on the terminal, segments, timelines, an annotated copy of the video."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dnl_video.cli.screen import plain, plain_table, show
from dnl_video.cli.terminal import log, say
from dnl_video.data.manifest import VideoRecord
from dnl_video.files import dump_json
from dnl_video.inference.scores import VideoScores
from dnl_video.inference.segments import Segment, find_segments, make_timeline, read_clips, write_segments
from dnl_video.progress_bar import progress_bar
from dnl_video.results.tables import iter_in_order


class Video(NamedTuple):
    """A video to print: its scores, or why it failed; and its clips or segments."""

    path: str
    scores: VideoScores | None
    error: str | None
    parts: list[Segment]

    def rows(self, k: int) -> Iterator[tuple[str, float, tuple[float, ...]]]:
        """Yield class, score and no seconds for the k best classes; then class, score, start and end of the parts."""
        if self.scores is not None:
            yield from ((name, score, ()) for name, score in self.scores.top(k))
            for one in self.parts:
                yield self.scores.class_names[one.class_index], one.score, (one.start_s, one.end_s)


def read_videos(
    output: Path, video_ids: Sequence[str], names: Sequence[str], shown: str, *, clip_scores: bool
) -> Iterator[Video]:
    """Yield the videos in the order of the list; their parts are "clips", "segments" or none, as ``shown`` says."""
    for video in iter_in_order(output, video_ids, clip_scores=clip_scores):
        clips: Any = video.clip_start_s, video.clip_end_s, video.clip_scores
        scores, parts = None, []
        if video.scores is not None:
            scores = VideoScores(video.scores, clips[2], clips[0], clips[1], tuple(names))
            if shown == "clips":
                parts = [Segment(a, b, int(s.argmax()), float(s.max())) for a, b, s in zip(*clips, strict=True)]
            elif shown:
                parts = find_segments(make_timeline(*clips))
        yield Video(video.path, scores, video.error, parts)


def print_json(videos: Iterable[Video], shown: str) -> None:
    """Print an object a line for each video: path, and `VideoScores.to_dict` with its ``shown`` parts, or the error."""
    for video in videos:
        found: dict[str, Any] = {"error": video.error} if video.scores is None else video.scores.to_dict()
        if video.parts:
            rows = video.rows(0)
            found[shown] = [{"start_s": a, "end_s": b, "class": name, "score": score} for name, score, (a, b) in rows]
        say(dump_json({"path": video.path, **found}))


def print_lines(videos: Iterable[Video]) -> None:
    """Print path, class and score of every video, separated by tabs; lines of clips or segments add start and end."""
    for video in videos:
        for name, score, seconds in video.rows(1):
            fields = (video.path, name, f"{score:.4f}", *(f"{second:.3f}" for second in seconds))
            say("\t".join(field.replace("\t", "\\t").replace("\n", "\\n") for field in fields))


def print_table(videos: Iterable[Video], k: int, *, with_times: bool) -> None:
    """Print the k best classes of every video, or the reason why it failed; then its clips or segments."""
    times = ("from s", "to s") if with_times else ()
    table = plain_table("video", *times, "class", "score", numbers=["from s", "to s", "score"])
    for video in videos:
        path = plain(video.path)
        if video.error is not None:
            table.add_row(path, *("" for _ in times), plain(f"failed: {video.error}", "red"))
        for name, score, seconds in video.rows(k):
            shown = [f"{second:.2f}" for second in seconds] or ["" for _ in times]
            table.add_row(path, *shown, plain(name), f"{100 * score:.1f}%")
            path = plain("")
        table.add_section()
    show(table)


def write_segments_and_timelines(
    output: Path, records: Sequence[VideoRecord], names: Sequence[str], plot_format: str, most_plots: int
) -> None:
    """Write segments.csv, segments.json and timelines of the first videos."""
    from dnl_video.visualize.panels import save_figure
    from dnl_video.visualize.timelines import draw_timeline

    stems: dict[str, str] = {}  # by video id; if two files have the same name, the second gets its number
    for place, record in enumerate(records[:most_plots], start=1):
        stem = Path(record.path).stem
        stems[record.video_id] = stem if stem not in stems.values() else f"{stem}-{place}"
    segments: dict[str, list[Segment]] = {}
    drawn: list[Any] = []
    for video_id, *columns in read_clips(output):
        timeline = make_timeline(*columns)
        segments[video_id] = find_segments(timeline)
        if stem := stems.get(video_id, ""):
            drawn.append(output / "timelines" / f"{stem}.{plot_format}")
            drawn[-1].parent.mkdir(exist_ok=True)
            save_figure(draw_timeline(timeline, names, title=stem), drawn[-1])
    files = write_segments(output, [(record.video_id, record.path) for record in records], segments)
    drawn = drawn if len(drawn) < 2 else [f"{len(drawn)} timelines in {output / 'timelines'}"]
    for one in (*files, *drawn):
        log.info(f"wrote {one}")


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
    log.info(f"wrote {target}")
