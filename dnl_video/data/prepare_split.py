"""Divides the videos of `dnl-video prepare` into training and validation videos. Standard library only."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dnl_video.data.prepare_list import CheckedVideo
from dnl_video.errors import InputError

_MAX_PASSES = 20
_MAX_ATTEMPTS = 20  # with groups of several classes, the first order may leave a side of a class empty
_EMPTY_SIDE = 1e9  # more than all shares together can be wrong


def name_groups(videos: Sequence[CheckedVideo], folder: Path, pattern: str | None) -> tuple[str, ...]:
    """Set the group of each video: the text that the pattern finds in its path below the folder, else the path.

    Returns:
        A note on the paths that the pattern does not match.

    Raises:
        InputError: It matches no path.
    """
    alone = []
    for video in videos:
        path = Path(os.path.relpath(video.row.path, folder)).as_posix()
        found = re.search(pattern, path) if pattern is not None else None
        video.group = f"group {found[1]}" if found and found[1] else path
        if video.group == path:
            alone.append(path)
    if pattern is None or not alone:
        return ()
    if len(alone) == len(videos):
        raise InputError(f"--group-by {pattern} matches no path, for example {alone[0]}; give a pattern of these paths")
    return (f"--group-by does not match {len(alone)} paths, each a group of its own, for example {alone[0]}",)


def divide(
    videos: Sequence[CheckedVideo], share: float, seed: int
) -> tuple[list[CheckedVideo], list[CheckedVideo], dict[str, Any]]:
    """Return the training videos, the validation videos, and counts; see `choose_validation`.

    Copies of a file stay together. The counts: train, val, groups; one_side: the classes with videos on one side only.

    Raises:
        InputError: There would be no validation video.
    """
    members: dict[str, list[CheckedVideo]] = defaultdict(list)
    for video in videos:
        members[video.group].append(video)
    first: dict[tuple[int, str], CheckedVideo] = {}
    for video in videos:
        if video.content is not None and not video.cut:
            group = first.setdefault(video.content, video).group
            if video.group != group:
                joined = members.pop(video.group)
                members[group] += joined
                for other in joined:
                    other.group = group
    chosen = choose_validation([v.label for v in videos], [v.group for v in videos], share, seed)
    train, val = ([v for v, choice in zip(videos, chosen, strict=True) if choice is side] for side in (False, True))
    if not val:
        raise InputError("no class has two videos (or groups of --group-by) to divide; leave out --val-share")
    one_side = {video.label for video in train} ^ {video.label for video in val}
    return train, val, {"train": len(train), "val": len(val), "groups": len(members), "one_side": sorted(one_side)}


def choose_validation(labels: Sequence[str], groups: Sequence[str], share: float, seed: int) -> list[bool]:
    """Return for each video whether it is for validation: about the share of every class, and no group is divided.

    Groups are visited in an order that depends on the seed and their names. A group changes its side if that brings the
    numbers of its classes nearer to their share. A class of several groups gets a video on each side if that is
    possible. A class of one group is for training.
    """
    members: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        members[group][label] += 1
    listed, num_groups = Counter(labels), Counter(label for counts in members.values() for label in counts)

    def cost(label: str, count: int, both_sides: bool = True) -> float:
        total = listed[label]
        empty = count == total or (count == 0 and num_groups[label] > 1)
        return (count - share * total) ** 2 / total + (_EMPTY_SIDE if both_sides and empty else 0)

    def choose(order: Sequence[str]) -> tuple[float, set[str]]:
        chosen: Counter[str] = Counter()
        validation: set[str] = set()
        # The first pass ignores empty sides; otherwise the first group would be taken even if it is far too large.
        for both_sides in (False, *[True] * _MAX_PASSES):
            before = set(validation)
            for group in order:
                sign = -1 if group in validation else 1
                new = {label: chosen[label] + sign * count for label, count in members[group].items()}
                if sum(cost(name, new[name], both_sides) - cost(name, chosen[name], both_sides) for name in new) < 0:
                    validation ^= {group}
                    chosen.update({label: new[label] - chosen[label] for label in new})
            if both_sides and validation == before:
                break
        return sum(cost(label, chosen[label]) for label in listed), validation

    best: tuple[float, set[str]] = (math.inf, set())
    for attempt in range(_MAX_ATTEMPTS):
        order = sorted(members, key=lambda group: hashlib.sha256(repr((seed, attempt, group)).encode()).digest())
        best = min(best, choose(order), key=lambda outcome: outcome[0])
        if best[0] < _EMPTY_SIDE:
            break
    return [group in best[1] for group in groups]
