"""Query-independent blocks: the simplified non-local block and GCNet's global context block.

Paper: Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCV workshops 2019,
arXiv 1904.11492, sections 3.2 and 3.3. Layers and biases are those of the DNL authors' detection code
(mmdet/ops/context_block.py, with ``simple`` and without), the baselines of Yin et al.

All positions share one attention map, so a block adds one vector per sample: O(N) time and memory. The blocks have no
max-pooling and no batch norm.
"""

from __future__ import annotations

from torch import Tensor, nn

from dnl_video.models import attention
from dnl_video.models.context_block import AttentionMaps, ContextBlock
from dnl_video.models.runtime.kernels import Projection


class _GlobalPoolingBlock(ContextBlock):
    """Attention pooling ``sum_j softmax_j(m_j) x_j``, transformed and added to every position."""

    def __init__(self, channels: int, *, zero_init: bool, checkpoint: bool) -> None:
        super().__init__(channels, checkpoint=checkpoint)
        self.norm = None
        self._zero_init = zero_init
        self.mask = nn.Linear(channels, 1)

    def attention_maps(self, x: Tensor, queries: Tensor | None = None) -> AttentionMaps:
        """Return the map [B, N] of the attention pooling as ``unary``; there is no pairwise map.

        Args:
            x: The input of `forward`.
            queries: Ignored, since all queries share the map.
        """
        tokens = self._as_clip(x).flatten(2).transpose(1, 2)
        return AttentionMaps(None, attention.unary_map(self.mask(tokens).squeeze(-1)))

    def _transformed(self, pooled: Tensor) -> Tensor:
        """[B, C] -> [B, C]."""
        raise NotImplementedError

    def _terms(self, grid: Tensor) -> tuple[Tensor, ...]:
        tokens = grid.flatten(2).transpose(1, 2).contiguous()  # [B, N, C]
        pooled = attention.unary_attention(self.mask(tokens).squeeze(-1), tokens)
        return (self._transformed(pooled)[:, :, None, None, None],)

    def reset_parameters(self) -> None:
        """Draw weights from N(0, 0.01), set biases to 0 and, with ``zero_init``, the last layer."""
        super().reset_parameters()
        if self._zero_init:
            last = [module for module in self.modules() if isinstance(module, nn.Linear)][-1]
            nn.init.zeros_(last.weight)

    def extra_repr(self) -> str:
        """Show the channels."""
        return f"channels={self.channels}"


class SimplifiedNonLocalBlock3d(_GlobalPoolingBlock):
    """Simplified non-local block: ``x_i + W_v sum_j softmax_j(m_j) x_j`` (Cao et al., eq. 3).

    The C x C value projection has no bias, the mask projection has one.

    Args:
        channels: Channels C of the input.
        zero_init: Start the value projection at zero, so that a new block is the identity.
        checkpoint: Recompute the block in the backward pass instead of storing what it needs.

    Shape:
        [B, C, T, H, W], [B, C, H, W] or [B, C, L], out as in.
    """

    def __init__(self, channels: int, *, zero_init: bool = True, checkpoint: bool = False) -> None:
        super().__init__(channels, zero_init=zero_init, checkpoint=checkpoint)
        self.value = Projection(channels, channels, bias=False)
        self.reset_parameters()

    def _transformed(self, pooled: Tensor) -> Tensor:
        # W_v is linear: project the weighted sum, one position instead of N.
        return self.value(pooled)


class GlobalContextBlock3d(_GlobalPoolingBlock):
    """GCNet's block: ``x_i + W_2 ReLU(LN(W_1 sum_j softmax_j(m_j) x_j))`` (Cao et al., eq. 5).

    Args:
        channels: Channels C of the input.
        ratio: Channels of the bottleneck as a share of C; published 1/4 and 1/16.
        zero_init: Start the last layer at zero, so that a new block is the identity.
        checkpoint: Recompute the block in the backward pass instead of storing what it needs.

    Shape:
        [B, C, T, H, W], [B, C, H, W] or [B, C, L], out as in.
    """

    def __init__(self, channels: int, *, ratio: float = 0.25, zero_init: bool = True, checkpoint: bool = False) -> None:
        super().__init__(channels, zero_init=zero_init, checkpoint=checkpoint)
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio is {ratio}; give a share of the channels in (0, 1], published: 1/4, 1/16")
        bottleneck = max(int(channels * ratio), 1)
        self.reduce = nn.Linear(channels, bottleneck)
        self.layer_norm = nn.LayerNorm(bottleneck)
        self.expand = nn.Linear(bottleneck, channels)
        self.reset_parameters()

    def extra_repr(self) -> str:
        """Show the bottleneck too."""
        return f"{super().extra_repr()}, bottleneck={self.reduce.out_features}"

    def _transformed(self, pooled: Tensor) -> Tensor:
        return self.expand(self.layer_norm(self.reduce(pooled)).relu())
