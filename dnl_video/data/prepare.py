"""A listing and a folder in, a manifest of the videos that can be read out: what `dnl-video prepare` does.

OUT.csv             the usable videos: path,label,video_id,num_frames,fps,width,height,codec,duration_s,decoder,status
OUT.broken.csv      the others: path,label,video_id,status,reason (missing, broken, duplicate)
OUT.summary.json    the counts (see prepare_summary.py)
OUT.journal.jsonl   what was found out about each file; a second run looks only at files that are new or changed
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dnl_video.cores import default_workers
from dnl_video.data.file_check import GOP, CheckJob, TranscodeJob, check_file, transcode_file
from dnl_video.data.isolation import run_isolated
from dnl_video.data.listings import VIDEO_EXTENSIONS, Row, read_class_folders, read_lines, read_rows
from dnl_video.data.manifest import assign_labels, read_class_list
from dnl_video.data.prepare_cache import Journal
from dnl_video.data.prepare_options import PrepareOptions
from dnl_video.data.prepare_summary import summarise
from dnl_video.errors import InputError

FACTS = ("num_frames", "fps", "width", "height", "codec", "duration_s", "decoder")
COLUMNS = ("path", "label", "video_id", *FACTS, "status")
BROKEN_COLUMNS = ("path", "label", "video_id", "status", "reason")
# Raise it when the check finds out something else: journals of earlier versions then count no more.
_CHECK_VERSION = 1

Progress = Callable[[str, int, int, int], None]
"""Called with what is being done, files done, of how many, and how many of them are broken."""


@dataclass
class ListedVideo:
    """A row of the listing, and what became of it.

    Args:
        row: The row.
        label: Its label as the manifest writes it; empty where the listing has none.
        path: The file to train on: the row's, or its transcoded copy.
        status: ok, missing, broken or duplicate; empty while unknown.
        reason: Why it is not ok.
        facts: What the check found out.
        state: Size and time of change of the row's file, by which the journal knows it.
        is_folder: Whether it is a folder of frames.
        content: Bytes and hash of the head of the row's file; None of a folder.
    """

    row: Row
    label: str
    path: str
    status: str = ""
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    state: tuple[int, int] = (0, 0)
    is_folder: bool = False
    content: tuple[int, str] | None = None


@dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote.

    Args:
        manifest: The manifest.
        broken: The list of the videos that are not in it.
        summary_file: The counts, as JSON.
        summary: The counts.
        checked: Files this run looked at; the others were known.
        transcoded: Files this run transcoded.
    """

    manifest: Path
    broken: Path
    summary_file: Path
    summary: dict[str, Any]
    checked: int
    transcoded: int


def prepare(options: PrepareOptions, progress: Progress | None = None) -> Prepared:
    """Find, check and where asked transcode the listed videos; write the manifest and what belongs to it.

    Raises:
        InputError: The listing, the folder or a label cannot be used, no listed video is there, or none can be read.
    """
    report = progress or (lambda *_: None)
    report("reading the list", 0, 0, 0)
    videos = _list_videos(options)
    out = Path(options.output).expanduser()
    todo = [video for video in videos if not video.status]
    if not todo:
        raise InputError(
            f"none of the {len(videos)} listed videos is in {options.videos}, for example {videos[0].path}; "
            "give the folder that holds them as --videos"
        )
    try:
        with Journal(out.with_suffix(".journal.jsonl")) as journal:
            checked = _check(todo, options, journal, report)
            good = [video for video in todo if not video.status]
            transcoded = 0 if options.resize is None else _transcode(good, options, journal, report)
        for video in good:
            video.status = video.status or "ok"
        summary = summarise(videos, options.annotations or options.videos)
        root = Path(options.resized_dir or options.videos).expanduser() if options.relative else None
        kept = [v for v in videos if v.status == "ok" or (options.keep_failed and v.status != "duplicate")]
        lost = [video for video in videos if video.status != "ok"]
        _write_csv(out.with_suffix(".broken.csv"), BROKEN_COLUMNS, [_broken_line(video) for video in lost])
        _write(out.with_suffix(".summary.json"), json.dumps(summary, indent=1) + "\n")
        if not summary["usable"]:
            raise InputError(
                f"none of the {len(todo)} videos found can be read, for example {lost[0].path}: {lost[0].reason}; "
                f"see {out.with_suffix('.broken.csv')}"
            )
        _write_csv(out, COLUMNS, [_line(video, root) for video in kept])
    except OSError as error:
        raise InputError(
            f"--output {options.output} cannot be written ({error.strerror or error}); choose another"
        ) from error
    written = (out, out.with_suffix(".broken.csv"), out.with_suffix(".summary.json"))
    return Prepared(*written, summary=summary, checked=checked, transcoded=transcoded)


