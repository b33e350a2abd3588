"""Options of the blocks: output, value channels, temperature, input shapes, checkpointing."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from dnl_video.models.attention import concatenation_attention
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.context_block import ContextBlock
from dnl_video.models.simplified import GlobalContextBlock3d, SimplifiedNonLocalBlock3d
from tests.models import naive, reference
from tests.models.helpers import BLOCKS, make_input, perturb, relative_error, train_pass

EVERY = BLOCKS | {"snl": SimplifiedNonLocalBlock3d, "gc": GlobalContextBlock3d}
EVERY_BLOCK = pytest.mark.parametrize("kind", EVERY)
SHAPE = (2, 8, 3, 5, 4)


def make_block(kind, channels=8, **options):
    return perturb(EVERY[kind](channels, **options).double())


def branch(block, x):
    """What the block adds, with naive attention weights."""
    w = dict(block.named_parameters())
    n, size = x.shape[0], x.shape[2:]
    value = naive.convolve(naive.max_pool(x, block.pool), w, "value").flatten(2)  # [B, E, M]
    total = torch.zeros(n, value.shape[1], math.prod(size)).double()
    if block.query is not None:
        query = naive.convolve(x, w, "query").flatten(2)
        key = naive.convolve(naive.max_pool(x, block.pool), w, "key").flatten(2)
        if isinstance(block, DisentangledNonLocalBlock3d):
            query, key = query - query.mean(2, keepdim=True), key - key.mean(2, keepdim=True)
        weights = naive.softmax(block.scale * query.transpose(1, 2) @ key)
        total = total + w.get("gamma", 1.0) * (value @ weights.transpose(1, 2))
    if getattr(block, "unary", None) is not None:
        mask = naive.softmax(naive.convolve(naive.max_pool(x, block.pool), w, "unary").flatten(2))
        total = total + value @ mask.transpose(1, 2)
    total = total.unflatten(2, size)
    if "out.weight" in w:
        total = naive.convolve(total, w, "out")
    if block.norm is not None:
        total = naive.batch_norm(total, w | dict(block.named_buffers()), block.training)
    return total


@pytest.mark.parametrize("kind", ["nl", "dnl", "pairwise", "unary"])
@pytest.mark.parametrize("output", ["conv_bn", "conv", "gamma"])
@pytest.mark.parametrize("value_channels", [None, 3, 8, 11])
@pytest.mark.parametrize("biased", [False, True])
def test_outputs_value_channels_and_biases(kind, output, value_channels, biased):
    options = {"value_channels": value_channels, "value_bias": biased, "output_bias": biased, "bias": biased}
    if output == "gamma" and value_channels not in (None, 8):
        with pytest.raises(ValueError, match=r"output='gamma' has no output projection, so the values need all 8 chan"):
            EVERY[kind](8, output=output, **options)
        return
    block, x = make_block(kind, output=output, **options), make_input(*SHAPE)
    names = {name for name, _ in block.named_parameters()}
    assert ("value.bias" in names) == biased
    assert ("out.bias" in names) == (biased and output != "gamma")
    assert ("gamma" in names) == (output == "gamma" and kind != "unary")
    assert ("norm.weight" in names) == (output == "conv_bn")
    if kind != "unary":
        assert {"query.bias", "key.bias"} <= names if biased else names.isdisjoint({"query.bias", "key.bias"})
    for training in (False, True):
        assert relative_error(block.train(training)(x) - x, branch(block, x)) <= 1e-9


@pytest.mark.parametrize("kind", ["nl", "dnl", "pairwise", "unary"])
@pytest.mark.parametrize("output", ["conv_bn", "conv", "gamma"])
def test_zero_init_of_every_output(kind, output):
    x = make_input(*SHAPE, dtype=torch.float32)
    alive = output == "gamma" and kind in ("dnl", "unary")
    assert torch.equal(EVERY[kind](8, output=output)(x), x) != alive
    assert not torch.equal(EVERY[kind](8, output=output, zero_init=False)(x), x)


# ---- temperature


@pytest.mark.parametrize("kind", ["nl", "gaussian", "dnl", "pairwise"])
def test_a_learned_temperature_starts_as_the_fixed_one_and_has_its_gradient(kind):
    torch.manual_seed(1)
    fixed = EVERY[kind](8, temperature=0.3).double()
    torch.manual_seed(1)
    learned = EVERY[kind](8, temperature=0.3, learned_temperature=True).double()
    assert set(learned.state_dict()) - set(fixed.state_dict()) == {"temperature.log"}
    assert learned.temperature.log.item() == pytest.approx(math.log(0.3))
    x = make_input(*SHAPE)
    for block in (fixed, learned):
        with torch.no_grad():
            block.norm.weight.fill_(1.0)
            for projection in (block.query, block.key):
                if projection is not None:
                    projection.weight *= 40
    torch.testing.assert_close(learned(x), fixed(x), rtol=0, atol=1e-6)

    def run(log):
        block = copy.deepcopy(learned)
        return torch.func.functional_call(block, {"temperature.log": log}, (x,))

    assert torch.autograd.gradcheck(run, (learned.temperature.log.detach().clone().requires_grad_(),))
    run(leaf := learned.temperature.log.detach().clone().requires_grad_()).square().sum().backward()
    assert leaf.grad.abs() > 1e-6


def test_a_block_without_a_pairwise_term_has_no_learned_temperature():
    block = DisentangledNonLocalBlock3d(8, pairwise=False, learned_temperature=True)
    assert "temperature.log" not in block.state_dict()


# ---- inputs


@EVERY_BLOCK
@pytest.mark.parametrize("shape", [(2, 8, 5, 7), (2, 8, 9)], ids=["image", "sequence"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_an_image_or_sequence_is_a_clip_of_one_frame(kind, shape, training):
    block = make_block(kind).train(training)
    x = torch.randn(shape).double()
    lifted = x.reshape(*shape[:2], *(1,) * (5 - len(shape)), *shape[2:])
    out = block(x)
    assert out.shape == x.shape
    torch.testing.assert_close(out, block(lifted).reshape(shape), rtol=0, atol=1e-12)
    if kind not in ("dot_product", "concatenation"):
        for a, b in zip(block.attention_maps(x), block.attention_maps(lifted), strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)


@EVERY_BLOCK
@pytest.mark.parametrize("shape", [(2, 8), (2, 7, 3, 3, 3), (1, 2, 8, 3, 3, 3)], ids=str)
def test_other_inputs_are_refused(kind, shape):
    with pytest.raises(
        ValueError, match=r"input has shape .*; expected \[B, 8, T, H, W\], \[B, 8, H, W\] or \[B, 8, L"
    ):
        EVERY[kind](8)(torch.zeros(shape))


@EVERY_BLOCK
def test_conversion_to_synchronised_batch_norm(kind):
    block, x = make_block(kind).eval(), make_input(*SHAPE)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(block))
    assert not any(type(m) is nn.BatchNorm3d for m in converted.modules())
    assert (kind in BLOCKS) == any(type(m) is nn.SyncBatchNorm for m in converted.modules())
    assert list(converted.state_dict()) == list(block.state_dict())
    assert torch.equal(converted(x), block(x))
    assert torch.equal(converted(x[:, :, 0]), block(x[:, :, 0]))


LEARNED = {
    "learned": lambda c: DisentangledNonLocalBlock3d(c, learned_temperature=True),
    "gamma": lambda c: DisentangledNonLocalBlock3d(c, output="gamma", bias=True, learned_temperature=True),
    "conv": lambda c: NonLocalBlock3d(c, output="conv", learned_temperature=True),
}


@pytest.mark.parametrize("kind", [*EVERY, *LEARNED])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_gives_half_precision_output(kind, dtype):
    block = perturb((EVERY | LEARNED)[kind](16).double()).eval()
    x = make_input(2, 16, 2, 5, 4)
    exact = block(x) - x
    for run in (copy.deepcopy(block).to(dtype), copy.deepcopy(block).float()):
        autocast = next(run.parameters()).dtype == torch.float32
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            out = run(x.to(dtype))
        assert out.dtype == dtype
        # x and the sum are rounded, too.
        assert (out - x - exact).norm() < 0.05 * exact.norm()


# ---- checkpointing


@EVERY_BLOCK
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_checkpointing_changes_no_gradient_and_no_statistic(kind, training):
    plain = make_block(kind).train(training)
    saving = make_block(kind, checkpoint=True).train(training)
    x, weight = make_input(*SHAPE), torch.randn(SHAPE).double()
    results = []
    for block in (plain, saving):
        results.append([*train_pass(block, x, weight), *block.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    with torch.no_grad():
        assert torch.equal(plain(x), saving(x))


@EVERY_BLOCK
def test_checkpointing_stores_less(kind):
    x = torch.randn(2, 32, 4, 8, 8, requires_grad=True)

    def stored(block):
        kept = {}

        def pack(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = block(x)
        parameters = {p.untyped_storage().data_ptr() for p in block.parameters()}
        del out
        return sum(size for pointer, size in kept.items() if pointer not in parameters)

    # snl and gc have next to nothing to store.
    share = 0.8 if kind in BLOCKS else 1.0
    assert stored(EVERY[kind](32, checkpoint=True)) < share * stored(EVERY[kind](32))


def test_a_checkpointed_block_recomputes_its_attention_once(monkeypatch):
    calls = []
    terms = NonLocalBlock3d._terms
    monkeypatch.setattr(NonLocalBlock3d, "_terms", lambda self, grid: calls.append(1) or terms(self, grid))
    block = NonLocalBlock3d(8, checkpoint=True)
    out = block(torch.randn(SHAPE, requires_grad=True))
    assert len(calls) == 1
    out.sum().backward()
    assert len(calls) == 2


def test_the_base_class_is_abstract():
    base = ContextBlock(8, checkpoint=False)
    for method in (base, base.attention_maps):
        with pytest.raises(NotImplementedError):
            method(torch.zeros(1, 8, 3))


# ---- concatenation


@pytest.mark.parametrize("seed", range(5))
def test_concatenation_by_sorting_with_ties_and_empty_sets(seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(-3, 4, (2, 9), generator=generator).double()
    b = torch.randint(-3, 4, (2, 7), generator=generator).double() + (seed - 2) * 5  # none, some or all pass
    value = torch.randn(2, 7, 4, generator=generator).double()
    expected = torch.relu(a[:, :, None] + b[:, None, :]) @ value / 7
    torch.testing.assert_close(concatenation_attention(a, b, value), expected, rtol=0, atol=1e-12)


def test_concatenation_equals_the_loop():
    query, key, value = torch.randn(5, 3), torch.randn(4, 3), torch.randn(4, 2)
    weight = torch.randn(6)
    out = concatenation_attention((query @ weight[:3])[None], (key @ weight[3:])[None], value[None])[0]
    expected = torch.as_tensor(reference.concatenation(query.numpy(), key.numpy(), value.numpy(), weight.numpy()))
    torch.testing.assert_close(out, expected.float(), rtol=0, atol=1e-5)


def test_project_terms_each_adds_the_bias_twice():
    block = perturb(DisentangledNonLocalBlock3d(8, output="conv", project_terms="each").double())
    together = copy.deepcopy(block)
    together.project_terms = "sum"
    x = make_input(*SHAPE)
    bias = block.out.bias[:, None, None, None].expand(SHAPE)
    torch.testing.assert_close(block(x) - together(x), bias, rtol=0, atol=1e-10)
