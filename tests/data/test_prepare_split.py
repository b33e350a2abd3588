"""The division of `prepare --val-share`: shares, groups, copies, and classes that cannot be divided."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from dnl_video.data.list_file import Row
from dnl_video.data.prepare_list import CheckedVideo, PrepareOptions
from dnl_video.data.prepare_split import choose_validation, divide, name_groups
from dnl_video.errors import InputError


def divided(sizes: dict[str, list[int]], share: float, seed: int = 0) -> dict[str, tuple[int, int]]:
    """Divide classes with groups of these sizes; return (training, validation) videos by class."""
    videos = [(name, f"{name}{i}") for name, groups in sizes.items() for i, n in enumerate(groups) for _ in range(n)]
    chosen = choose_validation(*zip(*videos, strict=True), share, seed)
    count = Counter((name, side) for (name, _), side in zip(videos, chosen, strict=True))
    return {name: (count[name, False], count[name, True]) for name in sizes}


@pytest.mark.parametrize(
    ("groups", "share", "expected"),
    [
        ([1] * 50, 0.2, (40, 10)),
        ([1] * 7, 0.2, (6, 1)),
        ([1, 1], 0.2, (1, 1)),
        ([1, 1], 0.9, (1, 1)),
        ([1], 0.9, (1, 0)),
        ([9], 0.5, (9, 0)),
        ([40, 3, 3, 4], 0.2, (40, 10)),
        ([40, 10], 0.4, (40, 10)),
        ([30, 30], 0.1, (30, 30)),
    ],
)
def test_number_of_videos_on_each_side_of_a_class(groups: list[int], share: float, expected: tuple[int, int]) -> None:
    for seed in range(5):
        assert divided({"other": [1] * 10, "class": groups}, share, seed)["class"] == expected


def test_the_seed_chooses_and_the_order_of_the_list_does_not_matter() -> None:
    labels, groups = [f"class {i % 4}" for i in range(40)], [f"video {i}" for i in range(40)]
    first = choose_validation(labels, groups, 0.25, 0)
    assert choose_validation(labels, groups, 0.25, 0) == first
    assert choose_validation(labels[::-1], groups[::-1], 0.25, 0) == first[::-1]
    assert choose_validation(labels, groups, 0.25, 1) != first


def test_most_videos_keep_their_side_when_videos_are_added() -> None:
    names = [f"video {i}" for i in range(400)]
    old = choose_validation(["class"] * 200, names[:200], 0.2, 0)
    new = choose_validation(["class"] * 400, names, 0.2, 0)[:200]
    assert sum(map(int.__eq__, old, new)) > 150


def test_groups_of_several_classes_against_all_divisions() -> None:
    rng = random.Random(0)
    feasible = 0
    for seed in range(300):
        videos = [(f"class {rng.randrange(4)}", f"group {i % 6}") for i in range(rng.randint(6, 18))]
        labels, groups = zip(*videos, strict=True)
        chosen = choose_validation(labels, groups, 0.3, seed)
        validation = {group for group, side in zip(groups, chosen, strict=True) if side}
        assert chosen == [group in validation for group in groups], "no group is divided"
        owned = defaultdict(set)
        for label, group in videos:
            owned[label].add(group)

        def good(side: set[str], owned: dict[str, set[str]] = owned) -> bool:
            return all(mine - side and (mine & side or len(mine) == 1) for mine in owned.values())

        subsets = itertools.chain(*(itertools.combinations(set(groups), n) for n in range(7)))
        if any(good(set(subset)) for subset in subsets):
            feasible += 1
            assert good(validation)
    assert feasible > 200


def videos_at(*paths: str, content: dict[str, tuple[int, str]] | None = None) -> list[CheckedVideo]:
    made = []
    for path in paths:
        label = path.split("/")[0]
        made.append(CheckedVideo(Row("list", path, path, f"/videos/{path}", label), label, f"/videos/{path}"))
        made[-1].content = (content or {}).get(path)
    return made


@pytest.mark.parametrize(
    ("pattern", "paths", "groups"),
    [
        (r"(v_.+_g\d+)_c\d+", ("a/v_X_g01_c01.avi", "a/v_X_g01_c02.avi", "a/v_X_g02_c01.avi"), (0, 0, 1)),
        (r"([^/]+)_\d+_\d+\.", ("a/-x_9_000010_000020.mp4", "b/-x_9_000030_000040.mp4", "a/y_1_2.mp4"), (0, 0, 1)),
        (r"(.+)/", ("a/1/x.mp4", "a/1/y.mp4", "a/2/x.mp4"), (0, 0, 1)),
        (None, ("a/x_1.mp4", "a/x_2.mp4"), (0, 1)),
    ],
)
def test_the_pattern_names_groups(pattern: str | None, paths: tuple[str, ...], groups: tuple[int, ...]) -> None:
    videos = videos_at(*paths)
    assert name_groups(videos, Path("/videos"), pattern) == ()
    names = [video.group for video in videos]
    assert tuple(list(dict.fromkeys(names)).index(name) for name in names) == groups


def test_paths_that_the_pattern_does_not_match() -> None:
    videos = videos_at("a/s1_1.mp4", "a/s1_2.mp4", "a/other.mp4", "b/1")
    notes = name_groups(videos, Path("/videos"), r"(s\d+)_")
    assert notes == ("--group-by does not match 2 paths, each a group of its own, for example a/other.mp4",)
    assert len({video.group for video in videos}) == 3
    with pytest.raises(InputError, match=r"^--group-by \(x\)\(\?=y\) matches no path, for example a/s1_1\.mp4; give"):
        name_groups(videos, Path("/videos"), "(x)(?=y)")


def test_copies_stay_together_with_the_groups_of_both() -> None:
    paths = [f"a/{group}_{clip}.mp4" for group in "pqrs" for clip in "12"]
    same = (9, "sha")
    for seed in range(8):
        videos = videos_at(*paths, content={"a/p_1.mp4": same, "a/q_2.mp4": same, "a/r_1.mp4": (9, "other")})
        name_groups(videos, Path("/videos"), "([pqrs])_")
        train, val, numbers = divide(videos, 0.5, seed)
        assert numbers == {"train": 4, "val": 4, "groups": 3, "one_side": []}
        assert [sum(video.row.path[10] in "pq" for video in side) for side in (train, val)] in ([4, 0], [0, 4])


def test_a_list_without_a_possible_validation_video_is_an_error() -> None:
    videos = videos_at("a/1.mp4", "b/1.mp4")
    name_groups(videos, Path("/videos"), None)
    with pytest.raises(InputError, match=r"^no class has two videos .*; leave out --val-share"):
        divide(videos, 0.2, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_share": 0.0}, "val_share is 0.0; give a number in [0.01, 0.9], or null"),
        ({"group_by": "(a)"}, "--group-by is for --val-share; give that too, for example 0.2"),
        *(
            (
                {"group_by": pattern, "val_share": 0.2},
                f"--group-by is {pattern}; give a regular expression with one group (...)",
            )
            for pattern in ("a", "(a", "(a)(b)")
        ),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        PrepareOptions("videos", "out.csv", **options)
    assert str(error.value) == message
