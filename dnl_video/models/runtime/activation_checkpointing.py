"""Activation checkpointing of residual stages: store only block inputs and recompute the rest in the backward pass.

Paper: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, arXiv 1604.06174. The recomputation does not
update the running statistics of batch norms, so every batch counts once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dnl_video.errors import InputError
from dnl_video.models.backbones import ContextStage, ResStage


class CheckpointedStage(ContextStage):
    """A residual stage, with or without context blocks, that stores only the inputs of its blocks."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the stage on [B, C, T, H, W]."""
        for block in self.in_order():
            x = recomputed(block, x) if torch.is_grad_enabled() else block(x)
        return x


def checkpoint_stages(network: nn.Module) -> None:
    """Make all residual stages of a network recompute their blocks in the backward pass, in place.

    Losses, gradients, running statistics and state-dict keys do not change. Call it after context blocks are inserted
    and before the network is compiled or wrapped in DDP.

    Raises:
        InputError: The network has no residual stage.
    """
    found = [
        (parent, name, stage)
        for parent in list(network.modules())
        for name, stage in parent.named_children()
        if isinstance(stage, ResStage) and not isinstance(stage, CheckpointedStage)
    ]
    if not found and not any(isinstance(module, CheckpointedStage) for module in network.modules()):
        raise InputError(f"{type(network).__name__} has no ResStage; give a pytorchvideo network made of them")
    for parent, name, stage in found:
        inserted = dict(stage.context_blocks.items()) if isinstance(stage, ContextStage) else {}
        checkpointed = CheckpointedStage(stage.res_blocks, {int(i): block for i, block in inserted.items()})
        checkpointed.training = stage.training  # the modes of its blocks stay
        setattr(parent, name, checkpointed)


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """Return ``block(x)``, storing only x for the backward pass."""
    if torch.compiler.is_compiling():
        # Compiled code updates statistics once, after the forward pass, and does not support context_fn.
        return checkpoint(block, x, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(block)

    return checkpoint(block, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Let batch norms in training mode update copies of their statistics."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training]
    kept = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        norm._buffers.update({name: None if b is None else b.clone() for name, b in buffers.items()})
    try:
        yield
    finally:
        # Also when the recomputation stops early because the backward pass has all it needs.
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
