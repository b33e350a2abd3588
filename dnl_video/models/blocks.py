"""Non-local and disentangled non-local blocks on [B, C, T, H, W], and the two terms of the latter alone.

Papers: Wang et al., "Non-local Neural Networks", CVPR 2018, arXiv 1711.07971 (`NonLocalBlock3d`); Yin et al.,
"Disentangled Non-Local Neural Networks", ECCV 2020, arXiv 2006.06668 (`DisentangledNonLocalBlock3d`). The equations are
in `attention`. Pooling and the zero-initialised batch norm follow video-nonlocal-net; `dialects` has the other
published variants.

`forward` makes no N x M matrix; `attention_maps` makes it, to look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from dnl_video.models import attention
from dnl_video.models.context_block import AttentionBlock, AttentionMaps, PoolOrder, check_choice, query_rows
from dnl_video.spec import Output, Similarity

_SOFTMAX = ("embedded_gaussian", "gaussian")


class NonLocalBlock3d(AttentionBlock):
    """Non-local block (Wang et al.), as video-nonlocal-net and PySlowFast insert it into video backbones.

    Args:
        channels: Channels C of the input.
        inner_channels: Channels D of query, key and value; None is C // 2.
        value_channels: Channels E of the values; None is ``inner_channels``, or C for ``output="gamma"``.
        attention: ``embedded_gaussian``; ``gaussian``, which compares the features themselves (no query and key
            projections); ``dot_product`` or ``concatenation``, divided by the number of keys.
        scaled: Divide the similarities of a softmax by sqrt(D).
        temperature: Softmax temperature.
        learned_temperature: Learn the temperature, starting from ``temperature``.
        pool: Max-pooling (T, H, W) of keys and values; None for none.
        pool_order: Pool ``before`` the key and value projections (PySlowFast) or ``after`` (mmaction2).
        bias: Give query and key a bias.
        value_bias: Give the values a bias.
        output: ``conv_bn``, a projection E -> C and a batch norm; ``conv``, the projection alone; ``gamma``, no
            projection but a learned scalar.
        output_bias: Give the output projection a bias.
        zero_init: Start the batch norm's scale (``conv``: the projection; ``gamma``: the scalar) at zero, so that a new
            block is the identity.
        checkpoint: Recompute the attention in the backward pass instead of storing what it needs.

    Shape:
        [B, C, T, H, W], [B, C, H, W] or [B, C, L], out as in. N positions; M keys after pooling.
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
        check_choice("attention", attention, Similarity)
        if learned_temperature and attention not in _SOFTMAX:
            raise ValueError(f"{attention} attention has no softmax, so no temperature to learn")
        super().__init__(
            channels,
            inner_channels,
            value_channels,
            pairwise=True,
            embedded=attention != "gaussian",
            scaled=scaled,
            temperature=temperature,
            learned_temperature=learned_temperature,
            pool=pool,
            pool_order=pool_order,
            bias=bias,
            value_bias=value_bias,
            output=output,
            output_bias=output_bias,
            zero_init=zero_init,
            checkpoint=checkpoint,
        )
        self.attention = attention
        # The two halves of the vector of eq. 5, in the layout of mmcv's `concat_project`.
        self.concat = nn.Linear(2 * self.inner_channels, 1, bias=False) if attention == "concatenation" else None
        self.reset_parameters()

    def attention_maps(self, x: Tensor, queries: Tensor | None = None) -> AttentionMaps:
        """Return the attention [B, N, M] of a softmax block as ``pairwise``; it has no unary map.

        Args:
            x: The input of `forward`.
            queries: Flat positions [Q] of the rows to return; None for all.

        Raises:
            ValueError: The block has no softmax, so its weights are not a distribution.
        """
        query, key = self.query_key(x, center_keys=True)
        return AttentionMaps(attention.pairwise_map(query_rows(query, queries), key, scale=self.scale), None)

    def query_key(self, x: Tensor, *, center_keys: bool = False) -> tuple[Tensor, Tensor]:
        """Return queries [B, N, D] and pooled keys [B, M, D] of a softmax block.

        Raises:
            ValueError: The block has no softmax.
        """
        if self.attention not in _SOFTMAX:
            raise ValueError(
                f"{self.attention} attention has no softmax map; attention maps need embedded_gaussian or gaussian"
            )
        grid = self._as_clip(x)
        return self._query_key(*self._tokens(grid), grid.shape[2:], center_keys=center_keys)

    def _terms(self, grid: Tensor) -> tuple[Tensor, ...]:
        tokens, sources = self._tokens(grid)
        size = grid.shape[2:]
        value = self._pooled_after(self.value(sources), size)
        # Centring the keys changes nothing behind a softmax, but keeps half precision accurate.
        softmax = self.attention in _SOFTMAX
        query, key = self._query_key(tokens, sources, size, center_keys=softmax)
        if softmax:
            y = attention.non_local_attention(query, key, value, scale=self.scale)
        elif self.concat is None:
            y = attention.dot_product_attention(query, key, value)
        else:
            of_query, of_key = self.concat.weight[0].split(self.inner_channels)
            y = attention.concatenation_attention(query @ of_query, key @ of_key, value)
        return (self._projected(self._gated(y), size),)

    def _query_key(
        self, tokens: Tensor, sources: Tensor, size: Sequence[int], *, center_keys: bool
    ) -> tuple[Tensor, Tensor]:
        if self.query is None or self.key is None:
            key = self._pooled_after(sources, size)
            return tokens, attention.center(key) if center_keys else key
        if center_keys:
            (key,) = attention.centered_projections(sources, (self.key.weight, self.key.bias))
        else:
            key = self.key(sources)
        return self.query(tokens), self._pooled_after(key, size)


