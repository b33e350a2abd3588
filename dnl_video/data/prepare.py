"""Makes a manifest of the readable videos of a list; `dnl-video prepare --help` describes the files."""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnl_video.cores import default_workers
from dnl_video.data.file_check import GOP, check_file, hash_file, transcode_file
from dnl_video.data.folders import VIDEO_EXTENSIONS
from dnl_video.data.isolation import run_isolated
from dnl_video.data.prepare_list import CheckedVideo, PrepareOptions, choose_segments, list_videos
from dnl_video.data.prepare_split import divide, name_groups
from dnl_video.data.prepare_summary import summarise
from dnl_video.errors import InputError
from dnl_video.files import append_json_lines, check_output, read_json_lines, remove_partial, write_atomic, write_csv

FACTS = ("num_frames", "fps", "width", "height", "codec", "duration_s", "decoder", "variable_rate")
COLUMNS = ("path", "label", "video_id", *FACTS, "status")
BROKEN_COLUMNS = ("path", "label", "video_id", "status", "reason")
# Increase it when `check_file` returns other facts: this makes the cached checks of earlier versions invalid.
_CHECK_VERSION = 2

Progress = Callable[[str, int, int, int], None]
"""Called with the name of the step, files done, files in total, and broken files."""


@dataclass(frozen=True)
class Prepared:
    """Result of `prepare`.

    Args:
        manifest: The manifest; with `val_share`, that of the training videos.
        broken: The list of the videos that are not in it.
        summary_file: The counts, as JSON.
        summary: The counts.
        checked: Number of files checked by this run; the others were cached.
        transcoded: Number of files transcoded by this run.
        val_manifest: With `val_share`, the manifest of the validation videos.
    """

    manifest: Path
    broken: Path
    summary_file: Path
    summary: dict[str, Any]
    checked: int
    transcoded: int
    val_manifest: Path | None = None


def prepare(options: PrepareOptions, progress: Progress | None = None) -> Prepared:
    """Find, check and (with `resize` or `cut`) transcode the listed videos; write the manifest and its companion files.

    Raises:
        InputError: The list, the folder or a label cannot be used, no listed video exists, none can be read, or the
            output cannot be written.
    """
    report = progress or (lambda *_: None)
    report("reading the list", 0, 0, 0)
    videos, listing, class_names = list_videos(options)
    found = [video for video in videos if not video.status]
    if not found:
        raise InputError(
            f"none of the {len(videos)} listed videos is in {options.videos}, for example {videos[0].path}; "
            "give the folder that holds them as --videos"
        )
    splits, notes = Counter(row.split for row in listing.rows), listing.notes
    if options.val_share is not None:
        if len(splits) > 1 or not found[0].label:
            reason = f"splits ({', '.join(sorted(splits))})" if len(splits) > 1 else "no labels"
            raise InputError(f"{options.annotations} has {reason}; leave out --val-share")
        notes += name_groups(videos, Path(options.videos).expanduser(), options.group_by)
    output = Path(options.output).expanduser()
    check_output(output, is_file=True)
    if options.resized_dir is not None:
        check_output(Path(options.resized_dir).expanduser())
    broken_file, summary_file = output.with_suffix(".broken.csv"), output.with_suffix(".summary.json")
    work = _FileWork(options, output.with_suffix(".journal.jsonl"), report)
    checked = work.check(found)
    good = choose_segments([video for video in found if not video.status], cut=options.cut)
    work.compare(good)
    transcoded = 0 if options.resized_dir is None else work.transcode(good)
    for video in good:
        video.status = video.status or "ok"
    summary = summarise(videos, options.annotations or options.videos, class_names)
    summary |= {"notes": list(notes), "splits": dict(splits) if len(splits) > 1 else {}}
    summary["class_list"] = str(options.classes or listing.class_list or "")
    root = Path(options.resized_dir or options.videos).expanduser() if options.relative else None
    kept = [v for v in videos if v.status == "ok" or (options.keep_failed and v.status != "duplicate")]
    lists = {output: kept}
    if options.val_share is not None and summary["usable"]:
        train, val, summary["division"] = divide(kept, options.val_share, options.seed)
        lists = {output.with_suffix(".train.csv"): train, output.with_suffix(".val.csv"): val}
    lost = [video for video in videos if video.status != "ok"]
    write_csv(broken_file, [BROKEN_COLUMNS, *map(_broken_line, lost)])
    write_atomic(summary_file, json.dumps(summary, indent=1) + "\n")
    if not summary["usable"]:
        raise InputError(
            f"none of the {len(found)} videos found can be read, for example {lost[0].path}: {lost[0].reason}; "
            f"see {broken_file}"
        )
    for path, listed in lists.items():
        lines = [[*COLUMNS], *(_line(video, root) for video in listed)]
        if summary["splits"]:  # each side of a training takes its own rows
            lines = [[*line, row] for line, row in zip(lines, ("split", *(v.row.split for v in listed)), strict=True)]
        write_csv(path, lines)
    manifest, *val_manifest = lists
    return Prepared(manifest, broken_file, summary_file, summary, checked, transcoded, *val_manifest)


@dataclass
class _Task:
    """A file to check or to transcode; `facts` is its result, None before."""

    video: CheckedVideo
    job: tuple[Any, ...]
    key: str
    stamp: list[Any]
    facts: dict[str, Any] | None


