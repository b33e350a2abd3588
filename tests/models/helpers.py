"""What several tests of dnl_video.models share."""

from __future__ import annotations

from functools import partial

import torch
from pytorchvideo.models.resnet import ResStage
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.context_block import AttentionBlock, Temperature

BLOCKS = {
    "nl": NonLocalBlock3d,
    "gaussian": partial(NonLocalBlock3d, attention="gaussian"),
    "dot_product": partial(NonLocalBlock3d, attention="dot_product"),
    "concatenation": partial(NonLocalBlock3d, attention="concatenation"),
    "dnl": DisentangledNonLocalBlock3d,
    "pairwise": partial(DisentangledNonLocalBlock3d, unary=False),
    "unary": partial(DisentangledNonLocalBlock3d, pairwise=False),
}
TEMPERATURE = {"dnl": 0.05, "pairwise": 0.05, "unary": 0.05}  # 1 for all others


@torch.no_grad()
def perturb(model: nn.Module, seed: int = 0) -> nn.Module:
    """Move every parameter and running statistic off its initial value, in place.

    A block's default init hides everything it computes behind a batch norm of scale zero. Here projections have unit
    gain, similarities spread by about 1.5 after scaling, and batch norms neither vanish nor pass their input through.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal_(tensor: torch.Tensor, std: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * std)

    def uniform_(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * (high - low) + low)

    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            uniform_(module.weight, 0.5, 1.5)
            normal_(module.bias, 0.3)
        elif isinstance(module, Temperature) and module.log is not None:
            module.log += 0.2
        elif isinstance(module, nn.BatchNorm3d):
            uniform_(module.weight, 0.5, 1.5)
            normal_(module.bias, 0.3)
            normal_(module.running_mean, 0.3)
            uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Linear):
            normal_(module.weight, module.in_features**-0.5)
            if module.bias is not None:
                normal_(module.bias, 0.3)
    for module in model.modules():
        if not isinstance(module, AttentionBlock):
            continue
        if module.gamma is not None:
            module.gamma.fill_(0.7)
        if module.query is not None:
            gain = (1.5 / (module.scale * module.inner_channels**0.5)) ** 0.5
            module.query.weight *= gain
            module.key.weight *= gain
    return model


@torch.no_grad()
def perturb_backbone(model: nn.Module, clip: torch.Tensor, seed: int = 0) -> nn.Module:
    """`perturb`, then batch-norm statistics near those of the clip, so that signals keep their size through the net."""
    perturb(model, seed)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    was_training = model.training
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(clip)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.running_var.clamp_(min=1e-3)
    return model.train(was_training)


def shallow(model: nn.Module) -> nn.Module:
    """Keep two residual blocks of res2 and one of each later stage, in place: tracers take a while for each block."""
    for name, module in model.named_modules():
        if isinstance(module, ResStage):
            module.res_blocks = module.res_blocks[: 2 if name.startswith("blocks.1") else 1]
    return model


def make_input(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> torch.Tensor:
    """[B, C, T, H, W] of unit deviation around means of size 0.5, of each sample and channel its own."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(*shape[:2], 1, 1, 1, generator=generator, dtype=torch.float64) / 2
    return (torch.randn(shape, generator=generator, dtype=torch.float64) + means).to(dtype)


def relative_error(value: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, as a share of the largest expected value."""
    return ((value.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


class Recorder(TorchDispatchMode):
    """Note each operator that runs and the size of its largest result, in forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        results = out if isinstance(out, (tuple, list)) else [out]
        sizes = [r.numel() for r in results if isinstance(r, torch.Tensor)]
        name = func.overloadpacket.__name__
        self.largest[name] = max([self.largest.get(name, 0), *sizes])
        return out
