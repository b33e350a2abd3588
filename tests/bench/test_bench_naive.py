"""The naive blocks compute the same as ours, so that speed is compared for the same function."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.create import create_model
from naive import NaiveBlock3d, with_naive_blocks
from tests.models.helpers import perturb, perturb_backbone

KINDS = {
    "nl": NonLocalBlock3d,
    "dot_product": partial(NonLocalBlock3d, attention="dot_product"),
    "dnl": DisentangledNonLocalBlock3d,
    "pairwise": partial(DisentangledNonLocalBlock3d, unary=False),
}


@pytest.mark.parametrize("pool", [None, (1, 2, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_outputs_and_gradients(kind: str, pool: tuple[int, int, int] | None) -> None:
    block = perturb(KINDS[kind](8, pool=pool).double()).train()
    naive = NaiveBlock3d(block).train()
    x = torch.randn(2, 8, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(x)
    ours, theirs = (torch.autograd.grad((m(x) * weight).sum(), [x, m.value.weight]) for m in (block, naive))
    torch.testing.assert_close(naive(x), block(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(theirs[0], ours[0], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(theirs[1][:, :, 0, 0, 0], ours[1], rtol=1e-8, atol=1e-8)


def test_a_network_keeps_its_logits() -> None:
    clip = torch.randn(1, 3, 4, 64, 64, dtype=torch.float64)
    model = create_model("slow_r50", context="dnl", stem_channels=8, num_classes=5).double()
    perturb_backbone(model, clip).eval()
    naive = with_naive_blocks(copy.deepcopy(model))
    assert sum(isinstance(m, NaiveBlock3d) for m in naive.modules()) == 5
    with torch.no_grad():
        torch.testing.assert_close(naive(clip), model(clip), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "block",
    [
        NonLocalBlock3d(8, attention="gaussian"),
        DisentangledNonLocalBlock3d(8, pairwise=False),
        DisentangledNonLocalBlock3d(8, pool_order="after"),
        DisentangledNonLocalBlock3d(8, output="gamma"),
    ],
)
def test_other_blocks_have_no_naive_form(block: nn.Module) -> None:
    with pytest.raises(ValueError, match="no naive form of"):
        NaiveBlock3d(block)
