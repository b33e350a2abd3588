"""What travels with a model: its architecture and how clips are prepared for it. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from dnl_video.errors import InputError, nearest

Architecture = Literal[
    "slow_r50", "slow_r101", "i3d_r50", "i3d_r101", "slowfast_r50", "slowfast_r101", "c2d_r50", "c2d_r101"
]
Context = Literal["none", "nl", "dnl", "pairwise", "unary", "snl", "gc"]
Similarity = Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"]
Output = Literal["conv_bn", "conv", "gamma"]
Head = Literal["dense_logits", "dense_probabilities", "global"]
Sampling = Literal["stride", "pyslowfast"]
PastEnd = Literal["repeat_last", "loop"]
SlowFrames = Literal["linspace", "strided"]
Fusion = Literal["conv_bn_relu", "conv"]
ChannelOrder = Literal["rgb", "bgr"]


@dataclass(frozen=True)
class ContextOptions:
    """Options of the inserted context blocks. `snl` and `gc` use positions, gc_ratio, zero_init and checkpoint only.

    A context leaves the options it does not have, so that a recipe stays valid when only its context changes.

    Args:
        positions: Residual blocks after which a context block sits, by stage, counted from 0, for example
            ``{res3: [1, 3], res4: [1, 3, 5]}``; null takes video-nonlocal-net's five blocks.
        inner_ratio: Query, key and value channels as a share of the stage's channels.
        value_ratio: Value channels as a share of the stage's channels; null takes inner_ratio, or 1 for output gamma.
        attention: Similarity of `nl`: embedded_gaussian or gaussian (softmax), dot_product or concatenation (divided by
            the number of keys).
        scaled: Divide similarities by the square root of the inner channels.
        temperature: Softmax temperature of the pairwise term; null is 0.05 for dnl and pairwise, 1 for nl.
        learned_temperature: Learn the temperature, from that value on.
        pool: Max-pooling of keys, values and saliency over (T, H, W); null for none.
        pool_order: Pool before or after the key, value and unary convolutions.
        whiten_over: Positions over which query and key means are taken: space_time, or each frame's own.
        bias: Biases of query and key (and saliency); null is true for nl, false for dnl, pairwise and unary, where
            whitening and softmax cancel them.
        output: conv_bn (projection and batch norm), conv (projection) or gamma (a scalar on the pairwise term, no
            projection: the unary term is alive from the start).
        gc_ratio: Bottleneck of `gc` as a share of the stage's channels; published 1/4 and 1/16.
        zero_init: Start what ends the block at zero (batch norm, projection, scalar; the last layer of snl and gc), so
            that an inserted block is the identity.
        checkpoint: Recompute the blocks' attention in the backward pass: less memory, more time.
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

    def __post_init__(self) -> None:
        for name in ("inner_ratio", "value_ratio", "gc_ratio"):
            ratio = getattr(self, name)
            if ratio is not None and not 0 < ratio <= 1:
                raise InputError(f"{name} is {ratio}; give a share of the channels in (0, 1]")
        if self.output == "gamma" and self.value_ratio not in (None, 1):
            raise InputError(f"value_ratio is {self.value_ratio}; output: gamma has no projection and needs 1, or null")
        if self.temperature is not None and self.temperature <= 0:
            raise InputError(f"temperature is {self.temperature}; give a number above 0, or null for the default")
        if self.pool is not None and (len(self.pool) != 3 or min(self.pool) < 1):
            raise InputError(f"pool is {list(self.pool)}; give three sizes (T, H, W) of at least 1, or null")
        if self.pool is not None and self.pool[0] > 1 and self.whiten_over == "frame":
            raise InputError(
                f"pool {list(self.pool)} mixes frames; whiten_over: frame needs a pool of 1 along T, or null"
            )
        _check_literals(self)


