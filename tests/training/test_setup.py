"""`model.num_classes: auto`: the number of classes of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dnl_video.config import DataConfig, TrainConfig
from dnl_video.errors import InputError
from dnl_video.models.build import build_model
from dnl_video.spec import ModelSpec
from dnl_video.training.setup import resolve_classes


@pytest.mark.parametrize(
    ("files", "data", "classes"),
    [
        ({"a/1.mp4": "", "b/1.mp4": "", "c/x/1.mp4": ""}, {"train_manifest": "."}, 3),
        ({"list.txt": "1.mp4 0\n2.mp4 5\n"}, {"train_manifest": "list.txt"}, 6),
        ({"list.txt": "1.mp4 0\n2.mp4 5\n"}, {"train_manifest": "list.txt", "limit_videos": 1}, 6),
        ({"list.csv": "path,label\n1.mp4,run\n2.mp4,hop\n"}, {"train_manifest": "list.csv"}, 2),
        ({"list.csv": "path,label,split\n1.mp4,x,train\n2.mp4,y,val\n"}, {"train_manifest": "list.csv"}, 1),
        ({"list.csv": "path,label\n1.mp4,archery\n"}, {"train_manifest": "list.csv", "class_list": "kinetics600"}, 600),
        (
            {"trainlist01.txt": "Hop/v_Hop_g08_c01.avi 2\n", "classInd.txt": "1 Sit\n2 Hop\n3 Run\n"},
            {"train_manifest": "trainlist01.txt"},
            3,
        ),
    ],
)
def test_auto_counts_the_class_list_or_the_training_list(files, data, classes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    config = TrainConfig(model=ModelSpec(num_classes="auto"), data=DataConfig(**data))
    resolved = resolve_classes(config)
    assert resolved == dataclasses.replace(config, model=ModelSpec(num_classes=classes))
    assert resolve_classes(resolved) is resolved


def test_auto_needs_a_training_list():
    with pytest.raises(InputError, match=r"^data\.train_manifest is not set; give"):
        resolve_classes(TrainConfig(model=ModelSpec(num_classes="auto")))


def test_a_network_needs_a_number():
    with pytest.raises(InputError, match=r"^num_classes is auto, which only a training can resolve; give a number"):
        build_model(ModelSpec(num_classes="auto"))
