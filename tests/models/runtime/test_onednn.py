"""oneDNN's operators compared with float64, and the conditions of their use."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dnl_video.models import attention
from dnl_video.models.blocks import DisentangledNonLocalBlock3d
from dnl_video.models.runtime import kernels, onednn
from tests.models.helpers import relative_error

needs_onednn = pytest.mark.skipif(not onednn.available(), reason="this build or processor lacks the operators")


def tokens(*size: int, offset: float = 0.0) -> torch.Tensor:
    return torch.randn(*size, dtype=torch.float64) + offset


@pytest.fixture(autouse=True)
def _whatever_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "_WORTHWHILE", 0)


@needs_onednn
@pytest.mark.parametrize(("positions", "keys", "inner", "values"), [(1, 1, 1, 1), (257, 130, 9, 9), (300, 300, 16, 24)])
@pytest.mark.parametrize("scale", [0.7, torch.tensor(0.7, requires_grad=True)])
def test_attention_equals_the_whole_map_forward_and_backward(
    positions: int, keys: int, inner: int, values: int, scale: float | torch.Tensor
) -> None:
    exact = [tokens(2, positions, inner), tokens(2, keys, inner), tokens(2, keys, values)]
    # Strides as transposes leave them.
    rounded = [t.float().transpose(1, 2).contiguous().transpose(1, 2) for t in exact]
    leaves = [*exact, *rounded]
    for leaf in leaves:
        leaf.requires_grad_()
    q, k, v = exact
    factor = scale.detach().double().requires_grad_() if isinstance(scale, torch.Tensor) else scale
    expected = torch.softmax(factor * q @ k.transpose(1, 2), dim=-1) @ v
    assert onednn.fits(*rounded)
    out = attention.non_local_attention(*rounded, scale=scale)
    assert "_Attention" in type(out.grad_fn).__name__
    assert relative_error(out, expected) < 1e-5
    gradient = tokens(*expected.shape)
    learned = [[], []] if isinstance(scale, float) else [[factor], [scale]]
    wanted = torch.autograd.grad(expected, exact + learned[0], gradient)
    found = torch.autograd.grad(out, rounded + learned[1], gradient.float())
    for a, b in zip(found, wanted, strict=True):
        # With one key the softmax is constant: both gradients are zero up to rounding.
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


@needs_onednn
def test_centred_projection_equals_centring_afterwards_forward_and_backward() -> None:
    x, weight, bias = tokens(2, 37, 12, offset=3.0), tokens(5, 12), tokens(5)
    rounded = [t.float().requires_grad_() for t in (x, weight, bias)]
    exact = [t.requires_grad_() for t in (x, weight, bias)]
    expected = F.linear(*exact)
    expected = expected - expected.mean(dim=1, keepdim=True)
    out = attention.centered_projections(rounded[0], tuple(rounded[1:]))[0]
    assert relative_error(out, expected) < 1e-5
    gradient = tokens(*expected.shape)
    wanted = torch.autograd.grad(expected, exact, gradient)
    for a, b in zip(torch.autograd.grad(out, rounded, gradient.float()), wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


@needs_onednn
@pytest.mark.parametrize("frozen", [(), (0,), (1,), (0, 1)])
def test_projection_equals_linear_forward_and_backward(frozen: tuple[int, ...]) -> None:
    layer = kernels.Projection(12, 5)
    x = torch.randn(2, 3, 12)
    leaves = [t.detach().requires_grad_(i not in frozen) for i, t in enumerate((x, layer.weight, layer.bias))]
    layer.weight, layer.bias = (torch.nn.Parameter(t, t.requires_grad) for t in leaves[1:])
    out, expected = layer(leaves[0]), F.linear(leaves[0], layer.weight, layer.bias)
    assert "_Linear" in type(out.grad_fn).__name__
    torch.testing.assert_close(out, expected)
    wanted = [t for t in (leaves[0], layer.weight, layer.bias) if t.requires_grad]
    gradient = torch.randn(2, 3, 5)
    for a, b in zip(
        torch.autograd.grad(out, wanted, gradient), torch.autograd.grad(expected, wanted, gradient), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_onednn_is_used_only_for_eager_float32_on_a_cpu() -> None:
    x, weight = torch.randn(3, 4), torch.randn(2, 4, requires_grad=True)
    assert onednn.fits(x, weight) == onednn.available()
    assert onednn.wants_gradient(x, weight)
    assert not onednn.wants_gradient(x)
    with torch.no_grad():
        assert not onednn.wants_gradient(x, weight)
    assert not onednn.fits(x.double(), weight)
    assert not onednn.fits(x.bfloat16(), weight)
    assert not onednn.fits(x.to("meta"), weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not onednn.fits(x, weight)


def test_functional_gradients_still_work() -> None:
    block = DisentangledNonLocalBlock3d(8, pool=None).eval()
    torch.nn.init.ones_(block.norm.weight)
    x, parameters = torch.randn(2, 8, 2, 3, 3), dict(block.named_parameters())

    def loss(p: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(block, p, x).square().sum()

    functional = torch.func.grad(loss)(parameters)
    ordinary = torch.autograd.grad(loss(parameters), list(parameters.values()))
    for name, grad in zip(parameters, ordinary, strict=True):
        torch.testing.assert_close(functional[name], grad, rtol=1e-4, atol=1e-5)


def test_a_block_is_equal_with_and_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
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