def _list_videos(options: PrepareOptions) -> list[ListedVideo]:
    """Read the listing; every row comes back, with the status `duplicate` or `missing` where that is known."""
    folder = Path(options.videos).expanduser()
    if not folder.is_dir():
        raise InputError(f"--videos {options.videos} is no folder; give the folder that holds the videos")
    if options.annotations is None:
        rows, _ = read_class_folders(folder)
    else:
        listing = Path(options.annotations).expanduser()
        if not listing.exists():
            raise InputError(f"--annotations {options.annotations} does not exist; give a Kinetics CSV or a list")
        if listing.is_dir():
            raise InputError(f"--annotations {options.annotations} is a folder; give class folders as --videos alone")
        lines, _ = read_lines(listing)
        rows = read_rows(listing, lines, folder, labelled=False)
    videos = _apart_from_duplicates(rows)
    unique = [video for video in videos if not video.status]
    if any(video.row.label for video in unique):
        names = None if options.classes is None else read_class_list(options.classes)
        records, _ = assign_labels([v.row for v in unique], names, folders=options.annotations is None)
        for video, record in zip(unique, records, strict=True):
            video.label = record.class_name or str(record.label)
    for video in unique:
        _find(video)
    return videos


def _find(video: ListedVideo) -> None:
    try:
        video.path.encode()
        status = Path(video.path).stat()  # the only one of this file: network file systems are slow at it
    except (FileNotFoundError, NotADirectoryError):
        video.status, video.reason = "missing", "file not found"
    except OSError as error:
        video.status, video.reason = "broken", error.strerror or str(error)
    except UnicodeEncodeError:
        video.status, video.reason = "broken", "the name is not UTF-8, which a list cannot hold; rename the file"
    else:
        video.state, video.is_folder = (status.st_size, status.st_mtime_ns), stat.S_ISDIR(status.st_mode)


def _apart_from_duplicates(rows: Iterable[Row]) -> list[ListedVideo]:
    first: dict[tuple[str, str], Row] = {}
    videos = []
    for row in rows:
        path = str(Path(row.path).absolute())
        video = ListedVideo(row, row.label, path)
        for key in (("id", row.video_id), ("path", os.path.normpath(path))):
            earlier = first.setdefault(key, row)
            if earlier is not row and not video.status:
                other = "" if earlier.label == row.label else f" as {earlier.label!r}"
                video.status, video.reason = "duplicate", f"{row.place}: already listed in {earlier.place}{other}"
        videos.append(video)
    return videos


def _check(videos: Sequence[ListedVideo], options: PrepareOptions, journal: Journal, report: Progress) -> int:
    """Look at every file that the journal does not know; return how many those were."""
    jobs = [CheckJob(v.path, v.row.fps or options.frames_fps, options.sample_frames) for v in videos]
    keys = [f"check {job.path}" for job in jobs]
    stamps = [_stamp(video, options, job.sample) for video, job in zip(videos, jobs, strict=True)]
    done = _work(videos, jobs, keys, stamps, check_file, "checking", options, journal, report)
    for video in videos:
        if "head" in video.facts:
            video.content = video.facts["bytes"], video.facts["head"]
    return done


