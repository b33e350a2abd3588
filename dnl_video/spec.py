"""ModelSpec and Preprocessing, which every checkpoint and exported model stores. Standard library only."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dnl_video.errors import InputError, nearest

Architecture = Literal[
    "slow_r50", "slow_r101", "i3d_r50", "i3d_r101", "slowfast_r50", "slowfast_r101", "c2d_r50", "c2d_r101"
]
Context = Literal["none", "nl", "dnl", "pairwise", "unary", "snl", "gc"]
Similarity = Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"]
Output = Literal["conv_bn", "conv", "gamma"]
Head = Literal["dense_logits", "dense_probabilities", "global"]
SlowFrames = Literal["linspace", "strided"]
Fusion = Literal["conv_bn_relu", "conv"]
ChannelOrder = Literal["rgb", "bgr"]
Rounding = Literal["pyslowfast", "mmaction2"]


def _short_repr(spec: Any) -> str:
    """Return a spec as text: its first two fields, and those that do not have their default."""
    names, default = [f.name for f in dataclasses.fields(spec)], type(spec)()
    shown = [n for n in names if n in names[:2] or getattr(spec, n) != getattr(default, n)]
    return f"{type(spec).__name__}({', '.join(f'{n}={getattr(spec, n)!r}' for n in shown)})"


@dataclass(frozen=True)
class ContextOptions:
    """Options of the inserted context blocks.

    A context ignores the options that it does not have, so a recipe stays valid when only its context changes. `snl`
    and `gc` use positions, gc_ratio, zero_init and checkpoint only.

    Args:
        positions: Residual blocks that are followed by a context block, by stage, counted from 0, for example
            ``{res3: [1, 3], res4: [1, 3, 5]}``. null: the five blocks of video-nonlocal-net.
        inner_ratio: Channels of query, key and value as a share of the stage's channels.
        value_ratio: Channels of the value as a share of the stage's channels. null: inner_ratio; 1 for output gamma.
        attention: Similarity of `nl`: embedded_gaussian or gaussian (softmax), dot_product or concatenation (divided by
            the number of keys).
        scaled: Divide similarities by the square root of the inner channels.
        temperature: Softmax temperature of the pairwise term. null: 0.05 for dnl and pairwise, 1 for nl.
        learned_temperature: Learn the temperature, starting from `temperature`.
        pool: Max-pooling of keys, values and saliency over (T, H, W). null: no pooling.
        pool_order: Pool before or after the key, value and unary convolutions.
        whiten_over: Positions over which the means of query and key are taken: space_time, or frame (each frame alone).
        bias: Biases of query, key and saliency. null: true for nl; false for dnl, pairwise and unary, where whitening
            and softmax cancel them.
        output: conv_bn (projection and batch norm), conv (projection) or gamma (a scalar on the pairwise term and no
            projection; the unary term is active from the start).
        gc_ratio: Bottleneck of `gc` as a share of the stage's channels. Published values: 1/4 and 1/16.
        zero_init: Initialise the last layer of the block with zero (batch norm, projection or scalar; the last layer of
            snl and gc), so that an inserted block is the identity.
        checkpoint: Recompute the attention in the backward pass: less memory, more time.
    """

    positions: dict[str, list[int]] | None = None
    inner_ratio: float = 0.5
    value_ratio: float | None = None
    attention: Similarity = "embedded_gaussian"
    scaled: bool = True
    temperature: float | None = None
    learned_temperature: bool = False
    pool: tuple[int, int, int] | None = (1, 2, 2)
    pool_order: Literal["before", "after"] = "before"
    whiten_over: Literal["space_time", "frame"] = "space_time"
    bias: bool | None = None
    output: Output = "conv_bn"
    gc_ratio: float = 0.25
    zero_init: bool = True
    checkpoint: bool = False

    RANGES: ClassVar[dict[str, str]] = {
        "(0, 1]": "inner_ratio value_ratio gc_ratio",
        "[0.0001, 10000]": "temperature",
        "[1, 64]": "pool",
        "[0, 100]": "positions",
    }

    __repr__ = _short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        if self.output == "gamma" and self.value_ratio not in (None, 1):
            raise InputError(f"value_ratio is {self.value_ratio}; output: gamma has no projection and needs 1, or null")
        if self.pool is not None and self.pool[0] > 1 and self.whiten_over == "frame":
            raise InputError(
                f"pool {list(self.pool)} mixes frames; whiten_over: frame needs a pool of 1 along T, or null"
            )


@dataclass(frozen=True)
class ModelSpec:
    """A network that `create_model` can build.

    Args:
        architecture: Backbone of pytorchvideo.
        context: Block inserted into the backbone: none, nl (non-local), dnl (disentangled non-local), pairwise or unary
            (one term of dnl alone), snl (simplified non-local) or gc (GCNet).
        num_classes: Number of classes. auto (for training): that of the class list, or of the training list.
        head: Logits from the last features: dense_logits (pytorchvideo: average the logits of T x 7 x 7 windows),
            dense_probabilities (PySlowFast: softmax per window, then average) or global (mmaction2: one global average
            pooling).
        stem_channels: Channels of the stem. 64 is the published network; the rest of the backbone scales with it.
        dropout: Dropout rate before the classifier.
        zero_init_residual: Initialise the last batch norm of every residual block with zero (for training from
            scratch).
        slow_alpha: SlowFast only: ratio of the frame rates (published: 4 for 8x8, 8 for 4x16).
        slow_frames: SlowFast only: frames of the slow pathway. linspace: evenly from 0 to T - 1, truncated (PySlowFast,
            pytorchvideo). strided: every slow_alpha-th from the first (mmaction2).
        fusion_kernel: SlowFast only: temporal kernel of the lateral convolutions. null: 7 for R50, 5 for R101, as in
            pytorchvideo.
        fusion: SlowFast only: lateral connections: conv_bn_relu (PySlowFast, pytorchvideo) or conv (mmaction2).
        stem_strides: Temporal strides of the stem's convolution and max-pooling. mmaction2's I3D 32x2 has (2, 2).
            SlowFast needs (1, 1).
        context_options: Options of the inserted blocks.
    """

    architecture: Architecture = "slow_r50"
    context: Context = "dnl"
    num_classes: int | Literal["auto"] = 400
    head: Head = "dense_logits"
    stem_channels: int = 64
    dropout: float = 0.5
    zero_init_residual: bool = True
    slow_alpha: int = 4
    slow_frames: SlowFrames = "linspace"
    fusion_kernel: int | None = None
    fusion: Fusion = "conv_bn_relu"
    stem_strides: tuple[int, int] = (1, 1)
    context_options: ContextOptions = field(default_factory=ContextOptions)

    RANGES: ClassVar[dict[str, str]] = {
        "[1, 100000]": "num_classes",
        "[8, 1024]": "stem_channels",
        "[0, 1)": "dropout",
        "[1, 64]": "slow_alpha fusion_kernel",
        "[1, 8]": "stem_strides",
    }

    __repr__ = _short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        if self.stem_channels % 8:
            raise InputError(f"stem_channels is {self.stem_channels}; give a multiple of 8 (published networks: 64)")
        if self.fusion_kernel is not None and self.fusion_kernel % 2 == 0:
            raise InputError(f"fusion_kernel is {self.fusion_kernel}; give an odd number of frames, or null")
        if self.architecture.startswith("slowfast") and max(self.stem_strides) > 1:
            raise InputError(f"stem_strides is {list(self.stem_strides)}; {self.architecture} needs [1, 1]")
        attention = self.context_options.attention
        softmax = attention in ("embedded_gaussian", "gaussian")
        if self.context == "nl" and self.context_options.learned_temperature and not softmax:
            raise InputError(f"learned_temperature needs a softmax; attention {attention} has none")

    @property
    def outputs(self) -> int:
        """`num_classes` of a network; an error if it is auto."""
        if self.num_classes == "auto":
            raise InputError("num_classes is auto, which only a training can resolve; give a number")
        return self.num_classes


@dataclass(frozen=True)
class Preprocessing:
    """How frames become a clip, in training and in evaluation.

    Args:
        num_frames: Frames T of a clip.
        frame_stride: Distance between frames of a clip ("8x8" is num_frames 8, frame_stride 8).
        target_fps: Frame rate to which frame_stride refers; a variable rate is sampled by time. null: frames of the
            file are counted.
        sampling: stride (this package: exact spacing that reaches both ends of the video) or pyslowfast (PySlowFast's
            rule, for its weights).
        past_end: A clip longer than its video repeats the last frame (repeat_last) or starts again (loop).
        short_side: Short side in pixels to which evaluation resizes.
        crop_size: Side in pixels of the square crops in evaluation.
        mean: Mean of the input, whose range is [0, 1], in the channel order of the network.
        std: Standard deviation of the input, in the channel order of the network.
        channel_order: Channel order of the network: rgb, or bgr (some converted weights). Files are always decoded to
            rgb.
        antialias: Antialias when frames are made smaller. PySlowFast's and mmaction2's networks were trained without.
        rounding: Sizes and crops in evaluation: pyslowfast (long side rounded down, centre up) or mmaction2 (long side
            to the nearest pixel, centre down, last crop at twice the centre).
    """

    num_frames: int = 8
    frame_stride: int = 8
    target_fps: float | None = None
    sampling: Literal["stride", "pyslowfast"] = "stride"
    past_end: Literal["repeat_last", "loop"] = "repeat_last"
    short_side: int = 256
    crop_size: int = 256
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    channel_order: ChannelOrder = "rgb"
    antialias: bool = True
    rounding: Rounding = "pyslowfast"

    RANGES: ClassVar[dict[str, str]] = {
        "[1, 1024]": "num_frames",
        "[1, 100000]": "frame_stride",
        "[0.001, 10000]": "target_fps",
        "[1, 4096]": "short_side crop_size",
        "[-1000, 1000]": "mean",
        "[0.0001, 1000]": "std",
    }

    __repr__ = _short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        if self.crop_size > self.short_side:
            raise InputError(
                f"crop_size {self.crop_size} exceeds short_side {self.short_side}; the crop must fit inside"
            )


def list_models() -> dict[Architecture, tuple[Context, ...]]:
    """Return the architectures that `create_model` builds, each with the contexts that it can have."""
    return {architecture: get_args(Context) for architecture in get_args(Architecture)}


def check_fields(config: Any, section: str = "") -> None:
    """Check the type of every field of a config, and the numbers by ``RANGES`` of its class.

    ``RANGES`` maps an interval to the names of fields, for example {"[0, 1)": "momentum ema_decay"}; "0 or [1, 9]" also
    allows 0. It holds for every number of a list. NaN and infinity are never allowed.

    Args:
        config: A dataclass instance.
        section: Prefix of the names in messages, for example "data.".

    Raises:
        InputError: A value is not allowed; the message names the field, its value and the allowed values.
    """
    kind: type = type(config)
    for name, hint in _hints(kind).items():
        value = getattr(config, name)
        if not _fits(value, hint, _interval(kind, name)):
            raise InputError(f"{section}{name} is {shortened(value)}; {allowed_values(kind, name, value)}")


def shortened(value: Any) -> str:
    """Return a value for a message: as in YAML, and at most 80 characters of it."""
    shown = "null" if value is None else repr(list(value) if isinstance(value, tuple) else value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def allowed_values(kind: type, name: str, value: Any) -> str:
    """Return which values a field of a config may have, as the end of a message about ``value``."""
    hint, interval = _hints(kind)[name], _interval(kind, name)
    if get_origin(hint) is Literal:
        allowed = [str(option) for option in get_args(hint)]
        return f"allowed: {', '.join(allowed)}{nearest(str(value), allowed)}"
    options = [option for option in _options(hint) if option is not NoneType]
    optional = ", or null" if len(options) < len(_options(hint)) else ""
    return f"give {' or '.join(_wanted(option, interval) for option in options)}{optional}"


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def _interval(kind: type, name: str) -> str:
    ranges: Mapping[str, str] = getattr(kind, "RANGES", {})
    return next((interval for interval, names in ranges.items() if name in names.split()), "(-inf, inf)")


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(value: Any, hint: Any, interval: str) -> bool:
    """Return whether a value has a type, and its numbers are in an interval."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, option, interval) for option in args)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in args)
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(key, args[0], interval) and _fits(one, args[1], interval) for key, one in value.items()
        )
    if origin in (tuple, list):
        fixed = origin is tuple and args[-1] is not Ellipsis
        fits = isinstance(value, (tuple, list)) and (not fixed or len(value) == len(args))
        return fits and all(_fits(one, args[0], interval) for one in value)
    if hint not in (int, float):
        return hint is Any or isinstance(value, hint)
    if isinstance(value, bool) or not isinstance(value, (int, hint)):
        return False
    zero, _, bounds = interval.rpartition(" or ")
    low, high = (float(bound) for bound in bounds[1:-1].split(","))
    at_bound = (value == low and bounds[0] == "(") or (value == high and bounds[-1] == ")")
    return (low <= value <= high and not at_bound) or (zero == "0" and value == 0)


