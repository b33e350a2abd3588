"""Choose the kernel of attention and linear maps: oneDNN for large float32 products on x86 CPUs, otherwise PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnl_video.models.runtime import onednn


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float | Tensor) -> Tensor:
    """Compute ``softmax_j(scale * q_i . k_j) v_j`` without holding the [N, M] matrix.

    On an x86 CPU oneDNN computes large float32 products a few rows at a time (`onednn.attention`), twice as fast as the
    fused kernel of `scaled_dot_product_attention`, which computes the rest. On CUDA the latter takes flash attention in
    half precision up to 256 channels, otherwise the memory-efficient kernel. Other kernels were not measured there.

    Args:
        query: [B, N, D].
        key: [B, M, D].
        value: [B, M, E].
        scale: Factor on the similarities; a tensor without dimensions if it is learned.

    Returns:
        [B, N, E].
    """
    if isinstance(scale, Tensor):
        query, scale = query * scale, 1.0
    if onednn.fits(query, key, value, multiplications=query.numel() * key.shape[1]):
        return onednn.attention(query, key, value, scale=scale)
    # Fused kernels need D = E. Channels of zeros change neither the similarities nor the other value channels.
    inner, values = query.shape[2], value.shape[2]
    if inner != values:
        width = max(inner, values)
        query, key, value = (F.pad(t, (0, width - t.shape[2])) for t in (query, key, value))
    # Fused kernels take [B, heads, N, D]: one head.
    out = F.scaled_dot_product_attention(query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1), scale=scale)
    return out.squeeze(1)[..., :values]


def linear_minus(tokens: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """Compute ``tokens W^T - offset`` for tokens [B, N, C], weight [D, C] and offset [B, 1, D]; result [B, N, D]."""
    if onednn.fits(tokens, weight, multiplications=tokens.numel() * weight.shape[0]):
        return onednn.linear(tokens, weight) - offset
    return torch.baddbmm(offset, tokens, weight.t().expand(tokens.shape[0], -1, -1), beta=-1)


class Projection(nn.Linear):
    """A linear map of each position (a 1x1x1 convolution), by oneDNN where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., D]."""
        if onednn.fits(x, self.weight, multiplications=x.numel() * self.out_features):
            return onednn.linear(x, self.weight, self.bias)
        return super().forward(x)
