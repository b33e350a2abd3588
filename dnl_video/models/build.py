"""`create_model`: a named backbone with context blocks inserted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from dnl_video.errors import InputError
from dnl_video.models.backbones import VideoClassifier, create_backbone, default_positions, insert_context_blocks
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.simplified import GlobalContextBlock3d, SimplifiedNonLocalBlock3d
from dnl_video.spec import Architecture, Context, ContextOptions, Fusion, Head, ModelSpec, SlowFrames


def create_model(
    architecture: Architecture,
    *,
    context: Context = "none",
    num_classes: int = 400,
    head: Head = "dense_logits",
    stem_channels: int = 64,
    dropout: float = 0.5,
    zero_init_residual: bool = True,
    slow_alpha: int = 4,
    slow_frames: SlowFrames = "linspace",
    fusion_kernel: int | None = None,
    fusion: Fusion = "conv_bn_relu",
    stem_strides: tuple[int, int] = (1, 1),
    context_options: ContextOptions | None = None,
    pretrained: str | None = None,
) -> VideoClassifier:
    """Build a video classifier: clips [B, 3, T, H, W] -> logits [B, num_classes].

    Args:
        architecture: slow, i3d, c2d or slowfast, with _r50 or _r101.
        context: Inserted block: none, nl, dnl, pairwise, unary, snl or gc.
        num_classes: Outputs.
        head: dense_logits, dense_probabilities or global (see `ModelSpec`).
        stem_channels: Width of the stem; 64 is the published network.
        dropout: Dropout rate before the classifier.
        zero_init_residual: Zero the scale of every residual block's last batch norm.
        slow_alpha: SlowFast's ratio of frame rates.
        slow_frames: Frames that SlowFast's slow pathway sees: linspace or strided (see `ModelSpec`).
        fusion_kernel: Frames that SlowFast's lateral convolutions span; None is the hub's number.
        fusion: SlowFast's lateral connections: conv_bn_relu or conv (see `ModelSpec`).
        stem_strides: Frame strides of the stem's convolution and max-pooling (see `ModelSpec`).
        context_options: Options of the inserted blocks.
        pretrained: Weights to start from: a published name such as ``kinetics400``, or a file (see `load_weights`).

    Raises:
        InputError: A value is not allowed; the message says what is.
    """
    model = build_model(
        ModelSpec(
            architecture=architecture,
            context=context,
            num_classes=num_classes,
            head=head,
            stem_channels=stem_channels,
            dropout=dropout,
            zero_init_residual=zero_init_residual,
            slow_alpha=slow_alpha,
            slow_frames=slow_frames,
            fusion_kernel=fusion_kernel,
            fusion=fusion,
            stem_strides=stem_strides,
            context_options=context_options or ContextOptions(),
        )
    )
    if pretrained is not None:
        # Here, because reading our own files builds networks.
        from dnl_video.models.weights.load import load_weights

        load_weights(model, pretrained)
    return model


def build_model(spec: ModelSpec) -> VideoClassifier:
    """Build the network that a `ModelSpec` describes, with fresh weights."""
    model = create_backbone(
        spec.architecture,
        num_classes=spec.num_classes,
        stem_channels=spec.stem_channels,
        dropout=spec.dropout,
        head=spec.head,
        zero_init_residual=spec.zero_init_residual,
        slow_alpha=spec.slow_alpha,
        slow_frames=spec.slow_frames,
        fusion_kernel=spec.fusion_kernel,
        fusion=spec.fusion,
        stem_strides=spec.stem_strides,
    )
    if spec.context != "none":
        chosen = spec.context_options.positions
        positions = default_positions(spec.architecture) if chosen is None else chosen
        if not any(positions.values()):
            raise InputError("context_options.positions is empty; name residual blocks, or set context to none")
        insert_context_blocks(model, block_factory(spec.context, spec.context_options), positions)
    model.spec = spec
    return model


def block_factory(context: Context, options: ContextOptions) -> Callable[[int], nn.Module]:
    """Return the function that makes the block called ``context`` for a number of channels."""
    ends: dict[str, Any] = {"zero_init": options.zero_init, "checkpoint": options.checkpoint}
    if context == "snl":
        return partial(SimplifiedNonLocalBlock3d, **ends)
    if context == "gc":
        return partial(GlobalContextBlock3d, ratio=options.gc_ratio, **ends)
    common = ends | {
        "scaled": options.scaled,
        "learned_temperature": options.learned_temperature,
        "pool": options.pool,
        "pool_order": options.pool_order,
        "output": options.output,
    }
    for name in ("temperature", "bias"):
        if getattr(options, name) is not None:
            common[name] = getattr(options, name)
    make: dict[str, Callable[..., nn.Module]] = {
        "nl": partial(NonLocalBlock3d, attention=options.attention),
        "dnl": partial(DisentangledNonLocalBlock3d, whiten_over=options.whiten_over),
        "pairwise": partial(DisentangledNonLocalBlock3d, unary=False, whiten_over=options.whiten_over),
        "unary": partial(DisentangledNonLocalBlock3d, pairwise=False),
    }

    def share(channels: int, ratio: float | None) -> int | None:
        return None if ratio is None else max(int(channels * ratio), 1)

    return lambda channels: make[context](
        channels,
        share(channels, options.inner_ratio),
        value_channels=share(channels, options.value_ratio),
        **common,
    )