class DisentangledNonLocalBlock3d(AttentionBlock):
    """Disentangled non-local block (Yin et al.), spatio-temporal.

    The weights ``softmax_j(scale * (q_i - mu_q) . (k_j - mu_k)) + softmax_j(m_j)`` share the values. Query, key and
    unary projections have no bias by default: whitening and softmax cancel it.

    Args:
        channels: Channels C of the input.
        inner_channels: Channels D of query, key and value; None is C // 2.
        value_channels: Channels E of the values; None is ``inner_channels``, or C for ``output="gamma"``.
        pairwise: Include the whitened pairwise term.
        unary: Include the unary term.
        scaled: Divide the pairwise similarities by sqrt(D).
        temperature: Softmax temperature of the pairwise term; 0.05 in the authors' detection code.
        learned_temperature: Learn the temperature, starting from ``temperature``.
        pool: Max-pooling (T, H, W) of keys, values and saliency; None for none.
        pool_order: Pool ``before`` or ``after`` the key, value and unary projections.
        whiten_over: Take means over all positions of a sample (``space_time``) or over each ``frame`` alone.
        bias: Give query, key and unary projections the bias that published weights have.
        value_bias: Give the values a bias.
        output: ``conv_bn`` or ``conv``, as in `NonLocalBlock3d`; ``gamma``, no projection, and a learned scalar on the
            pairwise term only, so that the unary term is active from the start.
        output_bias: Give the output projection a bias.
        project_terms: Project (and normalise) the ``sum`` of the terms, or ``each`` alone, as mmseg does.
        zero_init: Start the batch norm's scale (``conv``: the projection; ``gamma``: the scalar) at zero.
        checkpoint: Recompute the attention in the backward pass instead of storing what it needs.

    Shape:
        [B, C, T, H, W], [B, C, H, W] or [B, C, L], out as in. N positions; M keys after pooling.
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
            pairwise=pairwise,
            embedded=pairwise,
            scaled=scaled,
            temperature=temperature,
            learned_temperature=learned_temperature,
            pool=pool,
            pool_order=pool_order,
            bias=bias,
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
        self.terms = " + ".join(["pairwise"] * pairwise + ["unary"] * unary)
        self.whiten_over = whiten_over
        self.project_terms = project_terms
        self.unary = nn.Linear(channels, 1, bias=bias) if unary else None
        self.reset_parameters()

    def attention_maps(self, x: Tensor, queries: Tensor | None = None) -> AttentionMaps:
        """Return the whitened pairwise map [B, N, M] and the unary map [B, M]; each row of either sums to 1.

        Args:
            x: The input of `forward`.
            queries: Flat positions [Q] of the pairwise rows to return; None for all.
        """
        grid = self._as_clip(x)
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
        unary = None
        if self.unary is not None:
            unary = attention.unary_attention(self._saliency(sources, size), value).unsqueeze(1)  # [B, 1, E]
        if self.query is None:
            assert unary is not None
            # Project one position, not N; then expand, because a batch norm counts positions.
            return (self._projected(unary, (1, 1, 1)).expand(-1, -1, *size),)
        query, key = self._whitened_query_key(tokens, sources, size)
        pairwise = self._gated(attention.non_local_attention(query, key, value, scale=self.scale))  # [B, N, E]
        if unary is None:
            return (self._projected(pairwise, size),)
        if self.project_terms == "each":
            return self._projected(pairwise, size), self._projected(unary, (1, 1, 1))
        return (self._projected(pairwise + unary, size),)

    def _whitened_query_key(self, tokens: Tensor, sources: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        assert self.query is not None
        assert self.key is not None
        batch = tokens.shape[0]
        # For whitening over each frame alone, frames are treated as samples.
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
            # The mean must be that of the pooled keys. The maxima move with what was subtracted before pooling.
            key = attention.center(self._pooled(key, size).reshape(groups, -1, self.inner_channels))
        return query.reshape(batch, -1, self.inner_channels), key.reshape(batch, -1, self.inner_channels)

    def _saliency(self, sources: Tensor, size: Sequence[int]) -> Tensor:
        assert self.unary is not None
        return self._pooled_after(self.unary(sources), size).squeeze(-1)  # [B, M]
