"""The list of videos of `dnl-video prepare`: options, rows and their status, counts. Standard library only."""

from __future__ import annotations

import stat
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from dnl_video.data.class_lists import read_class_list
from dnl_video.data.list_file import Listing, Row, existing
from dnl_video.data.listings import read_class_folders, read_listing
from dnl_video.data.manifest import assign_labels, find_duplicates
from dnl_video.errors import InputError
from dnl_video.spec import check_fields

_LISTED_NAMES = 5
_LISTED_REASONS = 8


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `dnl-video prepare`.

    Args:
        videos: Folder that contains the videos.
        output: Manifest to write; its name ends with .csv.
        annotations: List of the videos (formats: see above). null: `videos` contains one folder per class.
        classes: Check labels against these class names: a file with one name per line, or kinetics400, kinetics600 or
            kinetics700.
        num_workers: Checking processes. null: one per available core, at most 8.
        sample_frames: Frames to decode from each file, including the first and the last.
        timeout_s: Seconds after which a file counts as broken.
        frames_fps: Frame rate of frame folders.
        resize: Transcode to H.264 with this short side (for example 320 or 256). Smaller videos keep their size. All
            frames are kept, with a key frame at least every 16 frames; sound is dropped.
        resized_dir: Folder for the transcoded files. The manifest then lists these.
        crf: Constant rate factor of the transcoded files; lower is better and larger.
        keep_small: Do not transcode files whose short side is at most `resize`.
        keep_failed: Also list missing and broken videos in the manifest. Use it for validation, so that evaluate counts
            them.
        relative: Write paths relative to the folder of the (transcoded) videos. Set that folder as root later.
        retry_broken: Check files again that were broken in an earlier run.
    """

    videos: str
    output: str
    annotations: str | None = None
    classes: str | None = None
    num_workers: int | None = None
    sample_frames: int = 8
    timeout_s: float = 120.0
    frames_fps: float = 30.0
    resize: int | None = None
    resized_dir: str | None = None
    crf: int = 20
    keep_small: bool = False
    keep_failed: bool = False
    relative: bool = False
    retry_broken: bool = False

    RANGES: ClassVar = {
        "[1, 512]": "num_workers",
        "[1, 100000]": "sample_frames",
        "(0, 1000000]": "timeout_s",
        "[0.001, 10000]": "frames_fps",
        "[16, 4096]": "resize",
        "[0, 63]": "crf",
    }

    def __post_init__(self) -> None:
        check_fields(self)
        if Path(self.output).suffix.lower() != ".csv":
            raise InputError(f"--output is {self.output}; give a name that ends with .csv")
        if (self.resize is None) != (self.resized_dir is None):
            raise InputError("--resize and --resized-dir go together; give both, or neither")
        if self.resized_dir is not None:
            videos, resized = Path(self.videos).expanduser().resolve(), Path(self.resized_dir).expanduser().resolve()
            if resized.is_relative_to(videos):
                raise InputError(f"--resized-dir {self.resized_dir} lies in --videos {self.videos}; choose one outside")


@dataclass
class CheckedVideo:
    """A row of the list and the state of its video.

    Args:
        row: The row.
        label: Its label as written to the manifest; "" if the list has none.
        path: The file to train on: the row's, or its transcoded copy.
        status: ok, missing, broken or duplicate; "" while unknown.
        reason: Why it is not ok.
        facts: Result of `check_file`.
        state: Size and modification time (ns) of the row's file; cached checks are valid while both are unchanged.
        is_folder: Whether it is a folder of frames.
        content: Size and hash of the first bytes of the row's file; None for a folder.
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


def list_videos(options: PrepareOptions) -> tuple[list[CheckedVideo], Listing]:
    """Read the list and find the files.

    Returns:
        One video per row, those not found or listed before included, and the listing.

    Raises:
        InputError: The list, the folder or a label cannot be used.
    """
    folder = Path(options.videos).expanduser()
    if not folder.is_dir():
        raise InputError(f"--videos {options.videos} is not a folder; give the folder that holds the videos")
    if options.annotations is None:
        source = read_class_folders(folder)
    else:
        absent = f"--annotations {options.annotations} does not exist; give a Kinetics CSV or a list"
        listing = existing(options.annotations, absent)
        if listing.is_dir():
            raise InputError(
                f"--annotations {options.annotations} is a folder; give class folders as --videos alone; "
                "of HMDB51's files CLASS_test_split1.txt give one"
            )
        source = read_listing(listing, folder, labelled=False)
    videos = _mark_duplicates(source.rows)
    unique = [video for video in videos if not video.status]
    if any(video.row.label for video in unique):
        classes = options.classes or source.class_list
        names = None if classes is None else read_class_list(classes)
        records, _ = assign_labels([v.row for v in unique], names, folders=options.annotations is None)
        for video, record in zip(unique, records, strict=True):
            video.label = record.class_name or str(record.label)
    for video in unique:
        _find(video)
    return videos, source


