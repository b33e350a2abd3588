"""The mathematics of non-local and disentangled non-local attention, as pure functions on tokens.

Papers: Wang, Girshick, Gupta and He, "Non-local Neural Networks", CVPR 2018, arXiv 1711.07971, section 3; Yin et al.,
"Disentangled Non-Local Neural Networks", ECCV 2020, arXiv 2006.06668, sections 3 and 4.

Notation: B samples; N query positions i; M key positions j (M < N if keys and values are pooled); queries q [B, N, D],
keys k [B, M, D], values v [B, M, E], saliency logits m [B, M]; s a scale; mu_q, mu_k the means of a sample's q and k
over positions.

    non-local:     y_i = sum_j softmax_j(s q_i . k_j) v_j
    its split:     q_i . k_j = (q_i - mu_q) . (k_j - mu_k)  +  mu_q . k_j  +  terms constant in j (softmax removes them)
                               whitened pairwise               unary
    disentangled:  y_i = sum_j [softmax_j(s (q_i - mu_q) . (k_j - mu_k)) + softmax_j(m_j)] v_j   (Yin et al., eq. 9)

The non-local form multiplies the two factors, so that each weakens the gradient of the other. The disentangled form
adds two softmaxes: `non_local_attention` of centred queries and keys, plus `unary_attention`. Each row of its weights
sums to 2.

No function makes an [N, M] matrix except `pairwise_map` and `pairwise_logits`, which exist to look at it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dnl_video.models.runtime import kernels

Scale = float | Tensor
# Elements of an attention map that are computed at once: 64 MiB in float32.
MAP_CHUNK = 2**24
_HALF = (torch.float16, torch.bfloat16)


def non_local_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: Scale) -> Tensor:
    """Embedded Gaussian: ``y_i = sum_j softmax_j(scale * q_i . k_j) v_j`` (Wang et al., eq. 3).

    With the features themselves as queries and keys it is the Gaussian form (eq. 2). With centred queries and keys it
    is the whitened pairwise term (Yin et al., section 4).

    Args:
        query: [B, N, D].
        key: [B, M, D].
        value: [B, M, E].
        scale: 1 in Wang et al.; 1 / sqrt(D) in video-nonlocal-net and PySlowFast; 1 / (sqrt(D) * temperature) in the
            code of Yin et al.; a tensor without dimensions if it is learned.

    Returns:
        [B, N, E].
    """
    return kernels.softmax_attention(query, key, value, scale=scale)


def unary_attention(logits: Tensor, value: Tensor) -> Tensor:
    """The unary term: ``y = sum_j softmax_j(m_j) v_j``, one vector for all queries (Yin et al., section 4).

    Args:
        logits: Saliency logits m, [B, M].
        value: [B, M, E].

    Returns:
        [B, E].
    """
    return torch.bmm(unary_map(logits).to(value.dtype).unsqueeze(1), value).squeeze(1)


def dot_product_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Dot product: ``y_i = 1/M sum_j (q_i . k_j) v_j`` (Wang et al., eq. 4), computed as ``q (k^T v) / M``.

    Associativity makes the cost O(N D E) instead of O(N M D).

    Args:
        query: [B, N, D].
        key: [B, M, D].
        value: [B, M, E].

    Returns:
        [B, N, E].
    """
    # k^T v sums over thousands of positions: divide before, or it leaves the range of float16. Each factor is divided
    # by sqrt(M), because small keys divided by M would leave the range at its lower end.
    half = key.shape[1] ** -0.5
    return query @ ((key * half).transpose(1, 2) @ (value * half))


def concatenation_attention(query_logits: Tensor, key_logits: Tensor, value: Tensor) -> Tensor:
    """Concatenation: ``y_i = 1/M sum_j ReLU(a_i + b_j) v_j`` (Wang et al., eq. 5).

    The weight vector of eq. 5 splits into a part for the query and a part for the key, so a_i and b_j are one number
    per query and per key. With the keys sorted by descending b, the first c_i of them pass the ReLU, and two running
    sums over keys give ``y_i = (a_i * sum_j v_j + sum_j b_j v_j) / M`` over j <= c_i without an [N, M] matrix.

    Args:
        query_logits: a, [B, N].
        key_logits: b, [B, M].
        value: [B, M, E].

    Returns:
        [B, N, E].
    """
    batch, keys, channels = value.shape
    dtype = _at_least_float32(value.dtype)
    with full_precision(value.device):
        a, (b, order) = query_logits.to(dtype), key_logits.to(dtype).sort(dim=1, descending=True)
        v = value.to(dtype).gather(1, order.unsqueeze(-1).expand(-1, -1, channels)) / keys
        sums = torch.cat((v, b.unsqueeze(-1) * v), dim=2).cumsum(dim=1)  # [B, M, 2E]
        sums = torch.cat((sums.new_zeros(batch, 1, 2 * channels), sums), dim=1)  # row c: the first c keys
        # b_j > -a_i. The -b_j ascend, and searchsorted counts those below a_i.
        count = torch.searchsorted((-b).detach().contiguous(), a.detach().contiguous())  # [B, N], 0 ... M
        plain, weighted = sums.gather(1, count.unsqueeze(-1).expand(-1, -1, 2 * channels)).chunk(2, dim=2)
        return (a.unsqueeze(-1) * plain + weighted).to(value.dtype)


