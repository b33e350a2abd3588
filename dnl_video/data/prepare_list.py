"""The list of videos of `dnl-video prepare`: options, rows and their status. Standard library only."""

from __future__ import annotations

import dataclasses
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from dnl_video.data.class_ids import assign_labels
from dnl_video.data.class_lists import read_class_list
from dnl_video.data.folders import existing
from dnl_video.data.list_file import Listing, Row
from dnl_video.data.listings import read_class_folders, read_listing
from dnl_video.data.manifest import find_duplicates
from dnl_video.errors import InputError
from dnl_video.files import list_folder
from dnl_video.spec import check_fields

_MUCH_LONGER = 1.5
"""A file that lasts this many times its segment is taken for the whole video. Cutters add a few frames only."""


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
        cut: Of files named by their YouTube id alone that are much longer than their clip (the whole video), write only
            the clip from time_start to time_end. Without it they are used whole, with a warning.
        resized_dir: Folder for the transcoded files of `resize` and `cut`. The manifest then lists these.
        crf: Constant rate factor of the transcoded files; lower is better and larger.
        keep_small: Do not transcode files whose short side is at most `resize`.
        keep_failed: Also list missing and broken videos in the manifest. Use it for validation, so that evaluate counts
            them.
        relative: Write paths relative to the folder of the (transcoded) videos. Set that folder as root later.
        retry_broken: Check files again that were broken in an earlier run.
        val_share: Write OUT.train.csv and OUT.val.csv instead, with this share of the videos of every class in the
            second, for example 0.2.
        group_by: Regular expression whose one group (...) finds the source of a clip in its path. Clips of a source
            are on one side. For v_X_g01_c02.avi: '(v_.+_g\\d+)_c\\d+'; for ID_000010_000020.mp4:
            '([^/]+)_\\d+_\\d+\\.'
        seed: Seed of the division.
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
    cut: bool = False
    resized_dir: str | None = None
    crf: int = 20
    keep_small: bool = False
    keep_failed: bool = False
    relative: bool = False
    retry_broken: bool = False
    val_share: float | None = None
    group_by: str | None = None
    seed: int = 0

    RANGES: ClassVar[dict[str, str]] = {
        "[1, 512]": "num_workers",
        "[1, 100000]": "sample_frames",
        "(0, 1000000]": "timeout_s",
        "[0.001, 10000]": "frames_fps",
        "[16, 4096]": "resize",
        "[0, 63]": "crf",
        "[0.01, 0.9]": "val_share",
        "[0, 1000000000]": "seed",
    }

    def __post_init__(self) -> None:
        check_fields(self)
        if Path(self.output).suffix.lower() != ".csv":
            raise InputError(f"--output is {self.output}; give a name that ends with .csv")
        if self.cut and self.resized_dir is None:
            raise InputError("--cut writes files; give their folder as --resized-dir")
        if not self.cut and (self.resize is None) != (self.resized_dir is None):
            raise InputError("--resize and --resized-dir go together; give both, or neither")
        if self.resized_dir is not None:
            videos, resized = Path(self.videos).expanduser().resolve(), Path(self.resized_dir).expanduser().resolve()
            if resized.is_relative_to(videos):
                raise InputError(f"--resized-dir {self.resized_dir} lies in --videos {self.videos}; choose one outside")
        if self.group_by is not None:
            if self.val_share is None:
                raise InputError("--group-by is for --val-share; give that too, for example 0.2")
            with suppress(re.error):
                if re.compile(self.group_by).groups == 1:
                    return
            raise InputError(f"--group-by is {self.group_by}; give a regular expression with one group (...)")


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
        content: Size and hash of the row's file: of the first bytes, or of the whole file if other files have equal
            first bytes; None for a folder.
        cut: Whether only the row's segment of the file is used.
        group: Videos of one group are on one side of a division.
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
    cut: bool = False
    group: str = ""

    @property
    def is_longer(self) -> bool:
        """Whether the file is much longer than the row's segment."""
        start, end = self.row.segment or (0, 0)
        return start < end and self.facts.get("duration_s", 0) > _MUCH_LONGER * (end - start)