def _transcode(videos: Sequence[ListedVideo], options: PrepareOptions, journal: Journal, report: Progress) -> int:
    """Transcode every file that was not yet, or whose copy is gone; return how many those were."""
    assert options.resize is not None
    assert options.resized_dir is not None
    if options.keep_small:
        videos = [v for v in videos if min(v.facts["width"], v.facts["height"]) > options.resize or v.is_folder]
    targets = _targets(videos, Path(options.videos).expanduser(), Path(options.resized_dir).expanduser())
    jobs, keys, stamps = [], [], []
    for video, target in zip(videos, targets, strict=True):
        source = CheckJob(video.path, video.row.fps or options.frames_fps, options.sample_frames)
        jobs.append(TranscodeJob(source, target, options.resize, options.crf))
        keys.append(f"resize {target}")
        stamps.append(_stamp(video, options, options.resize, options.crf, GOP))
        known = journal.get(keys[-1], stamps[-1])
        if known is not None and known.get("bytes") != _size(target) and "error" not in known:
            journal.forget(keys[-1])  # someone removed or changed the copy
    done = _work(videos, jobs, keys, stamps, transcode_file, "resizing", options, journal, report)
    for video, target in zip(videos, targets, strict=True):
        if video.status == "broken":
            Path(target + ".part").unlink(missing_ok=True)  # of a process that was killed
        else:
            video.path = target
    return done


def _work(
    videos: Sequence[ListedVideo],
    jobs: Sequence[Any],
    keys: Sequence[str],
    stamps: Sequence[Any],
    function: Callable[[Any], dict[str, Any]],
    verb: str,
    options: PrepareOptions,
    journal: Journal,
    report: Progress,
) -> int:
    known = [journal.get(key, stamp) for key, stamp in zip(keys, stamps, strict=True)]
    todo = [i for i, facts in enumerate(known) if facts is None or (options.retry_broken and "error" in facts)]
    done, broken = len(videos) - len(todo), sum("error" in known[i] for i in set(range(len(known))) - set(todo))
    report(verb, done, len(videos), broken)
    outcomes = run_isolated(
        function, [jobs[i] for i in todo], workers=default_workers(options.num_workers), deadline_s=options.timeout_s
    )
    for outcome in outcomes:
        place = todo[outcome.index]
        known[place] = outcome.value if outcome.error is None else {"error": outcome.error}
        journal.add(keys[place], stamps[place], known[place])
        done, broken = done + 1, broken + ("error" in known[place])
        report(verb, done, len(videos), broken)
    for video, facts in zip(videos, known, strict=True):
        video.facts = facts
        if "error" in facts:
            video.status, video.reason = "broken", facts["error"]
    return len(todo)


def _targets(videos: Sequence[ListedVideo], root: Path, folder: Path) -> list[str]:
    """Return where each copy goes: the file's place below the videos' folder, as .mp4."""
    taken: set[str] = set()
    targets = []
    for video in videos:
        path = Path(video.path)
        try:
            relative = path.relative_to(root.absolute())
        except ValueError:
            relative = path.relative_to(path.anchor)
        is_file = relative.suffix.lower() in VIDEO_EXTENSIONS
        target = relative.with_suffix(".mp4") if is_file else relative.with_name(relative.name + ".mp4")
        if str(target) in taken:
            target = relative.with_name(relative.name + ".mp4")
        taken.add(str(target))
        targets.append(str(folder.absolute() / target))
    return targets


def _stamp(video: ListedVideo, options: PrepareOptions, *settings: int) -> list[Any]:
    """Return what must be as it was for the journal's word to count."""
    fps = (video.row.fps or options.frames_fps) if video.is_folder else None
    return [_CHECK_VERSION, *video.state, fps, *settings]


def _size(path: str) -> int | None:
    return Path(path).stat().st_size if Path(path).is_file() else None


def _line(video: ListedVideo, root: Path | None) -> list[Any]:
    path = video.path if root is None else os.path.relpath(video.path, root)
    return [path, video.label, video.row.video_id, *(video.facts.get(name, "") for name in FACTS), video.status]


def _broken_line(video: ListedVideo) -> list[Any]:
    return [video.path, video.label, video.row.video_id, video.status, video.reason]


def _write_csv(path: Path, header: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    _write(path, text.getvalue())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", errors="backslashreplace")
    part.replace(path)