def _wanted(hint: Any, interval: str) -> str:
    """Return the description of a type, with the interval of its numbers."""
    args = get_args(hint)
    if get_origin(hint) is Literal:
        return " or ".join(map(str, args))
    if get_origin(hint) in (tuple, list):
        count = f"{len(args)} " if get_origin(hint) is tuple and args[-1] is not Ellipsis else ""
        return f"a list of {count}{_wanted(args[0], interval).removeprefix('a ').replace('number', 'numbers')}"
    if hint in (int, float):
        number = "a whole number in " if hint is int else "a number in "
        return "".join(interval.rpartition("0 or ")[:2]) + number + interval.removeprefix("0 or ")
    plain = {bool: "true or false", str: "text", dict: "a mapping"}
    return plain.get(get_origin(hint) or hint, getattr(hint, "__name__", ""))


_Spec = TypeVar("_Spec")


def to_dict(spec: Any) -> dict[str, Any]:
    """Return a spec or a configuration (a dataclass) as plain JSON types: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(spec)))
    return plain


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted names, each section included."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found[f"{prefix}{key}"] = value
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return (old, new) of each nested value that differs, by dotted name; missing values are None."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*new, *(key for key in old if key not in new)]:
        before, now = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found |= differences(before, now, f"{prefix}{key}.")
        elif before != now:
            found[f"{prefix}{key}"] = (before, now)
    return found


def from_dict(kind: type[_Spec], values: Mapping[str, Any]) -> _Spec:
    """Rebuild a spec from the result of `to_dict`.

    Raises:
        InputError: There are no values, a key is unknown or missing, or a value is not allowed.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{kind.__name__} is {shortened(values)}; give a mapping")
    fields, hints = dataclasses.fields(kind), _hints(kind)  # type: ignore[arg-type]
    names = [f.name for f in fields]
    converted: dict[str, Any] = {}
    for key, value in values.items():
        if key not in names:
            raise InputError(
                f"unknown key {key!r} in {kind.__name__}; allowed: {', '.join(names)}{nearest(key, names)}"
            )
        if key == "context_options" and isinstance(value, Mapping):
            value = from_dict(ContextOptions, value)
        as_tuple = isinstance(value, list) and get_origin(hints[key]) is not list
        converted[key] = tuple(value) if as_tuple else value
    for f in fields:
        if f.name not in values and f.default is f.default_factory is dataclasses.MISSING:
            raise InputError(f"{f.name} is missing")
    return kind(**converted)
