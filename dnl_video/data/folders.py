"""Finds videos and folders of extracted frames below a folder. Standard library only."""

from __future__ import annotations

from bisect import bisect
from pathlib import Path

from dnl_video.files import refuse_folder, walk

VIDEO_EXTENSIONS = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".flv", ".wmv", ".ts", ".3gp", ".ogv"),
)
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


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
