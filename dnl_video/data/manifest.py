"""Reads listings of videos into records with class ids. Standard library only."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dnl_video.data.class_ids import assign_labels
from dnl_video.data.class_lists import read_class_list
from dnl_video.data.folders import VIDEO_EXTENSIONS, existing, is_frame, walk_videos
from dnl_video.data.list_file import Row
from dnl_video.data.listings import LIST_EXTENSIONS, read_class_folders, read_listing, take_split
from dnl_video.errors import InputError
from dnl_video.files import list_folder


@dataclass(frozen=True)
class VideoRecord:
    """One video of a listing.

    Args:
        video_id: Its name in predictions and reports, unique in the listing.
        path: Path of the file, which may not exist.
        label: Class id; None if the listing has none.
        class_name: Name of the class, spelled as in the class list; None if unknown.
        decoder: Decoder that reads the file exactly, `decord` or `av` (column `decoder`); None if unknown.
        fps: Frames per second of a folder of frames (column `fps`); None if unknown.
        recorded: (frames, height, width) of the file (columns `num_frames`, `height`, `width`); None if unknown.
    """

    video_id: str
    path: str
    label: int | None = None
    class_name: str | None = None
    decoder: str | None = None
    fps: float | None = None
    recorded: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Manifest:
    """The videos of a listing.

    Args:
        source: The listing, or the files and folders.
        records: The videos, in the order of the listing.
        class_names: Names by class id; None if the labels are integers and no names were given.
        sha256: Hash of the listing's content (of a folder: of the sorted relative names).
        notes: Facts about reading it that the user must know, one line each.
        labels: Class ids of all videos of the listing, also of those that `limit_videos` leaves out.
    """

    source: str
    records: tuple[VideoRecord, ...]
    class_names: tuple[str, ...] | None
    sha256: str
    notes: tuple[str, ...] = ()
    labels: frozenset[int] = frozenset()


def find_manifest(source: str | os.PathLike[str]) -> Path:
    """Return the path of a labelled listing.

    Raises:
        InputError: There is none.
    """
    absent = f"manifest {source} does not exist; give a CSV, a list of `path label` lines or a class folder"
    return existing(source, absent)


def read_manifest(
    source: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    limit_videos: int | None = None,
    split: str | None = None,
) -> Manifest:
    """Read a labelled listing; the content tells its format.

    Missing files are not an error (some Kinetics videos are always missing): their records have the expected path.

    Args:
        source: A CSV, a list, or a folder of class folders.
        root: Folder of relative paths and Kinetics ids; None is the listing's own folder.
        class_names: Names by class id, from the model or a class list. Spelling may differ in case and in underscores
            for spaces. None takes the data set's own class list beside the listing (UCF101, Something-Something), or
            this listing's names in alphabetical order (the published order of Kinetics), or integer labels as they are.
        limit_videos: Keep only this many videos, evenly spaced over the listing; class ids are those of all of it.
        split: Which rows to take from a listing of several splits: `train` or `val` (see `take_split`); None: all.

    Raises:
        InputError: The listing is missing, empty, of unknown format, lists a video twice, mixes integer and named
            labels, or has a label that is not in `class_names`. The message names file and line.
    """
    if limit_videos is not None and limit_videos < 1:
        raise InputError(f"limit_videos is {limit_videos}; give at least 1, or null for all")
    path = find_manifest(source)
    if path.is_dir():
        if root is not None and Path(root).expanduser().resolve() != path.resolve():
            raise InputError(f"manifest {source} is a class folder, which takes no root; leave out the root {root}")
        listing = read_class_folders(path)
    else:
        listing = read_listing(path, root, labelled=True)
    if split is not None:
        listing = take_split(listing, str(source), split)
    if class_names is None and listing.class_list is not None:
        class_names = read_class_list(listing.class_list)
    rows = listing.rows
    for row, earlier, shared in find_duplicates(rows):
        raise InputError(f"{row.where}: {shared} was already listed in {earlier.place}; list it once")
    labels, names, notes = assign_labels(rows, class_names, folders=path.is_dir())
    records = [_record(row, k, names[k] if names else None) for row, k in zip(rows, labels, strict=True)]
    if limit_videos is not None and limit_videos < len(records):
        records = [records[i * len(records) // limit_videos] for i in range(limit_videos)]
    return Manifest(str(source), tuple(records), names, listing.sha256, (*listing.notes, *notes), frozenset(labels))


def read_videos(sources: Sequence[str], *, root: str | os.PathLike[str] | None = None) -> Manifest:
    """Collect videos without labels: files, folders (recursively, sorted) and lists of paths (labels are ignored).

    A file found twice is listed once. Ids are paths relative to the folder, or as written; if two sources give the same
    id, both get the absolute path.

    Args:
        sources: Video files, folders (of videos, or of one video's frames), or text lists (.txt, .csv, .tsv).
        root: Folder of relative paths in lists; None is each list's own folder.

    Raises:
        InputError: A source does not exist or holds no video.
    """
    found: dict[str, VideoRecord] = {}
    notes: list[str] = []
    for source in sources:
        path = existing(source, f"{source} does not exist; give video files, folders or lists of paths")
        if path.is_dir():
            videos = [VideoRecord(name, str(path / name)) for name in walk_videos(path)]
            if not videos and any(is_frame(file.name) for file in list_folder(path)):
                videos = [VideoRecord(path.as_posix(), str(path))]
            if not videos:
                raise InputError(f"folder {source} holds no video; known extensions: {' '.join(VIDEO_EXTENSIONS)}")
        elif path.suffix.lower() in LIST_EXTENSIONS:
            listing = read_listing(path, root, labelled=False)
            videos = [_record(row) for row in listing.rows]
            notes += listing.notes
        else:
            videos = [VideoRecord(path.as_posix(), str(path))]
        for video in videos:
            found.setdefault(os.path.abspath(video.path), video)  # noqa: PTH100, pathlib is slow for millions
    if not found:
        raise InputError("no videos were given; give video files, folders or lists of paths")
    counts = Counter(video.video_id for video in found.values())
    records = tuple(
        video if counts[video.video_id] == 1 else dataclasses.replace(video, video_id=absolute)
        for absolute, video in found.items()
    )
    names = "\n".join(record.video_id for record in records)
    digest = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()
    return Manifest(", ".join(sources), records, None, digest, tuple(notes))


def missing(records: Iterable[VideoRecord]) -> list[VideoRecord]:
    """Return the records whose file (or folder of frames) does not exist.

    A file that cannot be reached (no permission, name too long) is not among them: opening it fails with the reason.
    """
    return [record for record in records if _is_missing(record.path)]


def _is_missing(path: str) -> bool:
    try:
        os.stat(path)  # noqa: PTH116, pathlib is slow for millions
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _record(row: Row, label: int | None = None, class_name: str | None = None) -> VideoRecord:
    return VideoRecord(row.video_id, row.path, label, class_name, row.decoder, row.fps, row.recorded)


def find_duplicates(rows: Iterable[Row]) -> Iterator[tuple[Row, Row, str]]:
    """Yield each row with the id or the file of an earlier row: the row, the earlier row, and what they share."""
    first: dict[str, Row] = {}
    for row in rows:
        file = os.path.abspath(row.path)  # noqa: PTH100, pathlib is slow for millions
        for key, shared in ((f"id {row.video_id}", f"video {row.video_id!r}"), (f"file {file}", f"file {row.path}")):
            earlier = first.setdefault(key, row)
            if earlier is not row:
                yield row, earlier, shared
