from __future__ import annotations

import csv

import numpy as np
import pytest

from dnl_video.errors import InputError
from dnl_video.results.predictions import VideoPrediction
from dnl_video.results.reader import iter_predictions
from dnl_video.results.tables import iter_in_order, merging, write_top_classes
from tests.results.test_predictions_directory import NAMES, failed, make_video, without_locks, write  # noqa: F401


def scored(video_id: str, *scores: float) -> VideoPrediction:
    return VideoPrediction(video_id, f"{video_id}.mp4", num_views=1, scores=np.array(scores, np.float32))


def test_best_classes_come_in_the_order_of_the_list(tmp_path):
    write(tmp_path, [scored("c", 0.1, 0.2, 0.7), failed(0, "no, frames")], rank=1)
    write(tmp_path, [scored("a", 0.5, 0.3, 0.2), scored("b", 0.25, 0.5, 0.25)])
    found = list(iter_in_order(tmp_path, ["b", "v000", "c", "a"]))
    assert [video.video_id for video in found] == ["b", "v000", "c", "a"]
    assert [video.error for video in found] == [None, "no, frames", None, None]
    found[1].path, found[3].path = 'odd "x", y.mp4', "\udce9.mp4"
    # Of equal scores (b) the lower class comes first.
    write_top_classes(tmp_path / "out.csv", found, NAMES, 2)
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines() == [
        "video,class_1,score_1,class_2,score_2,error",
        "b.mp4,jump,0.500000,run,0.250000,",
        '"odd ""x"", y.mp4",,,,,"no, frames"',
        "c.mp4,sit,0.700000,jump,0.200000,",
        "\\udce9.mp4,run,0.500000,jump,0.300000,",
    ]
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [len(row) for row in csv.reader(file)] == [6] * 5


def test_more_classes_than_exist(tmp_path):
    write(tmp_path, [scored("a", 0.5, 0.3, 0.2)])
    write_top_classes(tmp_path / "out.csv", iter_in_order(tmp_path, ["a"]), NAMES, 10)
    row = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[1]
    assert row == "a.mp4,run,0.500000,jump,0.300000,sit,0.200000,"


def test_another_list_is_refused(tmp_path):
    write(tmp_path, [scored("a", 0.5, 0.3, 0.2)])
    with pytest.raises(InputError, match="holds 'a', which is not in the list; give the list that was predicted"):
        list(iter_in_order(tmp_path, ["b"]))
    with pytest.raises(InputError, match="holds 1 of 2 listed videos; run the same command again"):
        list(iter_in_order(tmp_path, ["b", "a"]))


def test_iteration_gives_every_video_without_corrected_failures(tmp_path):
    write(tmp_path, [make_video(0), failed(1), failed(2)], flush_every=1)
    write(tmp_path, [make_video(1, num_clips=3)], rank=1)
    found = {video.video_id: video for video in iter_predictions(tmp_path, clip_scores=True)}
    assert sorted(found) == ["v000", "v001", "v002"]
    for i, num_clips in ((0, 2), (1, 3)):
        expected = make_video(i, num_clips=num_clips)
        for name in ("scores", "clip_scores", "clip_start_s", "clip_end_s"):
            np.testing.assert_array_equal(getattr(found[f"v{i:03d}"], name), getattr(expected, name))
    assert found["v002"].scores is None
    assert found["v002"].error == "no frames"
    assert all(video.clip_scores is None for video in iter_predictions(tmp_path))


def test_the_same_shards_are_merged_once(tmp_path):
    write(tmp_path, [make_video(0)])
    with merging(tmp_path, "top 5") as needed:
        assert needed
    with merging(tmp_path, "top 5") as needed:
        assert not needed
    with merging(tmp_path, "top 3") as needed:
        assert needed
    write(tmp_path, [make_video(1)])
    with pytest.raises(KeyboardInterrupt), merging(tmp_path, "top 3") as needed:  # noqa: PT012
        assert needed
        raise KeyboardInterrupt
    with merging(tmp_path, "top 3") as needed:
        assert needed, "an interrupted merge does not count"


@pytest.mark.usefixtures("without_locks")
def test_merging_without_locks(tmp_path):
    write(tmp_path, [make_video(0)])
    with merging(tmp_path, "") as needed:
        assert needed
