"""Count parameters and multiply-accumulates with fvcore.

fvcore does not count fused attention and `baddbmm`; both are registered here. A multiply-accumulate counts once, as in
the tables of PySlowFast and mmaction2. Batch norms count two per value, as in those tables; softmaxes, max-pooling and
sums are not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn


@dataclass(frozen=True)
class Cost:
    """The cost of a network: ``params``, and ``macs`` for one clip."""

    params: int
    macs: int


def count(module: nn.Module, *shape: int) -> Cost:
    """Count the parameters of a module and its multiply-accumulates for an input of that shape.

    The module runs once: fvcore traces it, and current torch cannot trace on the meta device.
    """
    module = module.eval()
    device = next(module.parameters()).device
    analysis = FlopCountAnalysis(module, torch.empty(shape, device=device))
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
    analysis.set_op_handle("aten::baddbmm", _baddbmm_macs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    params = sum(p.numel() for p in module.parameters())
    return Cost(params, int(analysis.total()))


def _shape(value: Any) -> list[int]:
    return value.type().sizes()


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Query [..., N, D] by key [..., M, D], then weights [..., N, M] by value [..., M, E]."""
    *heads, n, d = _shape(inputs[0])
    m, e = _shape(inputs[1])[-2], _shape(inputs[2])[-1]
    return math.prod(heads) * n * m * (d + e)


def _baddbmm_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """[B, N, C] by [B, C, D]; the sum is not counted."""
    batch, n, c = _shape(inputs[1])
    return batch * n * c * _shape(inputs[2])[-1]
