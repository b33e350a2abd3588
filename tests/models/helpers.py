"""Helpers of several tests of dnl_video.models."""

from __future__ import annotations

from functools import partial

import pytorchvideo.models.hub as hub
import torch
from pytorchvideo.models.resnet import ResStage
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dnl_video.models.backbones import create_backbone
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.context_block import AttentionBlock, Temperature
from dnl_video.spec import ModelSpec

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
    """Change every parameter and running statistic from its initial value, in place.

    Initially a batch norm of scale zero hides what a block computes. Here projections have unit gain, scaled
    similarities a deviation of about 1.5, and batch norms are neither zero nor the identity.
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


def make_backbone(architecture, stem_channels=8, num_classes=5, **options):
    spec = ModelSpec(architecture, num_classes=num_classes, stem_channels=stem_channels, **options)
    return create_backbone(spec).eval()


def hub_network(architecture, stem_channels):
    """The network of pytorchvideo's hub, in evaluation mode, with five classes and a stem of another width."""
    slowfast = architecture.startswith("slowfast")
    width = {"stem_dim_outs": (stem_channels, stem_channels // 8)} if slowfast else {"stem_dim_out": stem_channels}
    return getattr(hub, architecture)(pretrained=False, model_num_class=5, **width).eval()


def make_clip(frames=8, height=32, width=32, batch=2):
    return torch.randn(batch, 3, frames, height, width)


def shallow(model: nn.Module) -> nn.Module:
    """Keep two residual blocks of res2 and one of each later stage, in place: tracers take a while for each block."""
    for name, module in model.named_modules():
        if isinstance(module, ResStage):
            module.res_blocks = module.res_blocks[: 2 if name.startswith("blocks.1") else 1]
    return model


def train_pass(module, x: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    """Output of a module, then the gradients of ``(output * weight).sum()`` for x and all parameters."""
    leaf = x.clone().requires_grad_()
    out = module(leaf)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), [leaf, *module.parameters()])]


def make_input(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> torch.Tensor:
    """Random [B, C, T, H, W] of deviation 1; the means of samples and channels have deviation 0.5."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(*shape[:2], 1, 1, 1, generator=generator, dtype=torch.float64) / 2
    return (torch.randn(shape, generator=generator, dtype=torch.float64) + means).to(dtype)


def relative_error(value: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, as a share of the largest expected value."""
    return ((value.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


class Recorder(TorchDispatchMode):
    """Record each operator that runs and the size of its largest result, in forward and backward."""

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
