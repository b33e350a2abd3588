"""The naive form of non-local and disentangled non-local blocks: convolutions and the whole attention matrix.

All public implementations compute this way. Non-local: PySlowFast (slowfast/models/nonlocal_helper.py), mmcv
(mmcv/cnn/bricks/non_local.py), video-nonlocal-net. Disentangled: the authors' detection and segmentation code and
mmsegmentation (mmseg/models/decode_heads/dnl_head.py), here with this package's values, projection and norm.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dnl_video.models.backbones import ContextStage
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d


class NaiveBlock3d(nn.Module):
    """The naive form of a block, with the same weights and outputs; it makes several [N, M] matrices in training.

    Args:
        block: A non-local block with a softmax or dot product, or a disentangled one, that pools before its
            projections and ends in projection and batch norm.

    Shape:
        [B, C, T, H, W], out as in.

    Raises:
        ValueError: The block is of another kind.
    """

    def __init__(self, block: NonLocalBlock3d | DisentangledNonLocalBlock3d) -> None:
        super().__init__()
        self.whitened = isinstance(block, DisentangledNonLocalBlock3d)
        self.softmax = self.whitened or block.attention == "embedded_gaussian"
        known = self.softmax or block.attention == "dot_product"
        pooled_after = block.pool is not None and block.pool_order == "after"
        if not known or pooled_after or None in (block.query, block.key, block.out, block.norm):
            raise ValueError(f"no naive form of {block}")
        self.scale = float(block.scale)
        self.query, self.key = _convolution(block.query), _convolution(block.key)
        self.value, self.out = _convolution(block.value), _convolution(block.out)
        saliency = getattr(block, "unary", None)
        self.unary = None if saliency is None else _convolution(saliency)
        self.pool = nn.Identity() if block.pool is None else nn.MaxPool3d(block.pool)
        self.norm = copy.deepcopy(block.norm)

    def forward(self, x: Tensor) -> Tensor:
        """Attend and add."""
        sources = self.pool(x)
        query = self.query(x).flatten(2).transpose(1, 2)  # [B, N, D]
        key = self.key(sources).flatten(2)  # [B, D, M]
        value = self.value(sources).flatten(2).transpose(1, 2)  # [B, M, E]
        if self.whitened:
            query = query - query.mean(dim=1, keepdim=True)
            key = key - key.mean(dim=2, keepdim=True)
        weights = torch.matmul(query, key)  # [B, N, M]
        weights = torch.softmax(weights * self.scale, dim=-1) if self.softmax else weights / weights.shape[-1]
        y = torch.matmul(weights, value)
        if self.unary is not None:
            y = y + torch.matmul(self.unary(sources).flatten(2).softmax(dim=-1), value)
        y = y.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])
        return x + self.norm(self.out(y))


def with_naive_blocks(network: nn.Module) -> nn.Module:
    """Replace the context blocks of a network by their naive form, in place, and return it."""
    for stage in network.modules():
        if isinstance(stage, ContextStage):
            for name, block in stage.context_blocks.items():
                stage.context_blocks[name] = NaiveBlock3d(block)
    return network


def _convolution(linear: nn.Linear) -> nn.Conv3d:
    convolution = nn.Conv3d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    convolution = convolution.to(linear.weight.device, linear.weight.dtype)
    convolution.weight = nn.Parameter(linear.weight.detach()[:, :, None, None, None].clone())
    if linear.bias is not None:
        convolution.bias = nn.Parameter(linear.bias.detach().clone())
    return convolution
