"""Types and ranges of the fields of every config, in Python; tests/cli/test_train.py checks recipes."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from dnl_video import config
from dnl_video.data.prepare_list import PrepareOptions
from dnl_video.errors import InputError
from dnl_video.spec import ContextOptions, ModelSpec, Preprocessing
from dnl_video.studies.plan import StudyConfig

KINDS = [getattr(config, name) for name in vars(config) if name.endswith("Config")]
KINDS += [ContextOptions, ModelSpec, Preprocessing, PrepareOptions, StudyConfig]
REQUIRED = {PrepareOptions: {"videos": "v", "output": "m.csv"}, StudyConfig: {"recipe": "i3d_dnl"}}
NUMBERS: list[Any] = [float("nan"), float("inf"), float("-inf"), 1e30, 10**30]


def numeric_fields() -> list[tuple[type, str, Any]]:
    """Return every field that holds numbers: its class, name and the type of its numbers (in a list: of an element)."""
    found = []
    for kind in KINDS:
        for field in dataclasses.fields(kind):
            hint = get_type_hints(kind)[field.name]
            options = [hint, *get_args(hint)] if get_origin(hint) not in (tuple, dict) else [hint]
            found += [(kind, field.name, o) for o in options if o in (int, float) or "tuple[int" in str(o)]
            found += [(kind, field.name, o) for o in options if "tuple[float" in str(o)]
    return found


def refusal(kind: type, **values: Any) -> str:
    with pytest.raises(InputError) as refused:
        kind(**(REQUIRED.get(kind, {}) | values))
    return str(refused.value)


@pytest.mark.parametrize(("kind", "name", "hint"), numeric_fields())
def test_numbers_have_a_type_and_a_range(kind: type, name: str, hint: Any) -> None:
    elements = get_args(hint)
    size = 0 if not elements else 2 if elements[-1] is Ellipsis else len(elements)
    wrong = [(value,) * size if size else value for value in NUMBERS]
    wrong += [True, "0.1", {"a": 1}, (), (1, 2, 3, 4, 5)][: 3 if elements and elements[-1] is Ellipsis else 5]
    if name != "seed":
        wrong.append((10**9,) * size if size and name != "seeds" else -(10**9))
    if "int" in str(hint):
        wrong.append((1.5,) * size if size else 1.5)
    if type(None) not in get_args(get_type_hints(kind)[name]):
        wrong.append(None)
    for value in wrong:
        shown = "null" if value is None else repr(list(value) if isinstance(value, tuple) else value)
        section, _, message = refusal(kind, **{name: value}).rpartition(f"{name} is {shown}; give ")
        assert section in ("", f"{kind.__name__.removesuffix('Config').lower()}."), value
        assert " number" in message, value


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (config.DataConfig, {"batch_size": 0}, "data.batch_size is 0; give a whole number in [1, 4096]"),
        (config.DataConfig, {"train_manifest": None}, "data.train_manifest is null; give text"),
        (config.OptimConfig, {"lr": 1e-300}, "optim.lr is 1e-300; give a number in [1e-12, 1000]"),
        (config.OptimConfig, {"freeze_batch_norm": "no"}, "optim.freeze_batch_norm is 'no'; give true or false"),
        (
            config.OptimConfig,
            {"milestones": (5, "x")},
            "optim.milestones is [5, 'x']; give a list of numbers in (0, 100000]",
        ),
        (
            config.TrainerConfig,
            {"devices": "all"},
            "trainer.devices is 'all'; give a whole number in [1, 1024] or auto",
        ),
        (config.ViewsConfig, {"num_crops": True}, "num_crops is True; allowed: 1, 3"),
        (config.WeightsConfig, {"allow_missing": "head"}, "weights.allow_missing is 'head'; give a list of text"),
        (config.TrainConfig, {"model": {}}, "model is {}; give ModelSpec"),
        (ContextOptions, {"positions": {"res3": [-1]}}, "positions is {'res3': [-1]}; give a mapping, or null"),
        (StudyConfig, {"seeds": (-1,)}, "seeds is [-1]; give a list of whole numbers in [0, 4294967295]"),
    ],
)
def test_messages(kind: type, values: dict[str, Any], message: str) -> None:
    assert refusal(kind, **values) == message


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (config.OptimConfig, {"lr": 1, "momentum": 0, "ema_decay": None, "milestones": [3, 5.5]}),
        (config.AugmentConfig, {"mixup": 0, "cutmix": 0.001, "crop_area": (0.001, 1)}),
        (config.TrainerConfig, {"gradient_clip_val": 0, "devices": "auto"}),
        (config.TrainConfig, {"seed": 2**32 - 1}),
        (config.EvaluationConfig, {"num_workers": 0, "num_clips": 10000}),
        (ContextOptions, {"positions": {"res3": [0, 1]}, "pool": [1, 1, 1]}),
    ],
)
def test_values_at_the_bounds_are_allowed(kind: type, values: dict[str, Any]) -> None:
    made = kind(**values)
    assert {name: getattr(made, name) for name in values} == values
