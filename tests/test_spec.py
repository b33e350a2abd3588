"""ModelSpec and Preprocessing: round trip through JSON, and the message of every refused value."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from dnl_video.errors import InputError, nearest
from dnl_video.spec import ContextOptions, ModelSpec, Preprocessing, from_dict, to_dict

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
    ("kind", "values", "message"),
    [
        (
            ModelSpec,
            {"architectur": "slow_r50"},
            "unknown key 'architectur' in ModelSpec; allowed: architecture, context, num_classes, head, stem_channels, "
            "dropout, zero_init_residual, slow_alpha, slow_frames, fusion_kernel, fusion, stem_strides, "
            "context_options; did you mean 'architecture'?",
        ),
        (
            ModelSpec,
            {"context_options": {"temprature": 1}},
            "unknown key 'temprature' in ContextOptions; allowed: positions, inner_ratio, value_ratio, "
            "attention, scaled, temperature, learned_temperature, pool, pool_order, whiten_over, bias, output, "
            "gc_ratio, zero_init, checkpoint; did you mean 'temperature'?",
        ),
        (
            Preprocessing,
            {"zzz": 1},
            "unknown key 'zzz' in Preprocessing; allowed: num_frames, frame_stride, target_fps, sampling, past_end, "
            "short_side, crop_size, mean, std, channel_order",
        ),
        (
            ModelSpec,
            {"head": "globl"},
            "head is 'globl'; allowed: dense_logits, dense_probabilities, global; did you me",
        ),
    ],
)
def test_from_dict_refuses_unknown_keys_and_values(kind, values, message):
    with pytest.raises(InputError) as error:
        from_dict(kind, values)
    assert str(error.value).startswith(message)
    if "did you" not in message:
        assert str(error.value) == message


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (
            ModelSpec,
            {"architecture": "slowr50"},
            "architecture is 'slowr50'; allowed: slow_r50, slow_r101, i3d_r50, i3d_r101, slowfast_r50, slowfast_r101, "
            "c2d_r50, c2d_r101; did you mean 'slow_r50'?",
        ),
        (ModelSpec, {"context": "cbam"}, "context is 'cbam'; allowed: none, nl, dnl, pairwise, unary, snl, gc"),
        (
            ModelSpec,
            {"head": "dense_logit"},
            "head is 'dense_logit'; allowed: dense_logits, dense_probabilities, global; did you mean 'dense_logits'?",
        ),
        (ModelSpec, {"num_classes": 0}, "num_classes is 0; give at least 1"),
        (
            ModelSpec,
            {"stem_channels": 12},
            "stem_channels is 12; give a multiple of 8 (published networks: 64)",
        ),
        (ModelSpec, {"stem_channels": 0}, "stem_channels is 0; give a multiple of 8 (published networks: 64)"),
        (ModelSpec, {"dropout": 1.0}, "dropout is 1.0; give a number in [0, 1)"),
        (
            ModelSpec,
            {"architecture": "i3d_r50", "stem_strides": (2, 0)},
            "stem_strides is [2, 0]; give two numbers of at least 1, as [1, 1]",
        ),
        (
            ModelSpec,
            {"architecture": "slowfast_r50", "stem_strides": (2, 2)},
            "stem_strides is [2, 2]; slowfast_r50 needs [1, 1]",
        ),
        (
            ModelSpec,
            {"fusion": "conv_bn"},
            "fusion is 'conv_bn'; allowed: conv_bn_relu, conv; did you mean 'conv_bn_relu'?",
        ),
        (ModelSpec, {"dropout": -0.1}, "dropout is -0.1; give a number in [0, 1)"),
        (ContextOptions, {"inner_ratio": 0}, "inner_ratio is 0; give a number in (0, 1]"),
        (ContextOptions, {"inner_ratio": 1.5}, "inner_ratio is 1.5; give a number in (0, 1]"),
        (
            ContextOptions,
            {"temperature": 0.0},
            "temperature is 0.0; give a number above 0, or null",
        ),
        (
            ContextOptions,
            {"pool": (1, 0, 2)},
            "pool is [1, 0, 2]; give three sizes (T, H, W) of at least 1, or null",
        ),
        (ContextOptions, {"pool": (2, 2)}, "pool is [2, 2]; give three sizes (T, H, W) of at least 1, or null"),
        (ContextOptions, {"pool": ()}, "pool is []; give three sizes (T, H, W) of at least 1, or null"),
        (
            ContextOptions,
            {"pool": (2, 2, 2), "whiten_over": "frame"},
            "pool [2, 2, 2] mixes frames; whiten_over: frame needs a pool of 1 along T, or null",
        ),
        (
            ContextOptions,
            {"attention": "gausian"},
            "attention is 'gausian'; allowed: embedded_gaussian, gaussian, dot_product, concatenation; did you mean "
            "'gaussian'?",
        ),
        (ContextOptions, {"gc_ratio": 0.0}, "gc_ratio is 0.0; give a number in (0, 1]"),
        (
            ContextOptions,
            {"output": "gamma", "value_ratio": 0.5},
            "value_ratio is 0.5; output: gamma has no projection and needs 1, or null",
        ),
        (ContextOptions, {"pool_order": "first"}, "pool_order is 'first'; allowed: before, after"),
        (
            ContextOptions,
            {"whiten_over": "frames"},
            "whiten_over is 'frames'; allowed: space_time, frame; did you mean 'frame'?",
        ),
        (
            Preprocessing,
            {"sampling": "strided"},
            "sampling is 'strided'; allowed: stride, pyslowfast; did you mean 'stride'?",
        ),
        (
            Preprocessing,
            {"past_end": "repeat"},
            "past_end is 'repeat'; allowed: repeat_last, loop; did you mean 'repeat_last'?",
        ),
        (Preprocessing, {"num_frames": 0}, "num_frames is 0; give at least 1"),
        (Preprocessing, {"frame_stride": -1}, "frame_stride is -1; give at least 1"),
        (Preprocessing, {"short_side": 0, "crop_size": 1}, "short_side is 0; give at least 1"),
        (Preprocessing, {"crop_size": 0}, "crop_size is 0; give at least 1"),
        (
            Preprocessing,
            {"short_side": 224},
            "crop_size 256 exceeds short_side 224; the crop must fit inside",
        ),
        (Preprocessing, {"target_fps": 0.0}, "target_fps is 0.0; give a number above 0, or null"),
        (Preprocessing, {"std": (0.2, 0.0, 0.2)}, "std is [0.2, 0.0, 0.2]; give three numbers above 0"),
    ],
)
def test_values_that_are_not_allowed(kind, values, message):
    with pytest.raises(InputError) as error:
        kind(**values)
    assert str(error.value) == message
    with pytest.raises(InputError):
        from_dict(kind, json.loads(json.dumps(values)))


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
    assert (
        to_dict(kind(**values)).items()
        >= {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}.items()
    )


def test_nearest_is_empty_without_a_similar_word():
    assert nearest("qqq", ["slow", "fast"]) == ""
    assert nearest("slo", ["slow", "fast"]) == "; did you mean 'slow'?"


def test_spec_loads_no_torch():
    code = "import sys, dnl_video.spec; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
