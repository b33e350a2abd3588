"""Parameters and multiply-accumulates, by fvcore.

fvcore counts nothing for fused attention and for `baddbmm`; both are registered here. A multiply-accumulate counts
once, as in PySlowFast's and mmaction2's tables. Batch norms count two a value, by fvcore's rule and so in those tables;
softmaxes, max-pooling and sums are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn


@dataclass(frozen=True)
class Cost:
    """What a network costs: ``params`` and ``macs`` for one clip."""

    params: int
    macs: int


def count(module: nn.Module, *shape: int) -> Cost:
    """Count a module's parameters and its multiply-accumulates for an input of that shape.

    It runs once: fvcore traces it, and tracing on the meta device fails in current torch.
    """
    module = module.eval()
    device = next(module.parameters()).device
    analysis = FlopCountAnalysis(module, torch.empty(shape, device=device))
    handles = {
        "aten::scaled_dot_product_attention": _attention_macs,
        "aten::baddbmm": _baddbmm_macs,
    }
    analysis.set_op_handle(**handles).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    params = sum(p.numel() for p in module.parameters())
    return Cost(params, int(analysis.total()))


def _shape(value: Any) -> list[int]:
    return value.type().sizes()


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Query [..., N, D] by key [..., M, D], then weights [..., N, M] by value [..., M, E]."""
    *heads, n, d = _shape(inputs[0])
    m, e = _shape(inputs[1])[-2], _shape(inputs[2])[-1]
    batch = 1
    for size in heads:
        batch *= size
    return batch * n * m * (d + e)


def _baddbmm_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """[B, N, C] by [B, C, D]; the sum is free."""
    batch, n, c = _shape(inputs[1])
    return batch * n * c * _shape(inputs[2])[-1]
