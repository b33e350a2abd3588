"""Reads the input of `report` and `compare`: predictions, results of other projects, frames; prints the accuracy."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dnl_video.cli.terminal import log, say
from dnl_video.errors import InputError
from dnl_video.files import dump_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dnl_video.results.predictions import Predictions

_HEADLINE = ("complete", "notes", "weights", "protocol", "num_classes", "accuracy")  # fields of --json
_FRAMES = 6
_HEIGHT = 96


def add_foreign_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for class names and lists, which results of other projects do not contain."""
    group = parser.add_argument_group("results of other projects")
    classes = "Class names in the order of the scores: one per line, JSON, or kinetics400."
    group.add_argument("--classes", metavar="FILE", help=classes)
    group.add_argument("--manifest", metavar="LIST", help="The tested list, in its order, for ids and labels.")


def read_results(paths: Sequence[str], args: argparse.Namespace, *, clip_scores: bool = True) -> list[Predictions]:
    """Read predictions directories, and results files of other projects with ``args.classes`` and ``args.manifest``.

    Raises:
        InputError: An input cannot be read or does not fit the options, or the options are given without a file.
    """
    if (args.classes or args.manifest) and not any(Path(path).is_file() for path in paths):
        raise InputError("--classes and --manifest are for results of other projects; a predictions directory has both")
    from dnl_video.results.reader import read_predictions

    return [
        _read_file(path, args) if Path(path).is_file() else read_predictions(path, clip_scores=clip_scores)
        for path in paths
    ]


def print_report(report: dict[str, Any], as_json: bool, outputs: dict[str, Any], *lines: str) -> None:
    """Print accuracy and coverage of a report: as tables and ``lines``, or as JSON with its fields and ``outputs``."""
    if as_json:
        numbers = {key: count for key, count in report["coverage"].items() if not isinstance(count, list)}
        say(dump_json({**outputs, **{key: report[key] for key in _HEADLINE}, "coverage": numbers}, indent=1))
        return
    from dnl_video.cli.screen import print_nodes
    from dnl_video.report.report_document import report_summary

    print_nodes(report_summary(report))
    say(*lines)


def _read_file(path: str, args: argparse.Namespace) -> Predictions:
    from dnl_video.data.class_lists import read_class_list
    from dnl_video.data.manifest import read_manifest
    from dnl_video.results.foreign import ListEntry, read_foreign

    names = None if args.classes is None else read_class_list(args.classes)
    if args.manifest is None:
        return read_foreign(path, class_names=names)
    manifest = read_manifest(args.manifest, class_names=names, split="val")
    for note in manifest.notes:
        log.info(f"note: {note}")
    videos = [ListEntry(record.video_id, record.path, record.label) for record in manifest.records]
    predictions = read_foreign(path, class_names=names or manifest.class_names, videos=videos)
    predictions.meta = dataclasses.replace(predictions.meta, manifest=manifest.source, manifest_sha256=manifest.sha256)
    return predictions


def thumbnail_reader(root: str | None = None) -> Callable[[str], NDArray[np.uint8] | str]:
    """Return a function that reads six frames of a video, uint8 [6, 96, W, 3], or returns the reason for a failure.

    Args:
        root: Folder that now holds the videos; they are found by path or by name.

    Raises:
        InputError: The folder does not exist.
    """
    if root is not None and not Path(root).is_dir():
        raise InputError(f"--video-root {root} is not a folder; give the folder that holds the videos")

    import numpy as np

    from dnl_video.data.decoding import VideoDecodeError, open_video

    def read(path: str) -> NDArray[np.uint8] | str:
        try:
            with open_video(_find(path, root)) as video:
                spread = (2 * np.arange(_FRAMES) + 1) * video.num_frames // (2 * _FRAMES)
                return video.read(spread, resize=_shrink)
        except VideoDecodeError as error:
            return error.reason.partition(" (")[0]

    return read


def video_links(page: Path, root: str | None = None) -> Callable[[str], str | None]:
    """Return a function from a video's path to its address relative to a page's folder; None if it is not there."""

    def link(path: str) -> str | None:
        file = _find(path, root)
        there = bool(path) and file.exists()
        return quote(Path(os.path.relpath(file.resolve(), page.resolve())).as_posix()) if there else None

    return link


def _find(path: str, root: str | None) -> Path:
    parts = Path(path).relative_to(Path(path).anchor).parts
    moved = (Path(root, *parts[first:]) for first in range(len(parts))) if root is not None else ()
    return next((file for file in moved if file.is_file()), Path(path))


def _shrink(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    height, width = frames.shape[1:3]
    size = (max(1, round(width * _HEIGHT / height)), _HEIGHT)
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)) for frame in frames])
