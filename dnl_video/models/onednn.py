"""oneDNN's fused layers, which PyTorch uses in compiled code only, for inference on x86 CPUs.

Why: with one thread eager PyTorch sends small convolutions to an unfold-and-multiply path, and its matrix products go
to MKL, which runs AVX2 code on AMD processors. oneDNN has AVX-512 code for both, and adds bias, ReLU and the residual
while a result is still in cache. The operators are those that torch._inductor's freezing emits
(torch/_inductor/fx_passes/mkldnn_fusion.py, torch 2.6 to 2.15). None of them has a gradient.
"""

from __future__ import annotations

import functools
import platform

import torch
from torch import Tensor

# Rows of the similarity matrix held at once: with 6272 keys a few megabytes, which stay in cache.
_ATTENTION_ROWS = 448


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
            product = linear(torch.ones(3, 8), weight.flatten(1), bias)
        return bool((small == 0).all() and (other == 3).all() and (product == -2).all())
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


@functools.cache
def beats_mkl() -> bool:
    """Return whether oneDNN's matrix products are worth leaving fused attention for: where it has AVX-512."""
    return available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def fits(*tensors: Tensor) -> bool:
    """Return whether tensors can take this path here: eager, float32, on the CPU, no gradient wanted."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return False
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    return plain and not torch.is_autocast_enabled("cpu") and available()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``x W^T + b``: [..., C] -> [..., D], with weight [D, C] and bias [D]."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
    """Embedded-Gaussian attention in blocks of rows; as `attention.non_local_attention`, without gradients.

    Args:
        query: [B, N, D].
        key: [B, M, D].
        value: [B, M, E].
        scale: Factor on the similarities.

    Returns:
        [B, N, E].
    """
    out = query.new_empty(*query.shape[:2], value.shape[2])
    scaled = query * scale
    for b in range(query.shape[0]):
        columns = value[b].t().contiguous()  # [E, M]
        for start in range(0, query.shape[1], _ATTENTION_ROWS):
            rows = slice(start, start + _ATTENTION_ROWS)
            similarity = linear(scaled[b, rows], key[b], None)  # [rows, M]
            weights = torch.softmax(similarity, dim=-1, out=similarity)
            out[b, rows] = linear(weights, columns, None)
    return out


Pair = tuple[int, ...]


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