def _mark_duplicates(rows: Sequence[Row]) -> list[CheckedVideo]:
    videos = {row.place: CheckedVideo(row, row.label, str(Path(row.path).absolute())) for row in rows}
    for row, earlier, _ in find_duplicates(rows):
        video = videos[row.place]
        if not video.status:
            other = "" if earlier.label == row.label else f" as {earlier.label!r}"
            video.status, video.reason = "duplicate", f"{row.place}: already listed in {earlier.place}{other}"
    return list(videos.values())


def _find(video: CheckedVideo) -> None:
    try:
        video.path.encode()
        status = Path(video.path).stat()  # the only `stat` of this file: it is slow on network file systems
    except (FileNotFoundError, NotADirectoryError):
        video.status, video.reason = "missing", "file not found"
    except OSError as error:
        video.status, video.reason = "broken", error.strerror or str(error)
    except UnicodeEncodeError:
        video.status, video.reason = "broken", "the name is not UTF-8, which a list cannot hold; rename the file"
    else:
        video.state, video.is_folder = (status.st_size, status.st_mtime_ns), stat.S_ISDIR(status.st_mode)


def summarise(videos: Sequence[CheckedVideo], source: str) -> dict[str, Any]:
    """Count videos by status, reason, class, codec and decoder.

    Returns:
        listed = duplicates + missing + broken + usable; found = broken + usable; reasons: number of broken files by
        reason; classes: their number and the usable videos per class (min, median, max, the smallest); duplicate_rows:
        reason by id; copies: paths of usable files with equal size and equal first 64 KiB; codecs and decoders of the
        usable files; hours of usable video.
    """
    status = Counter(video.status for video in videos)
    usable = [video for video in videos if video.status == "ok"]
    reasons = Counter(v.reason.replace(v.path, "the file") for v in videos if v.status == "broken")
    copies = defaultdict(list)
    for video in usable:
        if video.content is not None:
            copies[video.content].append(video.path)
    return {
        "schema": "dnl-video-prepare/1",
        "source": source,
        "listed": len(videos),
        "duplicates": status["duplicate"],
        "found": status["ok"] + status["broken"],
        "missing": status["missing"],
        "broken": status["broken"],
        "usable": status["ok"],
        "reasons": dict(reasons.most_common()),
        "classes": _classes(videos),
        "duplicate_rows": {v.row.video_id: v.reason for v in videos if v.status == "duplicate"},
        "copies": [paths for paths in copies.values() if len(paths) > 1],
        "codecs": dict(Counter(video.facts["codec"] for video in usable).most_common()),
        "decoders": dict(Counter(video.facts["decoder"] or "images" for video in usable).most_common()),
        "hours": round(sum(video.facts["num_frames"] / video.facts["fps"] for video in usable) / 3600, 3),
    }


def _classes(videos: Sequence[CheckedVideo]) -> dict[str, Any] | None:
    listed = Counter(video.label for video in videos if video.status != "duplicate" and video.label)
    if not listed:
        return None
    usable = Counter(video.label for video in videos if video.status == "ok")
    counts = [usable[name] for name in listed]
    smallest = sorted(listed, key=lambda name: (usable[name], name))[:_LISTED_NAMES]
    return {
        "count": len(listed),
        "min": min(counts),
        "median": statistics.median(counts),
        "max": max(counts),
        "smallest": {name: {"usable": usable[name], "listed": listed[name]} for name in smallest},
        "empty": sorted(name for name in listed if not usable[name]),
    }


def summary_text(summary: dict[str, Any]) -> str:
    """Return the summary as lines for a terminal."""
    share = 100 * summary["usable"] / max(summary["listed"] - summary["duplicates"], 1)
    lines = [f"{name:<12}{summary[name]:>9,}" for name in ("listed", "duplicates", "missing", "found", "broken")]
    lines.append(
        f"{'usable':<12}{summary['usable']:>9,}  ({share:.1f} % of the videos listed, {summary['hours']:.1f} h)"
    )
    shown = list(summary["reasons"].items())[:_LISTED_REASONS]
    if shown:
        lines.append("broken files by reason")
        lines += [f"  {count:>7,}  {reason}" for reason, count in shown]
        if len(summary["reasons"]) > len(shown):
            lines.append(f"           and {len(summary['reasons']) - len(shown)} more reasons")
    if classes := summary["classes"]:
        lines.append(
            f"{classes['count']} classes with {classes['min']} to {classes['max']} usable videos, "
            f"median {classes['median']:g}; smallest: "
            + ", ".join(f"{name} {n['usable']} of {n['listed']}" for name, n in classes["smallest"].items())
        )
        if classes["empty"]:
            lines.append(f"warning: {len(classes['empty'])} classes have no usable video: {_some(classes['empty'])}")
    if summary["copies"]:
        pairs = [" = ".join(paths[:3]) for paths in summary["copies"]]
        lines.append(f"warning: {len(pairs)} sets of files with the same content: {_some(pairs)}")
    lines.append("decoded by  " + ", ".join(f"{name} {count:,}" for name, count in summary["decoders"].items()))
    return "\n".join(lines)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED_NAMES]) + (", ..." if len(names) > _LISTED_NAMES else "")
