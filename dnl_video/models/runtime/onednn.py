"""oneDNN operators for eager PyTorch on x86 CPUs, which PyTorch itself uses in compiled code only.

Eager PyTorch with one thread computes small convolutions by unfolding, and matrix products with a BLAS that is half as
fast on CPUs that Intel did not make. oneDNN adds bias, ReLU and residual while a result is in cache. The operators are
private to torch: those that torch._inductor emits (torch/_inductor/fx_passes/mkldnn_fusion.py). `available` tries them
before use; where they fail, ordinary layers are used. The convolutions have no gradient.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Sizes = tuple[int, ...]
Geometry = tuple[Sizes, Sizes, Sizes, int]  # padding, stride, dilation, groups of a convolution
# Rows of an attention map computed at once: few enough to stay in cache, enough for products at full speed.
_ROWS = 256
# Below this number of multiplications the call from Python costs more than it saves.
_WORTHWHILE = 2**26


@functools.cache
def available() -> bool:
    """Return whether this build and CPU run the operators correctly, by trying them on simple numbers."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return False
    geometry: Geometry = ((0, 0), (1, 1), (1, 1), 1)
    try:
        with torch.no_grad():
            image, weight, bias = torch.ones(1, 8, 4, 4), torch.ones(8, 8, 1, 1), torch.full((8,), -10.0)
            packed = pack_convolution(weight, geometry, (1, 8, 4, 4))
            small = convolution(image, packed, bias, geometry, relu=True)
            other = torch.full((1, 8, 4, 4), 5.0)
            convolution(image, packed, bias, geometry, relu=False, add=other)
            rows, columns = torch.arange(6.0).reshape(3, 2), torch.arange(8.0).reshape(2, 4)
            product = _product(rows, columns.t(), torch.arange(4.0))  # of a transposed view
            turned = _product(columns.t(), rows)
        equal = torch.equal(product, rows @ columns + torch.arange(4.0)) and torch.equal(turned, (rows @ columns).t())
        return bool((small == 0).all() and (other == 3).all() and equal)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def fits(*tensors: Tensor, multiplications: int | None = None) -> bool:
    """Return whether the operators can compute with these tensors: eager, float32, on the CPU, not in torch.func.

    Args:
        tensors: The inputs.
        multiplications: Multiplications of a matrix product, which must be worth the call. They are checked last: a
            comparison of traced sizes would restrict a program of torch.export to batch sizes on one side of it.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return False
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    if not plain or torch.is_autocast_enabled("cpu") or not available():
        return False
    return multiplications is None or multiplications >= _WORTHWHILE


def wants_gradient(*tensors: Tensor) -> bool:
    """Return whether autograd would record operations on the tensors."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def pack_convolution(weight: Tensor, geometry: Geometry, input_size: Sizes) -> Tensor:
    """Return the weight of a convolution in oneDNN's best layout for inputs of that size."""
    return torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, input_size)


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry, *, relu: bool, add: Tensor | None = None
) -> Tensor:
    """Convolve with a weight that is packed or not, and add the bias; then apply a ReLU if asked.

    With ``add``, overwrite that tensor with ``relu(add + convolution(x))`` and return it.
    """
    if add is not None:
        binary = torch.ops.mkldnn._convolution_pointwise_.binary
        return binary(add, x, weight, bias, *geometry, "add", 1.0, "relu", [], "")
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *geometry, "relu" if relu else "none", [], "")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x W^T + b`` for x [..., C] and weight [D, C]; differentiable once."""
    return _Linear.apply(x, weight, bias)


def attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
    """Softmax attention, a few rows of the map at a time; the backward pass recomputes them. Differentiable once.

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
    # Transposed views cost nothing: oneDNN packs both factors.
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
        # Transposed, so that every product has its long side where oneDNN is fast.
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
    """Yield the number of each sample with slices of its rows."""
    for b in range(query.shape[0]):
        for start in range(0, query.shape[1], _ROWS):
            yield b, slice(start, start + _ROWS)
