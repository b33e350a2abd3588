"""The mathematics of non-local and disentangled non-local attention, as pure functions on tokens.

Sources: Wang et al., "Non-local Neural Networks", CVPR 2018 (section 3); Yin et al., "Disentangled Non-Local Neural
Networks", ECCV 2020, arXiv 2006.06668 (sections 3 and 4).

Shapes: B samples, N query positions, M key positions, D inner channels, E value channels.
No function makes an [N, M] matrix, except those whose name ends in ``_map`` or ``_logits``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dnl_video.models.runtime import onednn

Scale = float | Tensor
# Elements of an attention map that are computed at once: 64 MiB in float32.
MAP_CHUNK = 2**24
_HALF = (torch.float16, torch.bfloat16)


def non_local_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: Scale) -> Tensor:
    """Embedded-Gaussian attention: ``y_i = sum_j softmax_j(scale * q_i . k_j) v_j`` (Wang et al., eq. 3).

    With the features themselves as queries and keys it is the Gaussian form (eq. 2).

    Large products on an x86 CPU go through oneDNN, in chunks of rows (`onednn.attention`): twice as fast there as the
    fused kernel of `scaled_dot_product_attention`, which does all the rest. On CUDA the latter chooses by itself: flash
    up to 256 channels in half precision, beyond that and in float32 the memory-efficient kernel. Whether another choice
    would be faster at the 512 channels of res4 has not been measured.

    Args:
        query: [B, N, D].
        key: [B, M, D].
        value: [B, M, E].
        scale: Factor on the similarities; 1 in the paper, 1/sqrt(D) in video-nonlocal-net and PySlowFast. A learned
            one is a tensor without dimensions.

    Returns:
        [B, N, E].
    """
    if isinstance(scale, Tensor):
        query, scale = query * scale, 1.0
    if onednn.fits(query, key, value, multiplications=query.numel() * key.shape[1]):
        return onednn.attention(query, key, value, scale=scale)
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
    # Dividing first keeps k^T v, a sum over thousands of positions, inside the range of half precision; half of the
    # factor on either side, since small keys over all of M would leave float16's range at its lower end.
    half = key.shape[1] ** -0.5
    return query @ ((key * half).transpose(1, 2) @ (value * half))


def concatenation_attention(query_logits: Tensor, key_logits: Tensor, value: Tensor) -> Tensor:
    """Concatenation attention: ``y_i = 1/M sum_j ReLU(a_i + b_j) v_j`` (Wang et al., eq. 5).

    The vector that eq. 5 multiplies with the concatenated query and key splits in two, so one number a_i of each
    query and one b_j of each key are all it sees. With keys sorted by b, those that pass the ReLU are the first c_i:
    two running sums over the keys give ``y_i = (a_i * sum v_j + sum b_j v_j) / M`` without any [N, M] matrix.

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
        # b_j > -a_i; ascending -b, so that searchsorted counts the -b_j below a_i.
        count = torch.searchsorted((-b).detach().contiguous(), a.detach().contiguous())  # [B, N], 0 ... M
        plain, weighted = sums.gather(1, count.unsqueeze(-1).expand(-1, -1, 2 * channels)).chunk(2, dim=2)
        return (a.unsqueeze(-1) * plain + weighted).to(value.dtype)


def whitened_pairwise_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: Scale) -> Tensor:
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


def disentangled_attention(query: Tensor, key: Tensor, value: Tensor, logits: Tensor, *, scale: Scale) -> Tensor:
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


def centered_projection(tokens: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Project and centre: ``W x_i - W x_mean``. Equal to ``center(F.linear(tokens, weight, bias))``.

    Args:
        tokens: [B, N, C].
        weight: [D, C].
        bias: [D]; cancels, and gets the gradient zero.

    Returns:
        [B, N, D].
    """
    return centered_projections(tokens, (weight, bias))[0]


def centered_projections(tokens: Tensor, *projections: tuple[Tensor, Tensor | None]) -> list[Tensor]:
    """`centered_projection` by several weights and biases, with the tokens' mean taken once.

    In full precision the mean enters as the product's bias and costs nothing. In half precision the tokens are
    centred in float32 first: a large mean would drown their differences in the rounding of tokens and products, and
    may leave float16's range.
    """
    if tokens.dtype in _HALF or _autocasts(tokens.device):
        centered = center(tokens)
        return [F.linear(centered, weight, _cancelled(bias)) for weight, bias in projections]
    mean, out = position_mean(tokens), []
    for weight, bias in projections:
        offset = F.linear(mean, weight, _cancelled(bias))
        if onednn.fits(tokens, weight, multiplications=tokens.numel() * weight.shape[0]):
            out.append(onednn.linear(tokens, weight) - offset)
            continue
        out.append(torch.baddbmm(offset, tokens, weight.t().expand(tokens.shape[0], -1, -1), beta=-1))
    return out


def _cancelled(bias: Tensor | None) -> Tensor | None:
    # In the graph as a zero, because data-parallel training refuses a parameter without a gradient.
    return None if bias is None else bias - bias


def pairwise_map(query: Tensor, key: Tensor, *, scale: Scale, max_elements: int = MAP_CHUNK) -> Tensor:
    """The attention matrix ``softmax_j(scale * q_i . k_j)``, to look at: O(N M) memory.

    Args:
        query: [B, N, D], centred for the whitened map.
        key: [B, M, D], centred for the whitened map.
        scale: Factor on the similarities.
        max_elements: Rows are computed in chunks of at most this many elements (one row of each sample at least), so
            that little more than the result is ever held.

    Returns:
        [B, N, M], rows sum to 1, float32 or wider.
    """
    (batch, positions, _), keys = query.shape, key.shape[1]
    rows = max(max_elements // max(batch * keys, 1), 1)
    if rows >= positions:
        return pairwise_logits(query, key, scale=scale).softmax(dim=-1)
    chunks = (pairwise_logits(q, key, scale=scale).softmax(dim=-1) for q in query.split(rows, dim=1))
    first = next(chunks)
    out = first.new_empty(batch, positions, keys)
    out[:, :rows] = first
    for index, chunk in enumerate(chunks, start=1):
        out[:, index * rows : index * rows + chunk.shape[1]] = chunk
    return out


def pairwise_logits(query: Tensor, key: Tensor, *, scale: Scale) -> Tensor:
    """Similarities ``scale * q_i . k_j``, to look at: O(N M) memory.

    Args:
        query: [B, N, D].
        key: [B, M, D].
        scale: Factor on the similarities.

    Returns:
        [B, N, M], float32 or wider.
    """
    dtype = _at_least_float32(query.dtype)
    with full_precision(query.device):
        return torch.bmm(query.to(dtype) * scale, key.to(dtype).transpose(1, 2))


def unary_map(logits: Tensor) -> Tensor:
    """The saliency map ``softmax_j(m_j)``.

    Args:
        logits: [B, M].

    Returns:
        [B, M], rows sum to 1, float32 or wider.
    """
    return logits.to(_at_least_float32(logits.dtype)).softmax(dim=-1)


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Switch autocast off for what runs inside."""
    # The meta device has no autocast to switch off.
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _autocasts(device: torch.device) -> bool:
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in _HALF else dtype