class _FileWork:
    """Checks and transcodes files, and caches the results.

    The cache holds JSON lines with key, stamp and value. The last line of a key counts, and only if its stamp is that
    of the file and of the options now.
    """

    def __init__(self, options: PrepareOptions, cache: Path, report: Progress) -> None:
        self.options = options
        self.report = report
        self.cache = cache
        self.cached = {line["key"]: (line["stamp"], line["value"]) for line in read_json_lines(cache)}

    def check(self, videos: Sequence[CheckedVideo]) -> int:
        """Check every file without a valid cached result; return their number."""
        sample = self.options.sample_frames
        tasks = [self._task(video, self._check_job(video), f"check {video.path}", sample) for video in videos]
        done = self._run("checking", check_file, tasks)
        _take_facts(tasks)
        for video in videos:
            if "head" in video.facts:
                video.content = video.facts["bytes"], video.facts["head"]
        return done

    def compare(self, videos: Sequence[CheckedVideo]) -> None:
        """Hash the whole content of the files with equal size and equal first bytes; clips of one file differ."""
        whole = [video for video in videos if video.content is not None and not video.cut]
        number = Counter(video.content for video in whole)
        alike = [video for video in whole if number[video.content] > 1]
        tasks = [self._task(video, (video.path,), f"hash {video.path}") for video in alike]
        self._run("comparing", hash_file, tasks)
        for task in tasks:
            assert task.facts is not None
            same = task.facts.get("sha256")
            task.video.content = None if same is None else (task.video.facts["bytes"], same)

    def transcode(self, videos: Sequence[CheckedVideo]) -> int:
        """Transcode every file without an unchanged copy; return their number."""
        size, crf, folder = self.options.resize, self.options.crf, self.options.resized_dir
        assert folder is not None
        if size is None:
            videos = [video for video in videos if video.cut]
        elif self.options.keep_small:
            videos = [v for v in videos if min(v.facts["width"], v.facts["height"]) > size or v.is_folder or v.cut]
        targets = _targets(videos, Path(self.options.videos).expanduser(), Path(folder).expanduser())
        tasks = []
        for video, target in zip(videos, targets, strict=True):
            segment = video.row.segment if video.cut else None
            job = (*self._check_job(video), target, size, crf, segment)
            task = self._task(video, job, f"resize {target}", size, crf, GOP, *(segment or ()))
            size_now = Path(target).stat().st_size if Path(target).is_file() else None
            if task.facts is not None and "error" not in task.facts and task.facts.get("bytes") != size_now:
                task.facts = None  # the copy was deleted or changed
            tasks.append(task)
        done = self._run("transcoding", transcode_file, tasks)
        _take_facts(tasks)
        for video, target in zip(videos, targets, strict=True):
            if video.status == "broken":
                # The transcoding process may have been killed.
                remove_partial(Path(target).parent, glob.escape(Path(target).name))
            else:
                video.path = target
        return done

    def _check_job(self, video: CheckedVideo) -> tuple[str, float, int]:
        return video.path, video.row.fps or self.options.frames_fps, self.options.sample_frames

    def _task(self, video: CheckedVideo, job: tuple[Any, ...], key: str, *settings: float | None) -> _Task:
        fps = (video.row.fps or self.options.frames_fps) if video.is_folder else None
        stamp = [_CHECK_VERSION, *video.state, fps, *settings]
        cached_stamp, value = self.cached.get(key, (None, None))
        return _Task(video, job, key, stamp, value if cached_stamp == stamp else None)

    def _run(self, step: str, function: Callable[..., dict[str, Any]], tasks: Sequence[_Task]) -> int:
        retry = self.options.retry_broken
        todo = [task for task in tasks if task.facts is None or (retry and "error" in task.facts)]
        for task in todo:
            task.facts = None
        done = len(tasks) - len(todo)
        broken = sum("error" in task.facts for task in tasks if task.facts is not None)
        self.report(step, done, len(tasks), broken)
        workers = default_workers(self.options.num_workers)
        jobs = [task.job for task in todo]
        for outcome in run_isolated(function, jobs, workers=workers, deadline_s=self.options.timeout_s):
            task = todo[outcome.job]
            task.facts = outcome.value if outcome.error is None else {"error": outcome.error}
            # Not synced: that takes 2 to 4 ms on a local disk, an unsynced append 0.1 ms.
            append_json_lines(self.cache, {"key": task.key, "stamp": task.stamp, "value": task.facts}, sync=False)
            done, broken = done + 1, broken + ("error" in task.facts)
            self.report(step, done, len(tasks), broken)
        return len(todo)


def _take_facts(tasks: Sequence[_Task]) -> None:
    for task in tasks:
        assert task.facts is not None
        task.video.facts = task.facts
        if "error" in task.facts:
            task.video.status, task.video.reason = "broken", task.facts["error"]


def _targets(videos: Sequence[CheckedVideo], root: Path, folder: Path) -> list[str]:
    """Return the path of each copy: that of the file relative to the videos' folder, as .mp4; a segment has its id."""
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
        if video.cut:
            target = relative.with_name(f"{video.row.video_id}.mp4")
        elif str(target) in taken:
            target = relative.with_name(relative.name + ".mp4")
        taken.add(str(target))
        targets.append(str(folder.absolute() / target))
    return targets


def _line(video: CheckedVideo, root: Path | None) -> list[Any]:
    path = video.path if root is None else os.path.relpath(video.path, root)
    return [path, video.label, video.row.video_id, *(video.facts.get(name, "") for name in FACTS), video.status]


def _broken_line(video: CheckedVideo) -> list[Any]:
    # One line a video: line breaks in names become escapes.
    texts = (video.path, video.label, video.row.video_id, video.status, video.reason)
    return [text.replace("\n", "\\n").replace("\r", "\\r") for text in texts]
