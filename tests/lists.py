"""Lists of videos for tests."""

from __future__ import annotations

from pathlib import Path

from dnl_video.data.manifest import read_manifest


def write_list(path: Path, manifest: Path, broken: int | None = None, limit: int | None = None) -> Path:
    """Write a list of the first ``limit`` videos of a generated list, with an invalid file at the index ``broken``."""
    records = read_manifest(manifest, root=manifest.parent / manifest.stem).records[:limit]
    rows = [f"{record.path},{record.class_name}" for record in records]
    if broken is not None:
        bad = path.with_suffix(".broken.mp4")
        bad.write_bytes(b"not a video")
        rows.insert(broken, f"{bad},{records[broken].class_name}")
    path.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    return path
