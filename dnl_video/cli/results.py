"""Reads the inputs of `report` and `compare`: predictions directories, and results of other projects."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dnl_video.errors import InputError

if TYPE_CHECKING:
    from dnl_video.results.predictions import Predictions


def add_foreign_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for information that the results of other projects lack."""
    group = parser.add_argument_group("results of other projects")
    classes = "Class names in the order of the scores: one per line, JSON, or kinetics400."
    group.add_argument("--classes", metavar="FILE", help=classes)
    group.add_argument("--manifest", metavar="LIST", help="The tested list, in its order, for ids and labels.")


def read_results(paths: Sequence[str], args: argparse.Namespace, *, clip_scores: bool = True) -> list[Predictions]:
    """Read predictions directories, and results files of other projects.

    Args:
        paths: The directories and files.
        args: Has `classes` and `manifest`, for the files.
        clip_scores: Also read the clip scores of directories.

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


def _read_file(path: str, args: argparse.Namespace) -> Predictions:
    from dnl_video.data.manifest import read_class_list, read_manifest
    from dnl_video.results.foreign import ListEntry, read_foreign

    names = None if args.classes is None else read_class_list(args.classes)
    if args.manifest is None:
        return read_foreign(path, class_names=names)
    manifest = read_manifest(args.manifest, class_names=names)
    videos = [ListEntry(record.video_id, record.path, record.label) for record in manifest.records]
    predictions = read_foreign(path, class_names=names or manifest.class_names, videos=videos)
    predictions.meta = dataclasses.replace(predictions.meta, manifest=manifest.source, manifest_sha256=manifest.sha256)
    return predictions
