"""oneDNN's layers, which PyTorch uses in compiled code only, for inference on x86 CPUs.

Why: with one thread eager PyTorch sends small convolutions to an unfold-and-multiply path, and matrix products to a
BLAS that is half as fast on processors not made by Intel. oneDNN adds bias, ReLU and the residual while a result is
still in cache. The operators are private to torch, those that torch._inductor's freezing emits
(torch/_inductor/fx_passes/mkldnn_fusion.py); `available` tries them before any use, and where they do not work ordinary
layers take their place. None of them has a gradient.
"""

from __future__ import annotations

import functools
import platform

import torch
from torch import Tensor, nn

Pair = tuple[int, ...]
# Rows of an attention map made at once: few enough to stay in cache, enough for products at full speed.
_ROWS = 256


@functools.cache
def available() -> bool:
    """Return whether this build and processor run the operators, by trying them on numbers that are easy to check."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return False
    try:
        with torch.no_grad():
            image, weight, bias = torch.ones(1, 8, 4, 4), torch.ones(8, 8, 1, 1), torch.full((8,), -10.0)
            packed = pack_convolution(weight, (0, 0), (1, 1), (1, 1), 1, (1, 8, 4, 4))
            small = convolution(image, packed, bias, (0, 0), (1, 1), (1, 1), 1, relu=True)
            other = torch.full((1, 8, 4, 4), 5.0)
            convolution_add_relu(image, packed, bias, (0, 0), (1, 1), (1, 1), 1, other)
            summed = linear(torch.ones(2, 8), torch.ones(3, 8), torch.arange(3.0))
        return bool((small == 0).all() and (other == 3).all() and (summed == torch.tensor([8.0, 9.0, 10.0])).all())
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def fits(*tensors: Tensor) -> bool:
    """Return whether tensors can take this path here: eager, float32, on the CPU, no gradient wanted."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return False
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    return plain and not torch.is_autocast_enabled("cpu") and available()


def pack_convolution(
    weight: Tensor, padding: Pair, stride: Pair, dilation: Pair, groups: int, input_size: Pair
) -> Tensor:
    """Return a convolution's weight in the layout that oneDNN likes best for inputs of that size."""
    return torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups, input_size)


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    padding: Pair,
    stride: Pair,
    dilation: Pair,
    groups: int,
    *,
    relu: bool,
) -> Tensor:
    """Convolve, add the bias and apply a ReLU if asked; ``weight`` is packed or not."""
    after = "relu" if relu else "none"
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, padding, stride, dilation, groups, after, [], "")


def convolution_add_relu(
    x: Tensor, weight: Tensor, bias: Tensor, padding: Pair, stride: Pair, dilation: Pair, groups: int, other: Tensor
) -> Tensor:
    """Overwrite ``other`` with ``relu(other + convolution(x))`` and return it."""
    return torch.ops.mkldnn._convolution_pointwise_.binary(
        other, x, weight, bias, padding, stride, dilation, groups, "add", 1.0, "relu", [], ""
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x W^T + b`` for x [..., C] and weight [D, C]."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
    """Softmax attention [B, N, E] of query [B, N, D], key [B, M, D] and value [B, M, E], a few rows at a time."""
    batch, positions, _ = query.shape
    out = query.new_empty(batch, positions, value.shape[2])
    for b in range(batch):
        columns = value[b].t().contiguous()
        for start in range(0, positions, _ROWS):
            logits = linear(query[b, start : start + _ROWS] * scale, key[b].contiguous())
            out[b, start : start + _ROWS] = linear(logits.softmax(dim=-1), columns)
    return out


class Projection(nn.Linear):
    """A linear map of each position, by oneDNN where it can be."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., D]."""
        if fits(x, self.weight):
            return linear(x, self.weight, self.bias)
        return super().forward(x)
