"""The query-independent blocks compared with their equations."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch.func import functional_call

from dnl_video.models.simplified import GlobalContextBlock3d, SimplifiedNonLocalBlock3d
from tests.models import reference
from tests.models.helpers import make_input, perturb, relative_error

BLOCKS = {
    "snl": SimplifiedNonLocalBlock3d,
    "gc": GlobalContextBlock3d,
    "gc16": partial(GlobalContextBlock3d, ratio=1 / 16),
}
ALL_BLOCKS = pytest.mark.parametrize("kind", BLOCKS)


def expected_output(x, weights, kind):
    if kind == "snl":
        return np.stack([reference.simplified_non_local(sample, weights) for sample in x])
    transform = partial(reference.bottleneck, weights=weights)
    return np.stack([reference.global_context(sample, weights, transform) for sample in x])


@ALL_BLOCKS
@pytest.mark.parametrize("shape", [(2, 32, 3, 5, 4), (1, 32, 1, 1, 1), (3, 32, 1, 7, 3)], ids=str)
def test_block_equals_the_loop(kind, shape):
    block, x = perturb(BLOCKS[kind](32).double()), make_input(*shape)
    weights = {name: tensor.numpy() for name, tensor in block.state_dict().items()}
    branch = torch.as_tensor(expected_output(x.numpy(), weights, kind)) - x
    with torch.no_grad():
        assert relative_error(block(x) - x, branch) <= 1e-9
        assert relative_error(copy.deepcopy(block).float()(x.float()) - x.float(), branch) <= 1e-4
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = copy.deepcopy(block).float()(x.float()) - x
    assert (half - branch).norm() < 0.05 * branch.norm()


@ALL_BLOCKS
def test_gradcheck(kind):
    block = perturb(BLOCKS[kind](32).double())
    names = [name for name, _ in block.named_parameters()]

    def run(x, *parameters):
        return functional_call(block, dict(zip(names, parameters, strict=True)), (x,))

    inputs = [make_input(2, 32, 2, 3, 2), *block.parameters()]
    assert torch.autograd.gradcheck(run, [t.detach().clone().requires_grad_() for t in inputs])


@ALL_BLOCKS
def test_the_map_is_the_attention_pooling_of_forward(kind):
    block, x = perturb(BLOCKS[kind](32).double()), make_input(2, 32, 3, 5, 4)
    maps = block.attention_maps(x, queries=torch.tensor([3]))
    assert maps.pairwise is None
    torch.testing.assert_close(maps.unary.sum(-1), torch.ones(2).double())
    assert 2 / 60 < maps.unary.max() < 0.9
    pooled = (maps.unary[:, None] * x.flatten(2)).sum(-1)
    expected = x + block._transformed(pooled)[:, :, None, None, None]
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "channels", "parameters"), [("snl", 512, 262_657), ("gc", 512, 132_481), ("gc16", 1024, 133_313)]
)
def test_parameters(kind, channels, parameters):
    # Mask C + 1; SNL: C^2. GC with R = C * ratio: (C + 1) R, 2 R of the layer norm, (R + 1) C.
    assert sum(p.numel() for p in BLOCKS[kind](channels).parameters()) == parameters


@ALL_BLOCKS
def test_a_new_block_is_exactly_the_identity_and_has_gradients(kind):
    x = make_input(2, 32, 3, 5, 4, dtype=torch.float32)
    block = BLOCKS[kind](32)
    assert torch.equal(block(x), x)
    assert not torch.equal(BLOCKS[kind](32, zero_init=False)(x), x)
    (block(x) * torch.randn_like(x)).sum().backward()
    last = block.value if kind == "snl" else block.expand
    assert last.weight.grad.abs().max() > 1e-6
    assert all(p.grad is not None for p in block.parameters())


def test_errors_say_what_is_allowed():
    with pytest.raises(ValueError, match=r"ratio is 0; give a share of the channels in \(0, 1\], published: 1/4, 1/16"):
        GlobalContextBlock3d(8, ratio=0)
