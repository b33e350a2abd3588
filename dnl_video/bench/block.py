"""One context block against its literal form: the cases, and what a pass of each is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dnl_video.bench.naive import NaiveBlock3d
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d

Variant = Literal["ours", "naive"]
Block = Literal["nl", "dnl", "dot_product"]
Precision = Literal["fp32", "bf16"]

# Channels and side of the maps at 224 x 224 in the stages that have blocks.
STAGES = {"res3": (512, 28), "res4": (1024, 14)}


@dataclass(frozen=True)
class BlockCase:
    """What is measured.

    Attributes:
        block: nl (embedded Gaussian), dnl, or nl with dot_product.
        channels: Channels C of the input.
        frames: Frames T of the input.
        height: Height and width of the input.
        pooled: Max-pool keys and values by (1, 2, 2).
        backward: Forward and backward pass, otherwise forward without gradients.
        batch: Clips.
        precision: bf16 is autocast, and a bf16 input.
    """

    block: Block
    channels: int
    frames: int
    height: int
    pooled: bool = False
    backward: bool = False
    batch: int = 1
    precision: Precision = "fp32"

    @property
    def positions(self) -> int:
        """Positions N = T * H * W of one clip."""
        return self.frames * self.height**2

    def modules(self, device: torch.device) -> dict[Variant, nn.Module]:
        """Return our block and the literal one with the same weights, none of which is zero."""
        torch.manual_seed(0)
        pool = (1, 2, 2) if self.pooled else None
        ours: NonLocalBlock3d | DisentangledNonLocalBlock3d
        if self.block == "dnl":
            ours = DisentangledNonLocalBlock3d(self.channels, pool=pool)
        else:
            similarity: Literal["embedded_gaussian", "dot_product"]
            similarity = "embedded_gaussian" if self.block == "nl" else "dot_product"
            ours = NonLocalBlock3d(self.channels, pool=pool, attention=similarity)
        assert isinstance(ours.norm, nn.BatchNorm3d)
        nn.init.ones_(ours.norm.weight)
        ours.train(self.backward)
        return {"ours": ours.to(device), "naive": NaiveBlock3d(ours).train(self.backward).to(device)}

    def one_pass(self, variant: Variant, device: torch.device) -> Callable[[], Tensor]:
        """Return a function that runs one pass, on an input made beforehand."""
        return self.passes(device)[variant]

    def passes(self, device: torch.device) -> dict[Variant, Callable[[], Tensor]]:
        """Return both variants' passes over the same input [B, C, T, H, W], in torch's usual layout."""
        size = (self.batch, self.channels, self.frames, self.height, self.height)
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        x = torch.randn(size, device=device, dtype=dtype, requires_grad=self.backward)
        gradient = torch.randn(size, device=device, dtype=dtype) if self.backward else None
        return {name: self._pass(module, x, gradient) for name, module in self.modules(device).items()}

    def _pass(self, module: nn.Module, x: Tensor, gradient: Tensor | None) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                if gradient is None:
                    with torch.no_grad():
                        return module(x)
                y = module(x)
            x.grad = None
            module.zero_grad(set_to_none=True)
            y.backward(gradient)
            return y

        return run
