"""Context blocks on [B, C, T, H, W]: non-local, disentangled non-local and its two terms alone.

Sources: Wang et al., CVPR 2018 (`NonLocalBlock3d`); Yin et al., ECCV 2020, arXiv 2006.06668
(`DisentangledNonLocalBlock3d`). Key and value pooling and the zero-initialised batch norm after the output
projection follow video-nonlocal-net.

A 1x1x1 convolution is a linear map of each position, so projections are `nn.Linear` on channels-last tokens.
Neither block makes an N x M matrix in `forward`; `attention_maps` makes it, to look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from dnl_video.models import attention

Size3 = tuple[int, int, int]


class AttentionMaps(NamedTuple):
    """What a block attends to: ``pairwise`` [B, N, M] and ``unary`` [B, M]; None for a term the block lacks."""

    pairwise: Tensor | None
    unary: Tensor | None


class _ContextBlock3d(nn.Module):
    """What the blocks share: tokens, pooling of keys, the output projection with its batch norm, the residual sum."""

    def __init__(
        self,
        channels: int,
        inner_channels: int | None,
        *,
        pool: Sequence[int] | None,
        pool_order: Literal["before", "after"],
        zero_init: bool,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.inner_channels = inner_channels if inner_channels is not None else max(channels // 2, 1)
        if self.inner_channels < 1:
            raise ValueError(f"inner_channels is {inner_channels}; give at least 1, or None for channels // 2")
        if pool is not None and (len(pool) != 3 or min(pool) < 1):
            raise ValueError(f"pool is {tuple(pool)}; give three sizes (T, H, W) of at least 1, or None")
        if pool_order not in ("before", "after"):
            raise ValueError(f"pool_order is {pool_order!r}; allowed: before, after")
        self.pool: Size3 | None = (pool[0], pool[1], pool[2]) if pool is not None and max(pool) > 1 else None
        self.pool_order = pool_order
        self.value = nn.Linear(channels, self.inner_channels)
        self.out = nn.Linear(self.inner_channels, channels)
        self.norm = nn.BatchNorm3d(channels)
        self._zero_init = zero_init

    def reset_parameters(self) -> None:
        """Draw projections from N(0, 0.01), set biases to 0 and, with ``zero_init``, the batch norm's scale to 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.norm.reset_parameters()
        if self._zero_init:
            nn.init.zeros_(self.norm.weight)

    def _tokens(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return all tokens [B, N, C] and those that keys and values are projected from [B, N or M, C]."""
        if x.dim() != 5 or x.shape[1] != self.channels:
            raise ValueError(f"input has shape {tuple(x.shape)}; expected [B, {self.channels}, T, H, W]")
        tokens = x.flatten(2).transpose(1, 2).contiguous()  # [B, N, C]; a view where x is channels-last
        sources = self._pooled(tokens, x.shape[2:]) if self.pool_order == "before" else tokens
        return tokens, sources

    def _pooled(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Max-pool tokens [B, T*H*W, C] to [B, M, C]."""
        if self.pool is None:
            return tokens
        # Never larger than the map, so that small crops run; no dimension is lost.
        kernel = [min(k, s) for k, s in zip(self.pool, size, strict=True)]
        grid = tokens.transpose(1, 2).unflatten(2, tuple(size))  # [B, C, T, H, W], channels-last strides
        return F.max_pool3d(grid, kernel).flatten(2).transpose(1, 2).contiguous()

    def _pooled_after(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        return self._pooled(tokens, size) if self.pool_order == "after" else tokens

    def _residual(self, x: Tensor, y: Tensor) -> Tensor:
        """Project the attended values y [B, N, D] back to C channels, normalise, and add x."""
        projected = self.out(y).transpose(1, 2).unflatten(2, tuple(x.shape[2:]))
        return x + self.norm(projected)

    def extra_repr(self) -> str:
        """Show what the submodules do not."""
        return f"channels={self.channels}, inner={self.inner_channels}, pool={self.pool}, pool_order={self.pool_order}"


class NonLocalBlock3d(_ContextBlock3d):
    """Non-local block (Wang et al., CVPR 2018), as video-nonlocal-net and PySlowFast place it in video backbones.

    Args:
        channels: Channels C of the input.
        inner_channels: Channels D of query, key and value; None is C // 2.
        attention: ``embedded_gaussian`` (softmax) or ``dot_product`` (divided by the number of keys).
        scaled: Divide similarities by sqrt(D). Applies to the softmax only.
        temperature: Softmax temperature.
        pool: Max-pooling (T, H, W) of keys and values; None for none.
        pool_order: Pool ``before`` the key and value projections (PySlowFast) or ``after`` (mmaction2).
        bias: Give query and key a bias.
        zero_init: Zero the batch norm's scale, so that the new block is the identity.

    Shape:
        [B, C, T, H, W] in and out. N = T*H*W positions, M of them after pooling.
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int | None = None,
        *,
        attention: Literal["embedded_gaussian", "dot_product"] = "embedded_gaussian",
        scaled: bool = True,
        temperature: float = 1.0,
        pool: Sequence[int] | None = (1, 2, 2),
        pool_order: Literal["before", "after"] = "before",
        bias: bool = True,
        zero_init: bool = True,
    ) -> None:
        super().__init__(channels, inner_channels, pool=pool, pool_order=pool_order, zero_init=zero_init)
        if attention not in ("embedded_gaussian", "dot_product"):
            raise ValueError(f"attention is {attention!r}; allowed: embedded_gaussian, dot_product")
        self.attention = attention
        self.scale = _scale(self.inner_channels, scaled, temperature)
        self.query = nn.Linear(channels, self.inner_channels, bias=bias)
        self.key = nn.Linear(channels, self.inner_channels, bias=bias)
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Attend and add: [B, C, T, H, W] -> [B, C, T, H, W]."""
        tokens, sources = self._tokens(x)
        query, key = self._query_key(tokens, sources, x.shape[2:])
        value = self._pooled_after(self.value(sources), x.shape[2:])
        if self.attention == "dot_product":
            y = attention.dot_product_attention(query, key, value)
        else:
            y = attention.non_local_attention(query, key, value, scale=self.scale)
        return self._residual(x, y)

    def attention_maps(self, x: Tensor) -> AttentionMaps:
        """Return the coupled attention [B, N, M] of an embedded-Gaussian block as ``pairwise``; it has no unary map.

        Raises:
            ValueError: The block is a dot-product one, whose weights are no distribution.
        """
        if self.attention != "embedded_gaussian":
            raise ValueError("dot_product attention has no softmax map; attention maps need embedded_gaussian")
        query, key = self._query_key(*self._tokens(x), x.shape[2:])
        return AttentionMaps(attention.pairwise_map(query, key, scale=self.scale), None)

    def _query_key(self, tokens: Tensor, sources: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.query(tokens), self._pooled_after(self.key(sources), size)


class DisentangledNonLocalBlock3d(_ContextBlock3d):
    """Disentangled non-local block (Yin et al., ECCV 2020), spatio-temporal.

    Weights ``softmax_j(scale * (q_i - mu_q) . (k_j - mu_k)) + softmax_j(m_j)`` on shared values. Query, key and
    unary projections have no bias: whitening and the softmax would cancel it.

    Args:
        channels: Channels C of the input.
        inner_channels: Channels D of query, key and value; None is C // 2.
        pairwise: Include the whitened pairwise term.
        unary: Include the unary term.
        scaled: Divide pairwise similarities by sqrt(D).
        temperature: Softmax temperature of the pairwise term; 0.05 in the authors' detection code.
        pool: Max-pooling (T, H, W) of keys, values and saliency; None for none.
        pool_order: Pool ``before`` the key, value and unary projections, or ``after``.
        whiten_over: Take means over all positions of a sample (``space_time``) or over each ``frame`` by itself.
        zero_init: Zero the batch norm's scale, so that the new block is the identity.

    Shape:
        [B, C, T, H, W] in and out. N = T*H*W positions, M of them after pooling.
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int | None = None,
        *,
        pairwise: bool = True,
        unary: bool = True,
        scaled: bool = True,
        temperature: float = 0.05,
        pool: Sequence[int] | None = (1, 2, 2),
        pool_order: Literal["before", "after"] = "before",
        whiten_over: Literal["space_time", "frame"] = "space_time",
        zero_init: bool = True,
    ) -> None:
        super().__init__(channels, inner_channels, pool=pool, pool_order=pool_order, zero_init=zero_init)
        if not (pairwise or unary):
            raise ValueError("pairwise and unary are both False; a block needs at least one term")
        if whiten_over not in ("space_time", "frame"):
            raise ValueError(f"whiten_over is {whiten_over!r}; allowed: space_time, frame")
        if pool is not None and pool[0] > 1 and whiten_over == "frame":
            raise ValueError(f"pool {tuple(pool)} mixes frames; whiten_over='frame' needs a pool of 1 along T")
        self.whiten_over = whiten_over
        self.scale = _scale(self.inner_channels, scaled, temperature)
        # A term that is switched off owns no parameters: DDP refuses those that get no gradient.
        self.query = nn.Linear(channels, self.inner_channels, bias=False) if pairwise else None
        self.key = nn.Linear(channels, self.inner_channels, bias=False) if pairwise else None
        self.unary = nn.Linear(channels, 1, bias=False) if unary else None
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Attend and add: [B, C, T, H, W] -> [B, C, T, H, W]."""
        tokens, sources = self._tokens(x)
        size = x.shape[2:]
        value = self._pooled_after(self.value(sources), size)
        salient = None
        if self.unary is not None:
            salient = attention.unary_attention(self._saliency(sources, size), value).unsqueeze(1)  # [B, 1, D]
        if self.query is None:
            assert salient is not None
            return self._residual(x, salient.expand(-1, tokens.shape[1], -1))
        query, key = self._whitened_query_key(tokens, sources, size)
        y = attention.non_local_attention(query, key, value, scale=self.scale)
        return self._residual(x, y if salient is None else y + salient)

    def attention_maps(self, x: Tensor) -> AttentionMaps:
        """Return the whitened pairwise map [B, N, M] and the unary map [B, M]; each row of either sums to 1."""
        tokens, sources = self._tokens(x)
        size = x.shape[2:]
        pairwise = unary = None
        if self.query is not None:
            query, key = self._whitened_query_key(tokens, sources, size)
            pairwise = attention.pairwise_map(query, key, scale=self.scale)
        if self.unary is not None:
            unary = attention.unary_map(self._saliency(sources, size))
        return AttentionMaps(pairwise, unary)

    def _whitened_query_key(self, tokens: Tensor, sources: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        assert self.query is not None
        assert self.key is not None
        batch = tokens.shape[0]
        # Per-frame whitening treats frames as samples of their own.
        groups = batch if self.whiten_over == "space_time" else batch * size[0]
        query = attention.centered_projection(tokens.reshape(groups, -1, self.channels), self.query.weight)
        if self.pool is not None and self.pool_order == "after":
            # The mean must be that of the pooled keys, so it cannot enter as the projection's bias.
            key = self._pooled(self.key(sources), size)
            key = attention.center(key.reshape(groups, -1, self.inner_channels))
        else:
            key = attention.centered_projection(sources.reshape(groups, -1, self.channels), self.key.weight)
        return query.reshape(batch, -1, self.inner_channels), key.reshape(batch, -1, self.inner_channels)

    def _saliency(self, sources: Tensor, size: Sequence[int]) -> Tensor:
        assert self.unary is not None
        return self._pooled_after(self.unary(sources), size).squeeze(-1)  # [B, M]


def _scale(inner_channels: int, scaled: bool, temperature: float) -> float:
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; give a number above 0")
    return (inner_channels**-0.5 if scaled else 1.0) / temperature
