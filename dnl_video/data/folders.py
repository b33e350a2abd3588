"""Finds videos and folders of extracted frames below a folder. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path

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

    Links are followed; hidden files and folders are skipped. A folder with numbered images but without videos and
    folders is one video: its extracted frames.
    """
    found: list[str] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder already read
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = "" if parent == str(folder) else Path(parent).relative_to(folder).as_posix() + "/"
        # Hidden files: "._name.mp4" of macOS beside a copied file, and the rest of an interrupted atomic write.
        videos = [prefix + n for n in files if n.lower().endswith(VIDEO_EXTENSIONS) and not n.startswith(".")]
        if not videos and not folders and prefix and any(map(is_frame, files)):
            videos = [prefix[:-1]]
        found += videos
    return sorted(found)