@dataclass(frozen=True)
class ModelSpec:
    """A network that `create_model` can build.

    Args:
        architecture: Backbone of pytorchvideo.
        context: Block inserted into the backbone: none, nl (non-local), dnl (disentangled non-local), one of dnl's
            terms alone, pairwise (whitened) or unary (saliency), snl (simplified non-local) or gc (GCNet).
        num_classes: Number of outputs.
        head: How the last features become logits: dense_logits (pytorchvideo: T x 7 x 7 windows, logits averaged),
            dense_probabilities (PySlowFast: softmax per window, then the mean), global (mmaction2: one global average).
        stem_channels: Width of the stem (64 is the published network; the rest of the backbone scales with it).
        dropout: Dropout rate before the classifier.
        zero_init_residual: Start the last batch norm of every residual block at zero (from-scratch recipes).
        slow_alpha: SlowFast's ratio of frame rates (published 4 for 8x8, 8 for 4x16). Other networks leave this and
            the next three.
        slow_frames: Frames that SlowFast's slow pathway sees: linspace (0 to T - 1 evenly, truncated: PySlowFast,
            pytorchvideo) or strided (every slow_alpha-th from the first: mmaction2).
        fusion_kernel: Frames that SlowFast's lateral convolutions span; null is pytorchvideo's 7 for R50, 5 for R101.
        fusion: What a lateral connection is: conv_bn_relu (PySlowFast, pytorchvideo) or conv, linear (mmaction2).
        stem_strides: Frame strides of the stem's convolution and of its max-pooling; mmaction2's I3D 32x2 has (2, 2).
            SlowFast has none.
        context_options: Options of the inserted blocks.
    """

    architecture: Architecture = "slow_r50"
    context: Context = "dnl"
    num_classes: int = 400
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

    def __post_init__(self) -> None:
        _check_literals(self)
        if self.num_classes < 1:
            raise InputError(f"num_classes is {self.num_classes}; give at least 1")
        if self.stem_channels < 8 or self.stem_channels % 8:
            raise InputError(f"stem_channels is {self.stem_channels}; give a multiple of 8 (published networks: 64)")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}; give a rate in [0, 1)")
        if self.slow_alpha < 1:
            raise InputError(f"slow_alpha is {self.slow_alpha}; give at least 1 (published networks: 4 or 8)")
        if self.fusion_kernel is not None and (self.fusion_kernel < 1 or self.fusion_kernel % 2 == 0):
            raise InputError(f"fusion_kernel is {self.fusion_kernel}; give an odd number of frames, or null")
        if len(self.stem_strides) != 2 or min(self.stem_strides) < 1:
            raise InputError(f"stem_strides is {list(self.stem_strides)}; give two numbers of at least 1, as [1, 1]")
        if self.architecture.startswith("slowfast") and max(self.stem_strides) > 1:
            raise InputError(f"stem_strides is {list(self.stem_strides)}; {self.architecture} needs [1, 1]")
        options = self.context_options
        if (
            self.context == "nl"
            and options.learned_temperature
            and options.attention in ("dot_product", "concatenation")
        ):
            raise InputError(f"learned_temperature needs a softmax; attention {options.attention} has none")


@dataclass(frozen=True)
class Preprocessing:
    """How frames become the clip a network sees, in training and evaluation alike.

    Args:
        num_frames: Frames T of a clip.
        frame_stride: Distance of neighbouring frames ("8x8" is num_frames 8, frame_stride 8).
        target_fps: Frame rate at which the stride counts; null counts the file's own frames.
        sampling: stride (this package's exact spacing, reaching both ends of the video) or pyslowfast (that project's
            rule, needed with its weights).
        past_end: A clip longer than its video repeats the last frame, or loops.
        short_side: Short side in pixels to which evaluation resizes.
        crop_size: Side in pixels of the square crops in evaluation.
        mean: Mean of inputs in [0, 1], in the network's order of channels.
        std: Standard deviation of inputs in [0, 1], in the network's order of channels.
        channel_order: Order of channels the network takes: rgb, or bgr (some converted weights). Files are always
            decoded to rgb.
    """

    num_frames: int = 8
    frame_stride: int = 8
    target_fps: float | None = None
    sampling: Sampling = "stride"
    past_end: PastEnd = "repeat_last"
    short_side: int = 256
    crop_size: int = 256
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    channel_order: ChannelOrder = "rgb"

    def __post_init__(self) -> None:
        _check_literals(self)
        for name in ("num_frames", "frame_stride", "short_side", "crop_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.crop_size > self.short_side:
            raise InputError(
                f"crop_size {self.crop_size} exceeds short_side {self.short_side}; the crop must fit inside"
            )
        if self.target_fps is not None and self.target_fps <= 0:
            raise InputError(f"target_fps is {self.target_fps}; give frames per second above 0, or null")
        if min(self.std) <= 0:
            raise InputError(f"std is {list(self.std)}; give three numbers above 0")


def _check_literals(spec: Any) -> None:
    for f in dataclasses.fields(spec):
        allowed = get_args(_LITERALS.get(f.name, Any))
        value = getattr(spec, f.name)
        if allowed and value not in allowed:
            raise InputError(f"{f.name} is {value!r}; allowed: {', '.join(allowed)}{nearest(str(value), allowed)}")


_LITERALS: dict[str, Any] = {
    "architecture": Architecture,
    "context": Context,
    "head": Head,
    "sampling": Sampling,
    "past_end": PastEnd,
    "slow_frames": SlowFrames,
    "fusion": Fusion,
    "channel_order": ChannelOrder,
    "attention": Similarity,
    "output": Output,
    "pool_order": Literal["before", "after"],
    "whiten_over": Literal["space_time", "frame"],
}

_Spec = TypeVar("_Spec", ModelSpec, Preprocessing, ContextOptions)


def to_dict(spec: ModelSpec | Preprocessing | ContextOptions) -> dict[str, Any]:
    """Return the spec as plain JSON types (lists for tuples)."""

    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    return {
        key: {k: plain(v) for k, v in value.items()} if key == "context_options" else plain(value)
        for key, value in dataclasses.asdict(spec).items()
    }


def from_dict(kind: type[_Spec], values: Mapping[str, Any]) -> _Spec:
    """Rebuild a spec from `to_dict`'s result.

    Raises:
        InputError: A key is unknown, or a value is not allowed.
    """
    names = [f.name for f in dataclasses.fields(kind)]
    for key in values:
        if key not in names:
            raise InputError(
                f"unknown key {key!r} in {kind.__name__}; allowed: {', '.join(names)}{nearest(key, names)}"
            )
    converted: dict[str, Any] = {}
    for key, value in values.items():
        if key == "context_options" and isinstance(value, Mapping):
            value = from_dict(ContextOptions, value)
        elif isinstance(value, list):
            value = tuple(value)
        converted[key] = value
    return kind(**converted)
