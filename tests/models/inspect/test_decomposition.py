"""Attention maps of chosen queries, in chunks; the split of a non-local block's logits."""

from __future__ import annotations

import math

import pytest
import torch

from dnl_video.models import attention
from dnl_video.models.blocks import NonLocalBlock3d
from dnl_video.models.inspect.decomposition import decompose
from tests.models import naive
from tests.models.helpers import BLOCKS, Recorder, make_input, perturb

SHAPE = (2, 8, 3, 5, 4)
POSITIONS = math.prod(SHAPE[2:])
OPTIONS = {
    "default": {},
    "unpooled": {"pool": None},
    "pooled_after": {"pool_order": "after"},
    "gaussian": {"attention": "gaussian"},
    "warm": {"temperature": 0.7, "scaled": False},
    "learned": {"temperature": 0.7, "learned_temperature": True},
    "unbiased": {"bias": False},
}
ALL_OPTIONS = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def make_block(**options):
    return perturb(NonLocalBlock3d(SHAPE[1], **options).double()).eval()


def literal_logits(block, x):
    """scale * q_i . k_j, by convolutions and one product."""
    w = dict(block.named_parameters())
    pool = block.pool
    if block.attention == "gaussian":
        query, key = x, naive.max_pool(x, pool)
    elif block.pool_order == "after":
        query, key = naive.convolve(x, w, "query"), naive.max_pool(naive.convolve(x, w, "key"), pool)
    else:
        query, key = naive.convolve(x, w, "query"), naive.convolve(naive.max_pool(x, pool), w, "key")
    return block.scale * torch.einsum("bdn,bdm->bnm", query.flatten(2), key.flatten(2))


# ---- maps


@pytest.mark.parametrize("kind", ["nl", "gaussian", "dnl", "pairwise", "unary"])
def test_chosen_queries_are_rows_of_the_whole_map(kind):
    block, x = perturb(BLOCKS[kind](8).double()).eval(), make_input(*SHAPE)
    queries = torch.tensor([0, 59, 17, 17])
    whole, some = block.attention_maps(x), block.attention_maps(x, queries)
    if whole.pairwise is None:
        assert some.pairwise is None
    else:
        assert whole.pairwise.shape[:2] == (2, POSITIONS)
        torch.testing.assert_close(some.pairwise, whole.pairwise[:, queries], rtol=0, atol=1e-12)
    if whole.unary is not None:
        assert torch.equal(some.unary, whole.unary)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (torch.tensor([0, 60]), "queries reach from 0 to 60; positions are 0 to 59"),
        (torch.tensor([-1]), "queries reach from -1 to -1; positions are 0 to 59"),
        (torch.tensor([1.0]), r"queries is \(1,\) torch.float32; give flat positions as integers \[Q\]"),
        (torch.tensor([[1]]), r"queries is \(1, 1\) torch.int64; give flat positions as integers \[Q\]"),
    ],
)
def test_invalid_queries_are_refused(queries, message):
    block, x = make_block(), make_input(*SHAPE)
    for look in (block.attention_maps, lambda *args: decompose(block, *args)):
        with pytest.raises(ValueError, match=message):
            look(x, queries)


def test_no_queries_give_no_rows():
    empty = torch.empty(0, dtype=torch.long)
    assert make_block().attention_maps(make_input(*SHAPE), empty).pairwise.shape == (2, 0, 12)


@pytest.mark.parametrize("max_elements", [1, 100, 1000, 2 * 60 * 37, 2 * 60 * 37 - 1, 10**9])
def test_a_map_in_chunks_equals_the_whole_map_and_needs_little_memory(max_elements):
    query, key = torch.randn(2, 60, 6).double(), torch.randn(2, 37, 6).double()
    with Recorder() as recorder:
        chunked = attention.pairwise_map(query, key, scale=0.7, max_elements=max_elements)
    torch.testing.assert_close(chunked, torch.softmax(0.7 * query @ key.transpose(1, 2), -1), rtol=0, atol=1e-12)
    computed = {name: size for name, size in recorder.largest.items() if name in ("bmm", "_softmax")}
    assert len(computed) == 2
    # One row of each sample is the least.
    assert max(computed.values()) <= max(max_elements, 2 * 37)


def test_a_map_in_chunks_has_the_gradient_of_the_map():
    query, key = (torch.randn(1, n, 3).double().requires_grad_() for n in (5, 4))
    assert torch.autograd.gradcheck(lambda q, k: attention.pairwise_map(q, k, scale=0.7, max_elements=8), (query, key))


