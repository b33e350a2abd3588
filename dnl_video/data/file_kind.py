"""Says what a file holds that is not a video, from its first bytes."""

from __future__ import annotations

import os
import re

_HEAD_BYTES = 512
# First bytes of the containers that FFmpeg reads; of .mp4 and .mov, the names of the first boxes at byte 4.
_VIDEO = (b"RIFF", b"FLV", b"\x1aE\xdf\xa3", b"\0\0\1", b"\0\0\0\1", b"G", b"0&\xb2u", b"OggS")
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof", b"sidx")
_IMAGE_BRANDS = (b"avif", b"heic", b"heix", b"mif1")
_OTHER = {
    b"PK\3\4": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
}
_NOT_IN_TEXT = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")


def why_not_opened(path: str) -> str:
    """Return why a file must not be opened as a video, in one line: it is text or a still picture; "" for others.

    FFmpeg takes a playlist in a text file for the video, and reads the files or URLs that it lists.
    """
    head = _head(path)
    if head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS:
        return f"not a video: an image ({head[8:12].decode()})"
    if _NOT_IN_TEXT.search(head):
        return ""
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the video; fetch it with `git lfs pull`"
    first_line = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n").partition("\n")[0]
    return "not a video: begins with " + "".join(c for c in first_line if c.isprintable())[:40].strip()


def why_not_video(path: str) -> str:
    """Return why FFmpeg cannot open a file, in one line; "" if the file's first bytes are those of a video."""
    head = _head(path)
    if head.startswith(_VIDEO) or head[4:8] in _BOXES:
        return cut_off(path)
    if not head.strip(b"\0"):
        return "not a video: begins with zeros"
    other = next((name for magic, name in _OTHER.items() if head.startswith(magic)), "")
    return f"not a video: {other}" if other else f"not a video: begins with the bytes {head[:8].hex(' ')}"


def cut_off(path: str) -> str:
    """Return where an .mp4 or .mov file is cut off, in one line; "" for others.

    Without the box `moov`, often the last one, no frame can be found (ISO/IEC 14496-12, 4.2 and 8.2.1).
    """
    if not os.path.isfile(path):  # noqa: PTH113
        return ""
    end = os.path.getsize(path)  # noqa: PTH202
    place = 0
    found: list[bytes] = []
    with open(path, "rb") as file:  # noqa: PTH123
        while place + 8 <= end:
            file.seek(place)
            header = file.read(16)
            size, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if not found and kind not in _BOXES:
                return ""
            found.append(kind)
            place += max({0: end - place, 1: int.from_bytes(header[8:], "big")}.get(size, size), 8)
    if found and b"moov" not in found and b"meta" not in found:  # meta: of a still picture
        return "cut off, no moov atom"
    return f"cut off in the {found[-1].decode()} atom" if place > end and found[-1].isalnum() else ""


def _head(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read(_HEAD_BYTES)
