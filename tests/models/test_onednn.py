"""oneDNN's private operators against float64, and when they are taken."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dnl_video.models import attention, onednn
from dnl_video.models.blocks import DisentangledNonLocalBlock3d

from .helpers import relative_error

needs_onednn = pytest.mark.skipif(not onednn.available(), reason="this build or processor lacks the operators")


def tokens(*size: int, offset: float = 0.0) -> torch.Tensor:
    return torch.randn(*size, dtype=torch.float64) + offset


@needs_onednn
@pytest.mark.parametrize(("positions", "keys", "inner", "values"), [(1, 1, 1, 1), (257, 130, 9, 9), (300, 300, 16, 24)])
@pytest.mark.parametrize("scale", [0.7, torch.tensor(0.7)])
def test_attention_equals_the_whole_map(
    positions: int, keys: int, inner: int, values: int, scale: float | torch.Tensor
) -> None:
    q, k, v = tokens(2, positions, inner), tokens(2, keys, inner), tokens(2, keys, values)
    expected = torch.softmax(float(scale) * q @ k.transpose(1, 2), dim=-1) @ v
    # Strides as slices and transposes leave them.
    q32, k32, v32 = (t.float().transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
    with torch.no_grad():
        assert onednn.fits(q32, k32, v32)
        out = attention.non_local_attention(q32, k32, v32, scale=scale)
    assert relative_error(out, expected) < 1e-5


@needs_onednn
def test_centred_projection_equals_centring_afterwards() -> None:
    x, weight, bias = tokens(2, 37, 12, offset=3.0), tokens(5, 12), tokens(5)
    expected = F.linear(x, weight, bias)
    expected = expected - expected.mean(dim=1, keepdim=True)
    with torch.no_grad():
        out = attention.centered_projection(x.float(), weight.float(), bias.float())
    assert relative_error(out, expected) < 1e-5


@needs_onednn
def test_projection_equals_linear() -> None:
    layer = onednn.Projection(12, 5)
    x = torch.randn(2, 3, 12)
    expected = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    with torch.no_grad():
        assert relative_error(layer(x), expected) < 1e-6


def test_the_path_is_taken_only_where_no_gradient_is_wanted() -> None:
    x, weight = torch.randn(3, 4), torch.randn(2, 4, requires_grad=True)
    assert not onednn.fits(x, weight)
    with torch.no_grad():
        assert onednn.fits(x, weight) == onednn.available()
        assert not onednn.fits(x.double(), weight)
        assert not onednn.fits(x.bfloat16(), weight)
        assert not onednn.fits(x.to("meta"), weight)
        with torch.autocast("cpu", torch.bfloat16):
            assert not onednn.fits(x, weight)


def test_a_block_is_the_same_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    block = DisentangledNonLocalBlock3d(16, pool=None).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter))
        x = torch.randn(2, 16, 3, 7, 5)
        fast = block(x)
        monkeypatch.setattr(onednn, "available", lambda: False)
        slow = block(x)
    exact = block.double()(x.double())
    assert relative_error(fast, exact) < 1e-5
    assert relative_error(slow, exact) < 1e-5
    assert not torch.equal(slow, x)