def list_videos(options: PrepareOptions) -> tuple[list[CheckedVideo], Listing, tuple[str, ...]]:
    """Read the list and find the files.

    Returns:
        One video per row, those not found or listed before included; the listing; the names of the class list, if any.

    Raises:
        InputError: The list, the folder or a label cannot be used.
    """
    no_folder = f"--videos {options.videos} is not a folder; give the folder that holds the videos"
    folder = existing(options.videos, no_folder)
    if not folder.is_dir():
        raise InputError(no_folder)
    if options.annotations is None:
        source = read_class_folders(folder)
    else:
        absent = f"--annotations {options.annotations} does not exist; give a Kinetics CSV or a list"
        listing = existing(options.annotations, absent)
        if listing.is_dir():
            hmdb51 = list_folder(listing, "*_test_split?.txt")
            hint = "; of HMDB51's files CLASS_test_split1.txt give one" if hmdb51 else ""
            raise InputError(
                f"--annotations {options.annotations} is a folder; give class folders as --videos alone{hint}"
            )
        source = read_listing(listing, folder, labelled=False)
    videos = _mark_duplicates(source.rows, cut=options.cut)
    names: tuple[str, ...] = ()
    unique = [video for video in videos if not video.status]
    if any(video.row.label for video in unique):
        classes = options.classes or source.class_list
        names = () if classes is None else read_class_list(classes)
        rows, folders = [video.row for video in unique], options.annotations is None
        labels, spelled, notes = assign_labels(rows, names or None, folders=folders)
        source = dataclasses.replace(source, notes=(*source.notes, *notes))
        for video, label in zip(unique, labels, strict=True):
            video.label = spelled[label] if spelled else str(label)
    for video in unique:
        _find(video)
    return videos, source, names


def _mark_duplicates(rows: Sequence[Row], *, cut: bool) -> list[CheckedVideo]:
    """Return one video per row; with `cut`, one file may hold the segments of several rows."""
    videos = {row.place: CheckedVideo(row, row.label, str(Path(row.path).absolute())) for row in rows}
    for row, earlier, _ in find_duplicates(rows):
        if not (cut and row.segment and row.video_id != earlier.video_id):
            _mark_duplicate(videos[row.place], earlier)
    return list(videos.values())


def choose_segments(videos: Sequence[CheckedVideo], *, cut: bool) -> list[CheckedVideo]:
    """Decide which videos are cut; return all but those that would use the whole file of an earlier row again."""
    first: dict[str, CheckedVideo] = {}
    for video in videos:
        video.cut = cut and video.is_longer
        if not video.cut and (earlier := first.setdefault(video.path, video)) is not video:
            _mark_duplicate(video, earlier.row)
    return [video for video in videos if not video.status]


def _mark_duplicate(video: CheckedVideo, earlier: Row) -> None:
    if not video.status:
        other = "" if earlier.label == video.row.label else f" as {earlier.label!r}"
        video.status, video.reason = "duplicate", f"{video.row.place}: already listed in {earlier.place}{other}"


def _find(video: CheckedVideo) -> None:
    try:
        video.path.encode()
        status = Path(video.path).stat()  # the only `stat` of this file: it is slow on network file systems
        if {"\n", "\r"} & set(video.path + video.row.video_id + video.label):
            video.status, video.reason = "broken", "the name has a line break, which no list can hold; rename the file"
    except (FileNotFoundError, NotADirectoryError):
        video.status, video.reason = "missing", "file not found"
    except OSError as error:
        video.status, video.reason = "broken", error.strerror or str(error)
    except UnicodeEncodeError:
        video.status, video.reason = "broken", "the name is not UTF-8, which a list cannot hold; rename the file"
    except ValueError as error:  # a null byte
        video.status, video.reason = "broken", str(error)
    else:
        video.state, video.is_folder = (status.st_size, status.st_mtime_ns), stat.S_ISDIR(status.st_mode)
