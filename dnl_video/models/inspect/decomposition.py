"""Split the similarities of a trained non-local block into the pairwise and the unary factor of the DNL paper.

Paper: Yin et al., "Disentangled Non-Local Neural Networks", ECCV 2020, arXiv 2006.06668, section 3: the split, and its
optimality (eqs. 5 to 7).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dnl_video.models import attention
from dnl_video.models.blocks import NonLocalBlock3d
from dnl_video.models.context_block import query_rows


class LogitDecomposition(NamedTuple):
    """The logits ``l_ij = scale * q_i . k_j`` of a non-local block as ``pairwise_ij + unary_j + constant_i``.

    Attributes:
        pairwise: Whitened logits ``scale * (q_i - mu_q) . (k_j - mu_k)``, [B, N or Q, M].
        unary: ``scale * mu_q . k_j``, the same for every query, [B, M].
        constant: ``scale * (q_i - mu_q) . mu_k``, the same for every key, removed by the softmax, [B, N or Q].
        pairwise_share: Share of the variance of the logits that the pairwise term explains, [B], in 0 ... 1.
        unary_share: Share that the unary term explains, [B]; the two add to 1.
    """

    pairwise: Tensor
    unary: Tensor
    constant: Tensor
    pairwise_share: Tensor
    unary_share: Tensor


@torch.no_grad()
def decompose(block: NonLocalBlock3d, x: Tensor, queries: Tensor | None = None) -> LogitDecomposition:
    """Split the logits of a softmax non-local block into the whitened pairwise and the unary term.

    Only differences between keys matter to a softmax over keys. The variance is therefore that over the keys j,
    averaged over **all** N queries i of a sample: ``V(l) = mean_i Var_j(l_ij)``. The constant has none. The whitened
    queries add up to 0, so the two terms are uncorrelated on average and ``V(l) = V(pairwise) + V(unary)`` exactly. The
    shares are ``V(pairwise) / V(l)`` and ``V(unary) / V(l)``, NaN if all logits of a sample are equal. With the
    covariances S of queries and keys, ``V(pairwise) = scale^2 tr(S_q S_k)`` and ``V(unary) = scale^2 mu_q . S_k mu_q``:
    O((N + M) D^2) without an N x M matrix.

    Args:
        block: A trained block, embedded Gaussian or Gaussian.
        x: The input of the block, [B, C, T, H, W], [B, C, H, W] or [B, C, L].
        queries: Flat positions [Q] of the rows of ``pairwise`` and ``constant`` to return; None for all.

    Raises:
        ValueError: The block has no softmax.
    """
    with attention.full_precision(x.device):
        query, key = block.query_key(x.to(block.value.weight.dtype))
        mean_query, mean_key = (attention.position_mean(t) for t in (query, key))  # [B, 1, D], float32 or wider
        whitened_query, whitened_key = query - mean_query, key - mean_key

        rows = query_rows(whitened_query, queries)
        pairwise = attention.pairwise_logits(rows, whitened_key, scale=block.scale)
        unary = attention.pairwise_logits(mean_query, key, scale=block.scale).squeeze(1)
        constant = attention.pairwise_logits(rows, mean_key, scale=block.scale).squeeze(2)

        key_covariance = _covariance(whitened_key)  # [B, D, D]
        of_pairwise = (_covariance(whitened_query) * key_covariance).sum((1, 2))
        of_unary = (mean_query @ key_covariance * mean_query).sum((1, 2))
        total = of_pairwise + of_unary
        return LogitDecomposition(pairwise, unary, constant, of_pairwise / total, of_unary / total)


def _covariance(centered: Tensor) -> Tensor:
    return centered.transpose(1, 2) @ centered / centered.shape[1]
