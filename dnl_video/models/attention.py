"""The mathematics of non-local and disentangled non-local attention, as pure functions on tokens.

Sources: Wang et al., "Non-local Neural Networks", CVPR 2018 (section 3); Yin et al., "Disentangled Non-Local Neural
Networks", ECCV 2020, arXiv 2006.06668 (sections 3 and 4).

Shapes: B samples, N query positions, M key positions, D inner channels, E value channels.
No function makes an [N, M] matrix, except the two whose name ends in ``_map``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def non_local_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
    """Embedded-Gaussian attention: ``y_i = sum_j softmax_j(scale * q_i . k_j) v_j`` (Wang et al., eq. 3).

    Args:
        query: [B, N, D].
        key: [B, M, D].
        value: [B, M, E].
        scale: Factor on the similarities; 1 in the paper, 1/sqrt(D) in video-nonlocal-net and PySlowFast.

    Returns:
        [B, N, E].
    """
    # Fused kernels want one width: zeros change neither the similarities nor the other value channels.
    inner, values = query.shape[2], value.shape[2]
    if inner != values:
        width = max(inner, values)
        query, key, value = (F.pad(t, (0, width - t.shape[2])) for t in (query, key, value))
    # A head axis of one: fused kernels take [B, heads, N, D].
    out = F.scaled_dot_product_attention(query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1), scale=scale)
    return out.squeeze(1)[..., :values]


def dot_product_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Dot-product attention: ``y_i = 1/M sum_j (q_i . k_j) v_j`` (Wang et al., eq. 4), as ``q (k^T v) / M``.

    Associativity makes it O(N D E) where the similarity matrix would cost O(N M D).

    Args:
        query: [B, N, D].
        key: [B, M, D].
        value: [B, M, E].

    Returns:
        [B, N, E].
    """
    # Dividing first keeps k^T v, a sum over thousands of positions, inside the range of half precision.
    return query @ ((key / key.shape[1]).transpose(1, 2) @ value)


def whitened_pairwise_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
    """The whitened pairwise term: ``y_i = sum_j softmax_j(scale * (q_i - mu_q) . (k_j - mu_k)) v_j``.

    Yin et al., section 4. ``mu_q`` and ``mu_k`` are the means over a sample's positions. Centring the keys
    shifts row i by a constant that the softmax removes; both are centred all the same, because the gradient
    of the queries relies on that cancellation, which rounding breaks in half precision.

    Args:
        query: [B, N, D].
        key: [B, M, D].
        value: [B, M, E].
        scale: Factor on the similarities, 1 / (sqrt(D) * temperature) in the authors' detection code.

    Returns:
        [B, N, E].
    """
    return non_local_attention(center(query), center(key), value, scale=scale)


def unary_attention(logits: Tensor, value: Tensor) -> Tensor:
    """The unary term: ``y = sum_j softmax_j(m_j) v_j``, one vector for all queries (Yin et al., section 4).

    Args:
        logits: Saliency logits m, [B, M].
        value: [B, M, E].

    Returns:
        [B, E].
    """
    return torch.bmm(unary_map(logits).to(value.dtype).unsqueeze(1), value).squeeze(1)


def disentangled_attention(query: Tensor, key: Tensor, value: Tensor, logits: Tensor, *, scale: float) -> Tensor:
    """Disentangled non-local attention: the whitened pairwise and the unary term, added (Yin et al., eq. 9).

    Equal to weights ``w_ij = softmax_j(scale * (q_i - mu_q) . (k_j - mu_k)) + softmax_j(m_j)`` times the
    values; each row of w sums to 2.

    Args:
        query: [B, N, D].
        key: [B, M, D].
        value: [B, M, E].
        logits: Saliency logits m, [B, M].
        scale: Factor on the pairwise similarities.

    Returns:
        [B, N, E].
    """
    pairwise = whitened_pairwise_attention(query, key, value, scale=scale)
    return pairwise + unary_attention(logits, value).unsqueeze(1)


def center(tokens: Tensor) -> Tensor:
    """Subtract each sample's mean over positions; the mean is taken in float32 for half-precision input.

    Args:
        tokens: [B, N, D].

    Returns:
        [B, N, D], in the dtype given.
    """
    return (tokens.to(_at_least_float32(tokens.dtype)) - position_mean(tokens)).to(tokens.dtype)


def position_mean(tokens: Tensor) -> Tensor:
    """Mean over positions, in float32 or wider.

    Args:
        tokens: [B, N, D].

    Returns:
        [B, 1, D].
    """
    return tokens.mean(dim=1, keepdim=True, dtype=_at_least_float32(tokens.dtype))


def centered_projection(tokens: Tensor, weight: Tensor) -> Tensor:
    """Project and centre in one matrix product: ``W x_i - W x_mean``, the mean entering as the product's bias.

    Equal to ``center(F.linear(tokens, weight, bias))`` for any bias. The bias joins the accumulator before the
    result is rounded, so half precision keeps the differences that a large mean would drown.

    Args:
        tokens: [B, N, C].
        weight: [D, C].

    Returns:
        [B, N, D].
    """
    with _full_precision(tokens.device):
        mean = position_mean(tokens)
        offset = F.linear(mean, weight.to(mean.dtype))
    batch = tokens.shape[0]
    # baddbmm wants one dtype outside autocast and casts by itself inside.
    return torch.baddbmm(offset.to(tokens.dtype), tokens, weight.t().expand(batch, -1, -1), beta=-1)


def pairwise_map(query: Tensor, key: Tensor, *, scale: float) -> Tensor:
    """The attention matrix ``softmax_j(scale * q_i . k_j)``, to look at: O(N M) memory.

    Args:
        query: [B, N, D], centred for the whitened map.
        key: [B, M, D], centred for the whitened map.
        scale: Factor on the similarities.

    Returns:
        [B, N, M], rows sum to 1, float32 or wider.
    """
    similarity = torch.bmm(query, key.transpose(1, 2)).to(_at_least_float32(query.dtype))
    return (similarity * scale).softmax(dim=-1)


def unary_map(logits: Tensor) -> Tensor:
    """The saliency map ``softmax_j(m_j)``.

    Args:
        logits: [B, M].

    Returns:
        [B, M], rows sum to 1, float32 or wider.
    """
    return logits.to(_at_least_float32(logits.dtype)).softmax(dim=-1)


def _full_precision(device: torch.device) -> AbstractContextManager[Any]:
    # The meta device has no autocast to switch off.
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