def center(tokens: Tensor) -> Tensor:
    """Whitening in the sense of Yin et al.: subtract each sample's mean over positions, taken in float32 or wider.

    The softmax removes what centring the keys changes. Keys are centred all the same: the gradient of the queries
    relies on that cancellation, and rounding in half precision breaks it.

    Args:
        tokens: [B, N, D].

    Returns:
        [B, N, D], in the dtype of the input.
    """
    return (tokens.to(_at_least_float32(tokens.dtype)) - position_mean(tokens)).to(tokens.dtype)


def position_mean(tokens: Tensor) -> Tensor:
    """Mean of tokens [B, N, D] over positions: [B, 1, D], in float32 or wider."""
    return tokens.mean(dim=1, keepdim=True, dtype=_at_least_float32(tokens.dtype))


def centered_projections(tokens: Tensor, *projections: tuple[Tensor, Tensor | None]) -> list[Tensor]:
    """Project and centre: ``W x_i - W mean(x)``, equal to ``center(F.linear(tokens, weight, bias))``.

    In full precision the mean enters as the bias of the product, at no cost. In half precision the tokens are centred
    in float32 first: the rounding of a large mean would exceed their differences, and it may leave float16's range.

    Args:
        tokens: [B, N, C].
        *projections: Pairs of weight [D, C] and bias [D] or None. The bias cancels; its gradient is zero.

    Returns:
        [B, N, D] for each projection.
    """
    if tokens.dtype in _HALF or (_has_autocast(tokens.device) and torch.is_autocast_enabled(tokens.device.type)):
        centered = center(tokens)
        return [F.linear(centered, weight, _cancelled(bias)) for weight, bias in projections]
    mean = position_mean(tokens)
    offsets = [F.linear(mean, weight, _cancelled(bias)) for weight, bias in projections]
    return [kernels.linear_minus(tokens, w, offset) for (w, _), offset in zip(projections, offsets, strict=True)]


def _cancelled(bias: Tensor | None) -> Tensor | None:
    # A zero that depends on the bias, since DDP refuses parameters without a gradient.
    return None if bias is None else bias - bias


def pairwise_map(query: Tensor, key: Tensor, *, scale: Scale, max_elements: int = MAP_CHUNK) -> Tensor:
    """The attention matrix ``softmax_j(scale * q_i . k_j)``, to look at: O(N M) memory.

    Args:
        query: [B, N, D], centred for the whitened map.
        key: [B, M, D], centred for the whitened map.
        scale: Factor on the similarities.
        max_elements: Rows are computed in chunks of at most this many elements (at least one row of each sample), so
            that temporary memory is small.

    Returns:
        [B, N, M], rows sum to 1, float32 or wider.
    """
    (batch, positions, _), keys = query.shape, key.shape[1]
    rows = max(max_elements // max(batch * keys, 1), 1)
    if rows >= positions:
        return pairwise_logits(query, key, scale=scale).softmax(dim=-1)
    out = query.new_empty(batch, positions, keys, dtype=_at_least_float32(query.dtype))
    for start in range(0, positions, rows):
        chunk = slice(start, start + rows)
        out[:, chunk] = pairwise_logits(query[:, chunk], key, scale=scale).softmax(dim=-1)
    return out


def pairwise_logits(query: Tensor, key: Tensor, *, scale: Scale) -> Tensor:
    """Similarities ``scale * q_i . k_j``, [B, N, M] in float32 or wider, to look at: O(N M) memory."""
    dtype = _at_least_float32(query.dtype)
    with full_precision(query.device):
        return torch.bmm(query.to(dtype) * scale, key.to(dtype).transpose(1, 2))


def unary_map(logits: Tensor) -> Tensor:
    """The saliency map ``softmax_j(m_j)`` of logits [B, M], in float32 or wider."""
    return logits.to(_at_least_float32(logits.dtype)).softmax(dim=-1)


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Switch autocast off inside a ``with`` block."""
    return torch.autocast(device.type, enabled=False) if _has_autocast(device) else nullcontext()


def _has_autocast(device: torch.device) -> bool:
    return device.type != "meta"


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in _HALF else dtype
