"""The literal form of non-local and disentangled non-local blocks, to measure against: convolutions and the whole map.

Every public implementation computes this way. Non-local: PySlowFast (slowfast/models/nonlocal_helper.py), mmcv
(mmcv/cnn/bricks/non_local.py), video-nonlocal-net. Disentangled: the authors' detection and segmentation code and
mmsegmentation (mmseg/models/decode_heads/dnl_head.py), here with this package's default values, projection and norm.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d


class NaiveBlock3d(nn.Module):
    """A block's literal form with the same weights: equal outputs, but an [N, M] matrix (several of them in training).

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
        softmax = isinstance(block, DisentangledNonLocalBlock3d) or block.attention == "embedded_gaussian"
        dot_product = isinstance(block, NonLocalBlock3d) and block.attention == "dot_product"
        if not (softmax or dot_product) or block.query is None or block.key is None or block.norm is None:
            raise ValueError(f"no naive form of {block}")
        if block.out is None or (block.pool is not None and block.pool_order == "after"):
            raise ValueError(f"no naive form of {block}")
        self.whitened = isinstance(block, DisentangledNonLocalBlock3d)
        self.softmax = softmax
        self.scale = float(block.scale)
        self.query = _convolution(block.query)
        self.key = _convolution(block.key)
        self.value = _convolution(block.value)
        self.out = _convolution(block.out)
        saliency = getattr(block, "unary", None)
        self.unary = None if saliency is None else _convolution(saliency)
        self.pool = None if block.pool is None else nn.MaxPool3d(block.pool)
        self.norm = copy.deepcopy(block.norm)

    def forward(self, x: Tensor) -> Tensor:
        """Attend and add."""
        sources = x if self.pool is None else self.pool(x)
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


def _convolution(linear: nn.Linear) -> nn.Conv3d:
    convolution = nn.Conv3d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    convolution = convolution.to(linear.weight.device, linear.weight.dtype)
    convolution.weight = nn.Parameter(linear.weight.detach()[:, :, None, None, None].clone())
    if linear.bias is not None:
        convolution.bias = nn.Parameter(linear.bias.detach().clone())
    return convolution
