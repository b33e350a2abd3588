"""ModelSpec and Preprocessing: round trip through JSON, and the message of every refused value."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from dnl_video.errors import InputError, nearest
from dnl_video.spec import ContextOptions, ModelSpec, Preprocessing, differences, from_dict, to_dict

OPTIONS = ContextOptions(
    positions={"res3": [1, 3], "res5": [0]},
    inner_ratio=0.25,
    value_ratio=0.75,
    attention="dot_product",
    scaled=False,
    temperature=0.1,
    learned_temperature=True,
    pool=(2, 2, 2),
    pool_order="after",
    bias=True,
    output="conv",
    gc_ratio=0.0625,
    zero_init=False,
    checkpoint=True,
)
SPECS = [
    ModelSpec(),
    ModelSpec("slowfast_r101", "pairwise", 12, "global", 16, 0.0, False, context_options=OPTIONS),
    ModelSpec("i3d_r50", stem_strides=(2, 2), context_options=ContextOptions(pool=None, whiten_over="frame")),
    ModelSpec("slowfast_r50", slow_alpha=8, slow_frames="strided", fusion_kernel=5, fusion="conv"),
    Preprocessing(),
    Preprocessing(32, 2, 29.97, "pyslowfast", "loop", 256, 224, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)),
    ContextOptions(),
    OPTIONS,
]


@pytest.mark.parametrize("spec", SPECS)
def test_round_trip_through_json(spec):
    plain = to_dict(spec)
    assert from_dict(type(spec), plain) == spec
    assert json.loads(json.dumps(plain)) == plain
    assert from_dict(type(spec), json.loads(json.dumps(plain))) == spec
    assert list(plain) == [f.name for f in dataclasses.fields(spec)]


def test_every_field_survives_the_round_trip():
    # One field at a time, or equal defaults could hide a field that is dropped.
    for changed in (SPECS[1], SPECS[2], SPECS[3], SPECS[5], OPTIONS):
        for f in dataclasses.fields(changed):
            spec = dataclasses.replace(type(changed)(), **{f.name: getattr(changed, f.name)})
            if f.name == "crop_size":
                spec = dataclasses.replace(spec, crop_size=128)
            if getattr(changed, f.name) != getattr(type(changed)(), f.name):
                assert spec != type(changed)(), f.name
            assert from_dict(type(spec), json.loads(json.dumps(to_dict(spec)))) == spec, f.name


def test_missing_keys_take_their_defaults():
    assert from_dict(ModelSpec, {}) == ModelSpec()
    assert from_dict(ModelSpec, {"context_options": {"pool": None}}).context_options == ContextOptions(pool=None)


def test_specs_are_frozen_and_to_dict_copies():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPECS[0].num_classes = 3
    plain = to_dict(OPTIONS)
    plain["positions"]["res3"].append(2)
    assert OPTIONS.positions == {"res3": [1, 3], "res5": [0]}


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (Preprocessing(), "Preprocessing(num_frames=8, frame_stride=8)"),
        (Preprocessing(crop_size=224), "Preprocessing(num_frames=8, frame_stride=8, crop_size=224)"),
        (
            ModelSpec(context_options=ContextOptions(pool=None)),
            "ModelSpec(architecture='slow_r50', context='dnl', context_options=ContextOptions(positions=None, "
            "inner_ratio=0.5, pool=None))",
        ),
    ],
)
def test_a_printed_spec_is_short_and_rebuilds_it(spec, text):
    assert repr(spec) == text
    assert eval(text) == spec


@pytest.mark.parametrize(
    ("kind", "values", "named", "key", "similar"),
    [
        (ModelSpec, {"architectur": "slow_r50"}, ModelSpec, "architectur", "architecture"),
        (ModelSpec, {"context_options": {"temprature": 1}}, ContextOptions, "temprature", "temperature"),
        (Preprocessing, {"zzz": 1}, Preprocessing, "zzz", ""),
    ],
)
def test_unknown_keys_are_refused(kind, values, named, key, similar):
    with pytest.raises(InputError) as error:
        from_dict(kind, values)
    allowed = ", ".join(f.name for f in dataclasses.fields(named))
    hint = f"; did you mean {similar!r}?" if similar else ""
    assert str(error.value) == f"unknown key {key!r} in {named.__name__}; allowed: {allowed}{hint}"


REFUSED = {
    ModelSpec: [
        (
            {"architecture": "slowr50"},
            "architecture is 'slowr50'; allowed: slow_r50, slow_r101, i3d_r50, i3d_r101, slowfast_r50, "
            "slowfast_r101, c2d_r50, c2d_r101; did you mean 'slow_r50'?",
        ),
        ({"context": "cbam"}, "context is 'cbam'; allowed: none, nl, dnl, pairwise, unary, snl, gc"),
        (
            {"head": "dense_logit"},
            "head is 'dense_logit'; allowed: dense_logits, dense_probabilities, global; did you mean 'dense_logits'?",
        ),
        (
            {"head": "globl"},
            "head is 'globl'; allowed: dense_logits, dense_probabilities, global; did you mean 'global'?",
        ),
        ({"num_classes": 0}, "num_classes is 0; give a whole number in [1, 100000] or auto"),
        ({"num_classes": "many"}, "num_classes is 'many'; give a whole number in [1, 100000] or auto"),
        ({"stem_channels": 12}, "stem_channels is 12; give a multiple of 8 (published networks: 64)"),
        ({"stem_channels": 0}, "stem_channels is 0; give a whole number in [8, 1024]"),
        ({"dropout": 1.0}, "dropout is 1.0; give a number in [0, 1)"),
        (
            {"architecture": "i3d_r50", "stem_strides": (2, 0)},
            "stem_strides is [2, 0]; give a list of 2 whole numbers in [1, 8]",
        ),
        ({"architecture": "slowfast_r50", "stem_strides": (2, 2)}, "stem_strides is [2, 2]; slowfast_r50 needs [1, 1]"),
        ({"fusion": "conv_bn"}, "fusion is 'conv_bn'; allowed: conv_bn_relu, conv"),
        ({"dropout": -0.1}, "dropout is -0.1; give a number in [0, 1)"),
    ],
    ContextOptions: [
        ({"inner_ratio": 0}, "inner_ratio is 0; give a number in (0, 1]"),
        ({"inner_ratio": 1.5}, "inner_ratio is 1.5; give a number in (0, 1]"),
        ({"temperature": 0.0}, "temperature is 0.0; give a number in [0.0001, 10000], or null"),
        ({"pool": (1, 0, 2)}, "pool is [1, 0, 2]; give a list of 3 whole numbers in [1, 64], or null"),
        ({"pool": (2, 2)}, "pool is [2, 2]; give a list of 3 whole numbers in [1, 64], or null"),
        ({"pool": ()}, "pool is []; give a list of 3 whole numbers in [1, 64], or null"),
        (
            {"pool": (2, 2, 2), "whiten_over": "frame"},
            "pool [2, 2, 2] mixes frames; whiten_over: frame needs a pool of 1 along T, or null",
        ),
        (
            {"attention": "gausian"},
            "attention is 'gausian'; allowed: embedded_gaussian, gaussian, dot_product, concatenation; did you "
            "mean 'gaussian'?",
        ),
        ({"gc_ratio": 0.0}, "gc_ratio is 0.0; give a number in (0, 1]"),
        (
            {"output": "gamma", "value_ratio": 0.5},
            "value_ratio is 0.5; output: gamma has no projection and needs 1, or null",
        ),
        ({"pool_order": "first"}, "pool_order is 'first'; allowed: before, after"),
        ({"whiten_over": "frames"}, "whiten_over is 'frames'; allowed: space_time, frame; did you mean 'frame'?"),
    ],
    Preprocessing: [
        ({"sampling": "strided"}, "sampling is 'strided'; allowed: stride, pyslowfast; did you mean 'stride'?"),
        ({"past_end": "repeat"}, "past_end is 'repeat'; allowed: repeat_last, loop"),
        ({"num_frames": 0}, "num_frames is 0; give a whole number in [1, 1024]"),
        ({"frame_stride": -1}, "frame_stride is -1; give a whole number in [1, 100000]"),
        ({"short_side": 0, "crop_size": 1}, "short_side is 0; give a whole number in [1, 4096]"),
        ({"crop_size": 0}, "crop_size is 0; give a whole number in [1, 4096]"),
        ({"short_side": 224}, "crop_size 256 exceeds short_side 224; the crop must fit inside"),
        ({"target_fps": 0.0}, "target_fps is 0.0; give a number in [0.001, 10000], or null"),
        ({"std": (0.2, 0.0, 0.2)}, "std is [0.2, 0.0, 0.2]; give a list of 3 numbers in [0.0001, 1000]"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "values", "message"), [(kind, *case) for kind, cases in REFUSED.items() for case in cases]
)
def test_values_that_are_not_allowed(kind, values, message):
    for build in (lambda: kind(**values), lambda: from_dict(kind, json.loads(json.dumps(values)))):
        with pytest.raises(InputError) as error:
            build()
        assert str(error.value) == message


@pytest.mark.parametrize("attention", ["dot_product", "concatenation"])
def test_a_learned_temperature_needs_a_softmax(attention):
    options = ContextOptions(attention=attention, learned_temperature=True)
    message = f"^learned_temperature needs a softmax; attention {attention} has none$"
    with pytest.raises(InputError, match=message):
        ModelSpec(context="nl", context_options=options)
    # Attention is an option of nl alone.
    assert ModelSpec(context="dnl", context_options=options).context == "dnl"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ModelSpec, {"num_classes": 1, "stem_channels": 8, "dropout": 0.0}),
        (ContextOptions, {"inner_ratio": 1.0, "temperature": 1e-3, "pool": (1, 1, 1)}),
        (Preprocessing, {"num_frames": 1, "frame_stride": 1, "short_side": 1, "crop_size": 1}),
    ],
)
def test_bounds_are_allowed(kind, values):
    assert dataclasses.asdict(kind(**values)).items() >= values.items()


@pytest.mark.parametrize(
    ("value", "allowed", "hints"),
    [
        ("qqq", ["slow", "fast"], []),
        ("slo", ["slow", "fast"], ["slow"]),
        ("dln", ["none", "nl", "dnl"], ["dnl"]),  # two letters changed places
        ("nn", ["none", "gc"], []),  # more than one letter of two differs
        ("schedull", ["schedule"], ["schedule"]),
        ("shedull", ["schedule"], ["schedule"]),
        ("shedul", ["schedule"], ["schedule"]),
        ("shedu", ["schedule"], []),  # three letters are missing
        ("Riding_a Bike", ["riding a horse", "riding a bike"], ["riding a bike"]),
        ("--trainer.patiense", ["--trainer.devices", "--trainer.precision"], []),
        ("--lr", ["--seed", "--optim.lr", "--optim.lr_batch"], ["--optim.lr"]),
        ("--data.lr", ["--seed", "--optim.lr"], ["--optim.lr"]),
        ("num_workers", ["data.num_workers", "evaluation.num_workers"], ["data.num_workers", "evaluation.num_workers"]),
        ("head.weight", [f"blocks.{i}.weight" for i in range(4)], []),  # too many share the last part
        ("", ["a"], []),
        ("a", [], []),
    ],
)
def test_hints_are_near_names(value, allowed, hints):
    assert nearest(value, allowed) == (f"; did you mean {' or '.join(map(repr, hints))}?" if hints else "")


def test_spec_loads_no_torch():
    code = "import sys, dnl_video.spec; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_differences_are_named_by_section() -> None:
    old, new = {"a": {"b": 1, "c": [2]}, "gone": 3, "same": 0}, {"same": 0, "a": {"b": 4, "c": [2]}, "d": {"e": 5}}
    assert differences(old, new) == {"a.b": (1, 4), "d": (None, {"e": 5}), "gone": (3, None)}
