"""Build the network that a `ModelSpec` describes: a backbone with context blocks inserted after residual blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from torch import nn

from dnl_video.errors import InputError, nearest
from dnl_video.models.backbones import ContextStage, VideoClassifier, create_backbone, find_stages
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.simplified import GlobalContextBlock3d, SimplifiedNonLocalBlock3d
from dnl_video.spec import Context, ContextOptions, ModelSpec

# Residual blocks that a context block follows by default: the five blocks of video-nonlocal-net (every second residual
# block of res3 and res4).
_POSITIONS_R50 = {"res3": (1, 3), "res4": (1, 3, 5)}
_POSITIONS_R101 = {"res3": (1, 3), "res4": (6, 13, 20)}


def build_model(spec: ModelSpec) -> VideoClassifier:
    """Build the network of a `ModelSpec` with newly initialised weights."""
    model = create_backbone(spec)
    if spec.context != "none":
        insert_context_blocks(model, block_factory(spec.context, spec.context_options), block_positions(spec))
    model.spec = spec
    return model


def block_positions(spec: ModelSpec) -> Mapping[str, Sequence[int]]:
    """Return the residual blocks that context blocks follow, by stage: those of the spec, or the default ones.

    Raises:
        InputError: The spec's positions are empty.
    """
    positions = spec.context_options.positions
    if positions is None:
        return _POSITIONS_R101 if spec.architecture.endswith("r101") else _POSITIONS_R50
    if not any(positions.values()):
        raise InputError("context_options.positions is empty; name residual blocks, or set context to none")
    return positions


def block_factory(context: Context, options: ContextOptions) -> Callable[[int], nn.Module]:
    """Return a function that makes the block ``context`` for a number of channels."""
    ends: dict[str, Any] = {"zero_init": options.zero_init, "checkpoint": options.checkpoint}
    if context == "snl":
        return partial(SimplifiedNonLocalBlock3d, **ends)
    if context == "gc":
        return partial(GlobalContextBlock3d, ratio=options.gc_ratio, **ends)
    names = ("scaled", "learned_temperature", "pool", "pool_order", "output", "temperature", "bias")
    chosen = {name: getattr(options, name) for name in names}
    for name in ("temperature", "bias"):
        if chosen[name] is None:  # the block's own default
            del chosen[name]
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
        **chosen,
        **ends,
    )


def insert_context_blocks(
    model: nn.Module, make_block: Callable[[int], nn.Module], positions: Mapping[str, Sequence[int]]
) -> list[str]:
    """Insert context blocks after residual blocks of a pytorchvideo network made of `ResStage`.

    A block follows the residual block's ReLU, as in video-nonlocal-net, PySlowFast and mmaction2. Insert after
    building the network: pytorchvideo's `Net` re-initialises all weights that it is given.

    Args:
        model: The network; changed in place.
        make_block: Makes a block for a number of channels C. The block maps [B, C, T, H, W] to the same shape.
        positions: The residual blocks, counted from 0, that a context block follows, for each stage (res2 ... res5).

    Returns:
        The names of the inserted modules, for example ``blocks.2.context_blocks.1``.

    Raises:
        InputError: A stage or residual block does not exist, or the stage has context blocks already.
    """
    stages = find_stages(model)
    for stage_name, indices in positions.items():
        if stage_name not in stages:
            allowed = f"allowed: {', '.join(stages)}{nearest(stage_name, stages)}"
            raise InputError(f"positions: no stage {stage_name!r}; {allowed}")
        _, _, stage = stages[stage_name]
        depth = len(stage.res_blocks)
        if isinstance(stage, ContextStage):
            raise InputError(f"positions: {stage_name} has context blocks already; insert into a bare network")
        for index in indices:
            if not 0 <= index < depth:
                raise InputError(f"positions: {stage_name} has no residual block {index}; allowed: 0 to {depth - 1}")
        if len(set(indices)) != len(indices):
            raise InputError(f"positions: {stage_name} lists {list(indices)}; give each residual block once")
    for stage_name, indices in positions.items():
        if indices:
            parent, name, stage = stages[stage_name]
            blocks = {i: make_block(_output_channels(stage.res_blocks[i])) for i in indices}
            setattr(parent, name, ContextStage(stage.res_blocks, blocks))
    return [name for name, _ in model.named_modules() if name.rpartition(".")[0].endswith("context_blocks")]


def _output_channels(res_block: nn.Module) -> int:
    convolutions = [m for m in cast(nn.Module, res_block.branch2).modules() if isinstance(m, nn.Conv3d)]
    return convolutions[-1].out_channels
