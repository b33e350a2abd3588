"""Reading what `report` and `compare` take: predictions directories, and results that other projects wrote."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dnl_video.errors import InputError

if TYPE_CHECKING:
    from dnl_video.results.predictions import Predictions


def add_foreign_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what results of other projects do not say themselves."""
    group = parser.add_argument_group("results of other projects")
    group.add_argument(
        "--classes", metavar="FILE", help="Class names in the order of the scores: one a line, JSON, or kinetics400."
    )
    group.add_argument(
        "--manifest", metavar="LIST", help="The list that was tested, in its order: gives videos their names."
    )


def read_results(path: str | os.PathLike[str], args: argparse.Namespace, *, clip_scores: bool = True) -> Predictions:
    """Read a predictions directory, or a file of results that another project wrote.

    Args:
        path: Either of them.
        args: Has `classes` and `manifest`, for files.
        clip_scores: Also read the clips of a directory.

    Raises:
        InputError: It cannot be read, or does not fit the classes or the list.
    """
    from dnl_video.results.reader import read_predictions

    if not Path(path).is_file():
        return read_predictions(path, clip_scores=clip_scores)
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


def refuse_foreign_arguments(args: argparse.Namespace, paths: list[str]) -> None:
    """Refuse options for other projects' results where every input is a predictions directory.

    Raises:
        InputError: There is such an option, and no such file.
    """
    if (args.classes or args.manifest) and not any(Path(path).is_file() for path in paths):
        raise InputError("--classes and --manifest are for results of other projects; a predictions directory has both")