def test_maps_of_images():
    block = make_block()
    maps = block.attention_maps(make_input(2, 8, 1, 5, 4)[:, :, 0])
    assert maps.pairwise.shape == (2, 20, 4)


# ---- decompose


@ALL_OPTIONS
def test_the_parts_add_up_to_the_logits(options):
    block, x = make_block(**options), make_input(*SHAPE)
    parts = decompose(block, x)
    logits = literal_logits(block, x)
    total = parts.pairwise + parts.unary.unsqueeze(1) + parts.constant.unsqueeze(2)
    torch.testing.assert_close(total, logits, rtol=0, atol=1e-10)
    # The constant is nothing to the softmax, and the two others are what the block attends by.
    attended = torch.softmax(parts.pairwise + parts.unary.unsqueeze(1), -1)
    torch.testing.assert_close(attended, block.attention_maps(x).pairwise, rtol=0, atol=1e-10)


@ALL_OPTIONS
def test_the_pairwise_part_is_whitened(options):
    parts = decompose(make_block(**options), make_input(*SHAPE))
    for dim in (1, 2):
        torch.testing.assert_close(parts.pairwise.mean(dim), torch.zeros_like(parts.pairwise.mean(dim)))


@ALL_OPTIONS
def test_shares_are_those_of_the_variance_over_keys(options):
    block, x = make_block(**options), make_input(*SHAPE)
    parts = decompose(block, x)

    def variance(logits):
        return logits.var(dim=-1, correction=0)

    total = variance(literal_logits(block, x)).mean(1)
    torch.testing.assert_close(parts.pairwise_share, variance(parts.pairwise).mean(1) / total)
    torch.testing.assert_close(parts.unary_share, variance(parts.unary) / total)
    torch.testing.assert_close(parts.pairwise_share + parts.unary_share, torch.ones(2).double())
    # Neither is negligible here, or the test would be.
    assert (parts.unary_share > 0.005).all()
    assert (parts.pairwise_share > 0.005).all()


def test_the_shares_do_not_depend_on_the_chosen_queries():
    block, x, queries = make_block(), make_input(*SHAPE), torch.tensor([3, 58])
    whole, some = decompose(block, x), decompose(block, x, queries)
    torch.testing.assert_close(some.pairwise, whole.pairwise[:, queries], rtol=0, atol=1e-12)
    torch.testing.assert_close(some.constant, whole.constant[:, queries], rtol=0, atol=1e-12)
    for name in ("unary", "pairwise_share", "unary_share"):
        assert torch.equal(getattr(some, name), getattr(whole, name))


def test_shares_of_purely_unary_and_purely_pairwise_logits():
    block, x = make_block(), make_input(*SHAPE)
    with torch.no_grad():
        block.query.weight.zero_()
    # All queries alike: what is left is unary.
    torch.testing.assert_close(decompose(block, x).unary_share, torch.ones(2).double())
    block = make_block(bias=False)
    centred = x - x.mean((2, 3, 4), keepdim=True)
    # Queries of mean 0: what is left is pairwise.
    torch.testing.assert_close(decompose(block, centred).pairwise_share, torch.ones(2).double())
    assert decompose(block, torch.zeros_like(x)).unary_share.isnan().all()


def test_a_few_queries_need_no_memory_of_the_size_of_the_map():
    block = perturb(NonLocalBlock3d(8, pool=None)).eval()
    x = torch.randn(1, 8, 4, 20, 20)
    for look in (block.attention_maps, lambda *args: decompose(block, *args)):
        with Recorder() as recorder:
            look(x, torch.tensor([0, 5]))
        assert max(recorder.largest.values()) <= 2 * x.numel() < 1600**2 / 10, recorder.largest


def test_half_precision_is_decomposed_in_float32():
    block, x = make_block(bias=True), make_input(*SHAPE)
    exact = decompose(block, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = decompose(block.float(), x.float())
    for name, part in parts._asdict().items():
        assert part.dtype == torch.float32
        torch.testing.assert_close(part.double(), getattr(exact, name), rtol=1e-4, atol=1e-4)
    assert decompose(block.bfloat16(), x.bfloat16()).pairwise.dtype == torch.float32


@pytest.mark.parametrize("kind", ["dot_product", "concatenation"])
def test_blocks_without_a_softmax_are_refused(kind):
    with pytest.raises(ValueError, match=f"{kind} attention has no softmax map"):
        decompose(NonLocalBlock3d(8, attention=kind), make_input(*SHAPE))
