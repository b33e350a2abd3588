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
        make = partial(make_context_block, context=spec.context, options=spec.context_options)
        insert_context_blocks(model, make, block_positions(spec))
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


def make_context_block(channels: int, context: Context, options: ContextOptions) -> nn.Module:
    """Make the block ``context`` for a number of channels."""
    common: dict[str, Any] = {"zero_init": options.zero_init, "checkpoint": options.checkpoint}
    if context == "snl":
        return SimplifiedNonLocalBlock3d(channels, **common)
    if context == "gc":
        return GlobalContextBlock3d(channels, ratio=options.gc_ratio, **common)
    for name in ("scaled", "learned_temperature", "pool", "pool_order", "output"):
        common[name] = getattr(options, name)
    for name in ("temperature", "bias"):
        if getattr(options, name) is not None:  # otherwise the default of the block
            common[name] = getattr(options, name)
    ratios = (options.inner_ratio, options.value_ratio)
    inner, common["value_channels"] = (None if r is None else max(int(channels * r), 1) for r in ratios)
    if context == "nl":
        return NonLocalBlock3d(channels, inner, attention=options.attention, **common)
    common |= {"pairwise": context != "unary", "unary": context != "pairwise", "whiten_over": options.whiten_over}
    return DisentangledNonLocalBlock3d(channels, inner, **common)


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
