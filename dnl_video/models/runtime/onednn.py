"""oneDNN's layers, which PyTorch uses in compiled code only, for inference on x86 CPUs.

Why: with one thread eager PyTorch sends small convolutions to an unfold-and-multiply path, and matrix products to a
BLAS that is half as fast on processors not made by Intel. oneDNN adds bias, ReLU and the residual while a result is
still in cache. The operators are private to torch, those that torch._inductor's freezing emits
(torch/_inductor/fx_passes/mkldnn_fusion.py); `available` tries them before any use, and where they do not work ordinary
layers take their place. The convolutions have no gradient.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Pair = tuple[int, ...]
# Rows of an attention map made at once: few enough to stay in cache, enough for products at full speed.
_ROWS = 256
# Multiplications of a product below which calling it from Python costs more than it saves.
_WORTHWHILE = 2**26


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
            rows, columns = torch.arange(6.0).reshape(3, 2), torch.arange(8.0).reshape(2, 4)
            product = _product(rows, columns.t(), torch.arange(4.0))  # of a transposed view
            turned = _product(columns.t(), rows)
        equal = torch.equal(product, rows @ columns + torch.arange(4.0)) and torch.equal(turned, (rows @ columns).t())
        return bool((small == 0).all() and (other == 3).all() and equal)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def fits(*tensors: Tensor, multiplications: int | None = None) -> bool:
    """Return whether tensors can take this path here: eager, float32, on the CPU, outside torch.func's transforms.

    Args:
        tensors: What goes in.
        multiplications: Those of a product, which must be large enough to make up for the way to it. They are looked
            at last: a comparison of traced sizes would hold a program of torch.export to batches on one side of it.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return False
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    if not plain or torch.is_autocast_enabled("cpu") or not available():
        return False
    return multiplications is None or multiplications >= _WORTHWHILE


def wants_gradient(*tensors: Tensor) -> bool:
    """Return whether autograd would record what is done with the tensors."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


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
    """Compute ``x W^T + b`` for x [..., C] and weight [D, C]; differentiable once."""
    return _Linear.apply(x, weight, bias)


def attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
    """Softmax attention, a few rows of the map at a time, which the backward pass computes again; differentiable once.

    Args:
        query: [B, N, D].
        key: [B, M, D].
        value: [B, M, E].
        scale: Factor on the similarities.

    Returns:
        [B, N, E].
    """
    return _Attention.apply(query, key, value, scale)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    # Transposed views cost nothing: oneDNN packs both factors anyway.
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            _product(grad, weight.t()) if of_x else None,
            _product(rows.t(), x.reshape(-1, x.shape[-1]).t()) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        out = query.new_empty(*query.shape[:2], value.shape[2])
        for b, rows in _chunks(query):
            weights = _product(query[b, rows] * scale, key[b]).softmax(dim=-1)  # [R, M]
            out[b, rows] = _product(weights, value[b].t())
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        query, key, value, ctx.scale = inputs
        ctx.save_for_backward(query, key, value, output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output = ctx.saved_tensors
        of_query = torch.empty_like(query)
        # Transposed, so that every product has its long side where oneDNN likes it.
        of_key = key.new_zeros(key.shape[0], key.shape[2], key.shape[1])
        of_value = value.new_zeros(value.shape[0], value.shape[2], value.shape[1])
        for b, rows in _chunks(query):
            q, g = query[b, rows] * ctx.scale, grad[b, rows]
            weights = _product(q, key[b]).softmax(dim=-1)  # [R, M]
            of_value[b] += _product(g.t(), weights.t())
            # The softmax's Jacobian: dS = P * (dP - rowsum(dP * P)), the row sum being that of dO * O.
            of_logits = _product(g, value[b]).sub_((g * output[b, rows]).sum(dim=1, keepdim=True)).mul_(weights)
            of_query[b, rows] = _product(of_logits, key[b].t()).mul_(ctx.scale)
            of_key[b] += _product(q.t(), of_logits.t())
        return of_query, of_key.transpose(1, 2), of_value.transpose(1, 2), None


def _chunks(query: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield every sample's number with slices of its rows."""
    for b in range(query.shape[0]):
        for start in range(0, query.shape[1], _ROWS):
            yield b, slice(start, start + _ROWS)
