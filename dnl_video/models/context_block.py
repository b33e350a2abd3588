"""Base classes of the context blocks: input shapes, projections, pooling, output, residual sum, checkpointing.

A context block maps features to the same shape: ``x + context(x)``. Its 1x1x1 convolutions are linear maps of each
position, so they are `nn.Linear` layers on channels-last tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpointed

from dnl_video.models.runtime.kernels import Projection
from dnl_video.spec import Output

PoolOrder = Literal["before", "after"]


class AttentionMaps(NamedTuple):
    """The attention of a block: ``pairwise`` [B, N, M] and ``unary`` [B, M]; None for a term that the block lacks.

    With ``queries`` given, ``pairwise`` has only their rows. Positions are flattened, row-major, T before H before W.
    """

    pairwise: Tensor | None
    unary: Tensor | None


class ContextBlock(nn.Module):
    """Base of all blocks: ``x + sum of terms``, each term normalised if the block has a batch norm.

    A subclass makes its layers, calls `reset_parameters`, and implements `_terms` and `attention_maps`. Images
    [B, C, H, W] and sequences [B, C, L] are treated as clips [B, C, T, H, W] of one frame.

    Args:
        channels: Channels C.
        checkpoint: Recompute the terms in the backward pass instead of storing what they need. The batch norm is not
            recomputed, because that would update its running statistics twice.
    """

    norm: nn.Module | None

    def __init__(self, channels: int, *, checkpoint: bool) -> None:
        super().__init__()
        self.channels = channels
        self.checkpoint = checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """Attend and add: [B, C, T, H, W], [B, C, H, W] or [B, C, L] to the same shape."""
        grid = self._as_clip(x)
        if self.checkpoint and torch.is_grad_enabled():
            terms = checkpointed(self._terms, grid, use_reentrant=False, preserve_rng_state=False)
        else:
            terms = self._terms(grid)
        for term in terms:
            grid = grid + (term if self.norm is None else self.norm(term))
        return grid.reshape(x.shape)

    def __repr__(self) -> str:
        """Show the block in one line, without its layers."""
        return f"{type(self).__name__}({self.extra_repr()})"

    def attention_maps(self, x: Tensor, queries: Tensor | None = None) -> AttentionMaps:
        """Return the attention in x, with pairwise rows of the flat positions ``queries`` [Q] only if given."""
        raise NotImplementedError

    def _terms(self, grid: Tensor) -> tuple[Tensor, ...]:
        """Return what is added to the grid [B, C, T, H, W]: terms of that shape, or of one position."""
        raise NotImplementedError

    def _as_clip(self, x: Tensor) -> Tensor:
        """View x as a clip [B, C, T, H, W]."""
        if x.dim() not in (3, 4, 5) or x.shape[1] != self.channels:
            raise ValueError(
                f"input has shape {tuple(x.shape)}; expected [B, {self.channels}, T, H, W], [B, {self.channels}, H, W] "
                f"or [B, {self.channels}, L]"
            )
        return x.reshape(*x.shape[:2], *(1,) * (5 - x.dim()), *x.shape[2:])

    def reset_parameters(self) -> None:
        """Draw the weights of the projections from N(0, 0.01) and set their biases to 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, (nn.BatchNorm3d, nn.LayerNorm)):
                module.reset_parameters()


