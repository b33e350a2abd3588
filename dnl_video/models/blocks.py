"""Non-local and disentangled non-local blocks on [B, C, T, H, W], and the latter's two terms alone.

Sources: Wang et al., CVPR 2018 (`NonLocalBlock3d`); Yin et al., ECCV 2020, arXiv 2006.06668
(`DisentangledNonLocalBlock3d`). Key and value pooling and the zero-initialised batch norm after the output
projection follow video-nonlocal-net; `dialects` has the other published variants.

No block makes an N x M matrix in `forward`; `attention_maps` makes it, to look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dnl_video.models import attention
from dnl_video.models.context_block import (
    AttentionBlock,
    AttentionMaps,
    Output,
    PoolOrder,
    Temperature,
    check_choice,
    query_rows,
)
from dnl_video.models.runtime.kernels import Projection

Similarity = Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"]
_SOFTMAX = ("embedded_gaussian", "gaussian")


class NonLocalBlock3d(AttentionBlock):
    """Non-local block (Wang et al., CVPR 2018), as video-nonlocal-net and PySlowFast place it in video backbones.

    Args:
        channels: Channels C of the input.
        inner_channels: Channels D of query, key and value; None is C // 2. Gaussian similarity is that of the
            features themselves, with D = C and no query or key projection.
        value_channels: Channels E of the values; None is ``inner_channels``, or C where ``output`` is ``gamma``.
        attention: ``embedded_gaussian`` or ``gaussian`` (softmax), ``dot_product`` or ``concatenation`` (divided by
            the number of keys).
        scaled: Divide similarities by sqrt(D). Applies to the softmax only.
        temperature: Softmax temperature.
        learned_temperature: Learn it, from that value on.
        pool: Max-pooling (T, H, W) of keys and values; None for none.
        pool_order: Pool ``before`` the key and value projections (PySlowFast) or ``after`` (mmaction2).
        bias: Give query and key a bias.
        value_bias: Give the values a bias.
        output: ``conv_bn``, ``conv`` or ``gamma`` (a scalar and no projection).
        output_bias: Give the output projection a bias.
        zero_init: Start the batch norm's scale (``conv``: the projection, ``gamma``: the scalar) at zero, so that the
            new block is the identity.
        checkpoint: Recompute the attention in the backward pass instead of storing what it needs.

    Shape:
        [B, C, T, H, W], [B, C, H, W] or [B, C, L], out as in. N positions, M of them after pooling.
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int | None = None,
        *,
        value_channels: int | None = None,
        attention: Similarity = "embedded_gaussian",
        scaled: bool = True,
        temperature: float = 1.0,
        learned_temperature: bool = False,
        pool: Sequence[int] | None = (1, 2, 2),
        pool_order: PoolOrder = "before",
        bias: bool = True,
        value_bias: bool = True,
        output: Output = "conv_bn",
        output_bias: bool = True,
        zero_init: bool = True,
        checkpoint: bool = False,
    ) -> None:
        super().__init__(
            channels,
            inner_channels,
            value_channels,
            pool=pool,
            pool_order=pool_order,
            value_bias=value_bias,
            output=output,
            output_bias=output_bias,
            zero_init=zero_init,
            checkpoint=checkpoint,
        )
        check_choice("attention", attention, Similarity)
        if learned_temperature and attention not in _SOFTMAX:
            raise ValueError(f"{attention} attention has no softmax, so no temperature to learn")
        self.attention = attention
        width = channels if attention == "gaussian" else self.inner_channels
        self.temperature = Temperature(width, scaled=scaled, temperature=temperature, learned=learned_temperature)
        embedded = attention != "gaussian"
        self.query = Projection(channels, self.inner_channels, bias=bias) if embedded else None
        self.key = Projection(channels, self.inner_channels, bias=bias) if embedded else None
        # The halves of the one vector that eq. 5 multiplies with query and key, as mmcv's `concat_project` has them.
        self.concat = nn.Linear(2 * self.inner_channels, 1, bias=False) if attention == "concatenation" else None
        self.gamma = nn.Parameter(torch.empty(1)) if output == "gamma" else None
        self.reset_parameters()

    @property
    def scale(self) -> float | Tensor:
        """Factor on the similarities."""
        return self.temperature()

    def attention_maps(self, x: Tensor, queries: Tensor | None = None) -> AttentionMaps:
        """Return the coupled attention [B, N, M] of a softmax block as ``pairwise``; it has no unary map.

        Args:
            x: What `forward` takes.
            queries: Flat positions [Q] whose rows to return; None for all.

        Raises:
            ValueError: The block has no softmax, so that its weights are no distribution.
        """
        self._check_softmax()
        grid = self._lifted(x)
        query, key = self._softmax_query_key(*self._tokens(grid), grid.shape[2:])
        return AttentionMaps(attention.pairwise_map(query_rows(query, queries), key, scale=self.scale), None)

    def query_key(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries [B, N, D] and pooled keys [B, M, D] as projected, the softmax of whose products attends.

        Raises:
            ValueError: The block has no softmax.
        """
        self._check_softmax()
        grid = self._lifted(x)
        tokens, sources = self._tokens(grid)
        if self.query is None or self.key is None:
            return tokens, self._pooled_after(sources, grid.shape[2:])
        return self.query(tokens), self._pooled_after(self.key(sources), grid.shape[2:])

    def _check_softmax(self) -> None:
        if self.attention not in _SOFTMAX:
            raise ValueError(
                f"{self.attention} attention has no softmax map; attention maps need embedded_gaussian or gaussian"
            )

    def _terms(self, grid: Tensor) -> tuple[Tensor, ...]:
        tokens, sources = self._tokens(grid)
        size = grid.shape[2:]
        value = self._pooled_after(self.value(sources), size)
        if self.attention in _SOFTMAX:
            query, key = self._softmax_query_key(tokens, sources, size)
            y = attention.non_local_attention(query, key, value, scale=self.scale)
        else:
            assert self.query is not None
            assert self.key is not None
            query, key = self.query(tokens), self._pooled_after(self.key(sources), size)
            if self.concat is None:
                y = attention.dot_product_attention(query, key, value)
            else:
                query_logits, key_logits = self._concatenation_logits(query, key)
                y = attention.concatenation_attention(query_logits, key_logits, value)
        return (self._projected(self._gated(y), size),)

    def _softmax_query_key(self, tokens: Tensor, sources: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        # Centring the keys shifts each row by a constant that the softmax removes, and keeps half precision right.
        if self.query is None or self.key is None:
            return tokens, attention.center(self._pooled_after(sources, size))
        (key,) = attention.centered_projections(sources, (self.key.weight, self.key.bias))
        return self.query(tokens), self._pooled_after(key, size)

    def _concatenation_logits(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        assert self.concat is not None
        of_query, of_key = self.concat.weight[0].split(self.inner_channels)
        return query @ of_query, key @ of_key  # [B, N], [B, M]


class DisentangledNonLocalBlock3d(AttentionBlock):
    """Disentangled non-local block (Yin et al., ECCV 2020), spatio-temporal.

    Weights ``softmax_j(scale * (q_i - mu_q) . (k_j - mu_k)) + softmax_j(m_j)`` on shared values. Query, key and
    unary projections have no bias: whitening and the softmax would cancel it.

    Args:
        channels: Channels C of the input.
        inner_channels: Channels D of query, key and value; None is C // 2.
        value_channels: Channels E of the values; None is ``inner_channels``, or C where ``output`` is ``gamma``.
        pairwise: Include the whitened pairwise term.
        unary: Include the unary term.
        scaled: Divide pairwise similarities by sqrt(D).
        temperature: Softmax temperature of the pairwise term; 0.05 in the authors' detection code.
        learned_temperature: Learn it, from that value on.
        pool: Max-pooling (T, H, W) of keys, values and saliency; None for none.
        pool_order: Pool ``before`` the key, value and unary projections, or ``after``.
        whiten_over: Take means over all positions of a sample (``space_time``) or over each ``frame`` by itself.
        bias: Give query, key and unary projections the dead bias that published weights have.
        value_bias: Give the values a bias.
        output: ``conv_bn``, ``conv``, or ``gamma``: no projection, a scalar on the pairwise term, and the unary term
            added as it is, alive from the start.
        output_bias: Give the output projection a bias.
        project_terms: Project (and normalise) the ``sum`` of the terms, or ``each`` by itself, as mmseg does.
        zero_init: Start the batch norm's scale (``conv``: the projection, ``gamma``: the scalar) at zero.
        checkpoint: Recompute the attention in the backward pass instead of storing what it needs.

    Shape:
        [B, C, T, H, W], [B, C, H, W] or [B, C, L], out as in. N positions, M of them after pooling.
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int | None = None,
        *,
        value_channels: int | None = None,
        pairwise: bool = True,
        unary: bool = True,
        scaled: bool = True,
        temperature: float = 0.05,
        learned_temperature: bool = False,
        pool: Sequence[int] | None = (1, 2, 2),
        pool_order: PoolOrder = "before",
        whiten_over: Literal["space_time", "frame"] = "space_time",
        bias: bool = False,
        value_bias: bool = True,
        output: Output = "conv_bn",
        output_bias: bool = True,
        project_terms: Literal["sum", "each"] = "sum",
        zero_init: bool = True,
        checkpoint: bool = False,
    ) -> None:
        super().__init__(
            channels,
            inner_channels,
            value_channels,
            pool=pool,
            pool_order=pool_order,
            value_bias=value_bias,
            output=output,
            output_bias=output_bias,
            zero_init=zero_init,
            checkpoint=checkpoint,
        )
        if not (pairwise or unary):
            raise ValueError("pairwise and unary are both False; a block needs at least one term")
        check_choice("whiten_over", whiten_over, Literal["space_time", "frame"])
        check_choice("project_terms", project_terms, Literal["sum", "each"])
        if pool is not None and pool[0] > 1 and whiten_over == "frame":
            raise ValueError(f"pool {tuple(pool)} mixes frames; whiten_over='frame' needs a pool of 1 along T")
        self.whiten_over = whiten_over
        self.project_terms = project_terms
        # A term that is switched off owns no parameters: DDP refuses those that get no gradient.
        self.temperature = Temperature(
            self.inner_channels, scaled=scaled, temperature=temperature, learned=learned_temperature and pairwise
        )
        self.query = Projection(channels, self.inner_channels, bias=bias) if pairwise else None
        self.key = Projection(channels, self.inner_channels, bias=bias) if pairwise else None
        self.unary = nn.Linear(channels, 1, bias=bias) if unary else None
        self.gamma = nn.Parameter(torch.empty(1)) if output == "gamma" and pairwise else None
        self.reset_parameters()

    @property
    def scale(self) -> float | Tensor:
        """Factor on the pairwise similarities."""
        return self.temperature()

    def attention_maps(self, x: Tensor, queries: Tensor | None = None) -> AttentionMaps:
        """Return the whitened pairwise map [B, N, M] and the unary map [B, M]; each row of either sums to 1.

        Args:
            x: What `forward` takes.
            queries: Flat positions [Q] whose pairwise rows to return; None for all.
        """
        grid = self._lifted(x)
        tokens, sources = self._tokens(grid)
        size = grid.shape[2:]
        pairwise = unary = None
        if self.query is not None:
            query, key = self._whitened_query_key(tokens, sources, size)
            pairwise = attention.pairwise_map(query_rows(query, queries), key, scale=self.scale)
        if self.unary is not None:
            unary = attention.unary_map(self._saliency(sources, size))
        return AttentionMaps(pairwise, unary)

    def _terms(self, grid: Tensor) -> tuple[Tensor, ...]:
        tokens, sources = self._tokens(grid)
        size = grid.shape[2:]
        value = self._pooled_after(self.value(sources), size)
        salient = None
        if self.unary is not None:
            salient = attention.unary_attention(self._saliency(sources, size), value).unsqueeze(1)  # [B, 1, E]
        if self.query is None:
            assert salient is not None
            # One position projected, not N; expanded all the same, since a batch norm counts positions.
            return (self._projected(salient, (1, 1, 1)).expand(-1, -1, *size),)
        query, key = self._whitened_query_key(tokens, sources, size)
        y = self._gated(attention.non_local_attention(query, key, value, scale=self.scale))
        if salient is None:
            return (self._projected(y, size),)
        if self.project_terms == "each":
            return self._projected(y, size), self._projected(salient, (1, 1, 1))
        return (self._projected(y + salient, size),)

    def _whitened_query_key(self, tokens: Tensor, sources: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        assert self.query is not None
        assert self.key is not None
        batch = tokens.shape[0]
        # Per-frame whitening treats frames as samples of their own.
        groups = batch if self.whiten_over == "space_time" else batch * size[0]
        of_query, of_key = (self.query.weight, self.query.bias), (self.key.weight, self.key.bias)
        grouped = tokens.reshape(groups, -1, self.channels)
        if sources is tokens:
            query, key = attention.centered_projections(grouped, of_query, of_key)
        else:
            (query,) = attention.centered_projections(grouped, of_query)
            (key,) = attention.centered_projections(sources.reshape(groups, -1, self.channels), of_key)
        key = key.reshape(batch, -1, self.inner_channels)
        if self.pool is not None and self.pool_order == "after":
            # The mean must be that of the pooled keys. What was taken off before moves the maxima with it.
            key = attention.center(self._pooled(key, size).reshape(groups, -1, self.inner_channels))
        return query.reshape(batch, -1, self.inner_channels), key.reshape(batch, -1, self.inner_channels)

    def _saliency(self, sources: Tensor, size: Sequence[int]) -> Tensor:
        assert self.unary is not None
        return self._pooled_after(self.unary(sources), size).squeeze(-1)  # [B, M]
