"""Paths that users give, and the videos and folders of extracted frames below a folder. Standard library only."""

from __future__ import annotations

import os
import re
from bisect import bisect
from pathlib import Path

from dnl_video.errors import InputError
from dnl_video.files import refuse_folder, walk

VIDEO_EXTENSIONS = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".flv", ".wmv", ".ts", ".3gp", ".ogv"),
)
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:[\\/]", re.IGNORECASE)


def is_frame(name: str) -> bool:
    """Return whether a file name is that of an extracted frame: a numbered image."""
    stem, dot, extension = name.rpartition(".")
    return not name.startswith(".") and stem[-1:].isdecimal() and (dot + extension).lower() in IMAGE_EXTENSIONS


def walk_videos(folder: Path) -> list[str]:
    """Return the sorted relative paths (with /) of all videos below a folder.

    Links are followed; hidden files and folders are skipped. A folder with numbered images is one video, its extracted
    frames, if neither it nor a folder below it holds videos or other frames.

    Raises:
        InputError: A folder cannot be read, or a link to one leads nowhere.
    """
    found: list[str] = []
    with_frames: list[str] = []
    for parent, _, files in walk(folder):
        for name in files:
            if "." not in name:  # a link to a folder that is gone (a drive not mounted) counts as a file
                try:
                    Path(parent, name).stat()
                except OSError as error:
                    refuse_folder(error)
        prefix = "" if parent == str(folder) else Path(parent).relative_to(folder).as_posix() + "/"
        # Hidden files: "._name.mp4" of macOS beside a copied file, and the rest of an interrupted atomic write.
        videos = [prefix + n for n in files if n.lower().endswith(VIDEO_EXTENSIONS) and not n.startswith(".")]
        found += videos
        if not videos and prefix and any(map(is_frame, files)):
            with_frames.append(prefix)
    found.sort()
    frames: list[str] = []
    for prefix in reversed(with_frames):  # the folders below a folder come before it
        below = found[(place := bisect(found, prefix)) : place + 1] + frames[-1:]
        if not any(name.startswith(prefix) for name in below):
            frames.append(prefix[:-1])
    return sorted(found + frames)


def existing(source: str | os.PathLike[str], absent: str) -> Path:
    """Return the path of a file or folder that a user gave.

    Args:
        source: The path as given.
        absent: The error message when there is no such file.

    Raises:
        InputError: There is none, it is an address, or its folder may not be read.
    """
    path = Path(source).expanduser()
    refuse_foreign_path(str(source), "", Path())
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise InputError(absent) from None
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror}); check the path and its permissions") from None
    return path


def refuse_foreign_path(name: str, where: str, root: Path) -> None:
    """Refuse addresses and paths of Windows.

    Args:
        name: The path as given.
        where: Its list and line; "" if it is not from a list.
        root: Folder of relative paths.

    Raises:
        InputError: It is an address, or a Windows path on another system and no existing file.
    """
    prefix = where and f"{where}: "
    if _ADDRESS.match(name):
        raise InputError(f"{prefix}{name} is an address; copy the videos to a disk and give their paths")
    windows = "\\" in name or _DRIVE.match(name)
    if windows and os.name != "nt" and not os.path.exists(root / name):  # noqa: PTH110, never raises
        raise InputError(f"{prefix}{name} is a Windows path; give the path on this system, with / between folders")