class AttentionBlock(ContextBlock):
    """Base of the blocks with queries, keys and values: their projections, pooling, and three forms of the output.

    A block owns no parameter that it does not use, because DDP refuses parameters without a gradient. The options that
    are not listed are those of `blocks.NonLocalBlock3d`.

    Args:
        channels: Channels C of the input.
        inner_channels: Channels D of query and key; None is C // 2.
        value_channels: Channels E of the values; None is D, or C for ``output="gamma"``.
        pairwise: The block has a pairwise term: a temperature to learn, and a gamma for ``output="gamma"``.
        embedded: Project queries and keys; otherwise the features themselves are compared.
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int | None,
        value_channels: int | None,
        *,
        pairwise: bool,
        embedded: bool,
        scaled: bool,
        temperature: float,
        learned_temperature: bool,
        pool: Sequence[int] | None,
        pool_order: PoolOrder,
        bias: bool,
        value_bias: bool,
        output: Output,
        output_bias: bool,
        zero_init: bool,
        checkpoint: bool,
    ) -> None:
        super().__init__(channels, checkpoint=checkpoint)
        self.inner_channels = inner_channels if inner_channels is not None else max(channels // 2, 1)
        if self.inner_channels < 1:
            raise ValueError(f"inner_channels is {inner_channels}; give at least 1, or None for channels // 2")
        if pool is not None and (len(pool) != 3 or min(pool) < 1):
            raise ValueError(f"pool is {tuple(pool)}; give three sizes (T, H, W) of at least 1, or None")
        check_choice("pool_order", pool_order, PoolOrder)
        check_choice("output", output, Output)
        self.value_channels = value_channels or (channels if output == "gamma" else self.inner_channels)
        if output == "gamma" and self.value_channels != channels:
            raise ValueError(
                f"value_channels is {value_channels}; output='gamma' has no output projection, so the values need all "
                f"{channels} channels"
            )
        self.pool = tuple(pool) if pool is not None and max(pool) > 1 else None
        self.pool_order = pool_order
        self.output = output
        self.value = Projection(channels, self.value_channels, bias=value_bias)
        self.out = Projection(self.value_channels, channels, bias=output_bias) if output != "gamma" else None
        self.norm = nn.BatchNorm3d(channels) if output == "conv_bn" else None
        width = self.inner_channels if embedded or not pairwise else channels
        learned = learned_temperature and pairwise
        self.temperature = Temperature(width, scaled=scaled, temperature=temperature, learned=learned)
        self.query = Projection(channels, self.inner_channels, bias=bias) if embedded else None
        self.key = Projection(channels, self.inner_channels, bias=bias) if embedded else None
        self.gamma = nn.Parameter(torch.empty(1)) if output == "gamma" and pairwise else None
        self._zero_init = zero_init

    @property
    def scale(self) -> float | Tensor:
        """Factor on the pairwise similarities."""
        return self.temperature()

    def reset_parameters(self) -> None:
        """Draw projections from N(0, 0.01), set biases to 0 and, with ``zero_init``, the last layer of the block."""
        super().reset_parameters()
        if self._zero_init and isinstance(self.norm, nn.BatchNorm3d):
            nn.init.zeros_(self.norm.weight)
        elif self._zero_init and self.out is not None:
            nn.init.zeros_(self.out.weight)
        if self.gamma is not None:
            nn.init.constant_(self.gamma, 0.0 if self._zero_init else 1.0)

    def _tokens(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Return all tokens [B, N, C], and the tokens from which keys and values are projected [B, N or M, C]."""
        tokens = grid.flatten(2).transpose(1, 2).contiguous()  # [B, N, C]; a view if the grid is channels-last
        sources = self._pooled(tokens, grid.shape[2:]) if self.pool_order == "before" else tokens
        return tokens, sources

    def _pooled(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Max-pool tokens [B, T*H*W, C] to [B, M, C]."""
        if self.pool is None:
            return tokens
        # Not larger than the feature map, so that small crops run.
        kernel = [min(k, s) for k, s in zip(self.pool, size, strict=True)]
        grid = tokens.transpose(1, 2).unflatten(2, tuple(size))  # [B, C, T, H, W], channels-last strides
        return F.max_pool3d(grid, kernel).flatten(2).transpose(1, 2).contiguous()

    def _pooled_after(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        return self._pooled(tokens, size) if self.pool_order == "after" else tokens

    def _gated(self, y: Tensor) -> Tensor:
        """Scale the pairwise term by gamma, if there is one."""
        return y if self.gamma is None else (y * self.gamma).to(y.dtype)

    def _projected(self, y: Tensor, size: Sequence[int]) -> Tensor:
        """Project attended values y [B, T*H*W, E] to a grid [B, C, T, H, W]."""
        y = y if self.out is None else self.out(y)
        return y.transpose(1, 2).unflatten(2, tuple(size))

    def extra_repr(self) -> str:
        """Show sizes and temperature, and the options that are not the usual ones."""
        usual = {"attention": "embedded_gaussian", "terms": "pairwise + unary", "pool_order": "before"}
        usual |= {"output": "conv_bn", "whiten_over": "space_time"}
        shown: dict[str, Any] = {"channels": self.channels, "inner": self.inner_channels, "pool": self.pool}
        if getattr(self, "terms", "") != "unary":
            learned = "learned from " if self.temperature.log is not None else ""
            shown["temperature"] = f"{learned}{self.temperature.initial:g}"
        shown |= {name: value for name in usual if (value := getattr(self, name, usual[name])) != usual[name]}
        return ", ".join(f"{name}={value}" for name, value in shown.items())


class Temperature(nn.Module):
    """The factor on the similarities: 1 / temperature, divided by sqrt(D) if ``scaled``.

    A learned temperature is stored as its logarithm, so that it stays positive.
    """

    def __init__(self, width: int, *, scaled: bool, temperature: float, learned: bool) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; give a number above 0")
        self.factor = width**-0.5 if scaled else 1.0
        self.initial = temperature
        self.log = nn.Parameter(torch.tensor(float(temperature)).log()) if learned else None

    def forward(self) -> float | Tensor:
        """Return the factor: a tensor without dimensions if the temperature is learned."""
        return self.factor / self.initial if self.log is None else self.factor * torch.exp(-self.log)


def query_rows(query: Tensor, queries: Tensor | None) -> Tensor:
    """Select the rows ``queries`` [Q] of the query tokens [B, N, D]; None for all.

    Raises:
        ValueError: They are not integers from 0 to N - 1.
    """
    if queries is None:
        return query
    if queries.dim() != 1 or queries.dtype.is_floating_point or queries.dtype.is_complex:
        raise ValueError(f"queries is {tuple(queries.shape)} {queries.dtype}; give flat positions as integers [Q]")
    if queries.numel() and not 0 <= int(queries.min()) <= int(queries.max()) < query.shape[1]:
        raise ValueError(
            f"queries reach from {int(queries.min())} to {int(queries.max())}; positions are 0 to {query.shape[1] - 1}"
        )
    return query.index_select(1, queries.to(query.device))


def check_choice(name: str, value: str, allowed: object) -> None:
    """Raise a ValueError for a value that the literal type does not allow."""
    choices = get_args(allowed)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; allowed: {', '.join(choices)}")
