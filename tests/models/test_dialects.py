"""Each published dialect compared with naive code in its order of operations, in float64."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from dnl_video.models import dialects
from tests.models import naive
from tests.models.helpers import make_input, perturb, relative_error, train_pass

POOL = (1, 2, 2)
DETECTION = {"scaled": True, "temperature": 0.05}
# name -> (our constructor, the naive code)
DIALECTS = {
    "official_detection": (dialects.official_detection, partial(naive.official, pool=None, **DETECTION)),
    "official_detection_pooled": (
        partial(dialects.official_detection, pool=POOL),
        partial(naive.official, pool=POOL, **DETECTION),
    ),
    "official_segmentation": (dialects.official_segmentation, partial(naive.official, pool=None, **DETECTION)),
    "official_segmentation_warm": (
        partial(dialects.official_segmentation, temperature=0.1),
        partial(naive.official, pool=None, scaled=True, temperature=0.1),
    ),
    "official_nowd": (dialects.official_nowd, partial(naive.official, pool=None, scaled=False, temperature=None)),
    "mmseg": (dialects.mmseg, partial(naive.mmseg, norm=True)),
    "mmseg_without_norm": (partial(dialects.mmseg, norm=False), partial(naive.mmseg, norm=False)),
}
for _attention in ("embedded_gaussian", "dot_product"):
    for _pool in (None, POOL):
        DIALECTS[f"pyslowfast_nl_{_attention}_{'pooled' if _pool else 'whole'}"] = (
            partial(dialects.pyslowfast_nl, attention=_attention, pool=_pool),
            partial(naive.pyslowfast, attention=_attention, pool=_pool),
        )
for _attention in ("embedded_gaussian", "gaussian", "dot_product", "concatenation"):
    for _scaled in (False, True):
        DIALECTS[f"mmaction_nl_{_attention}_{'scaled' if _scaled else 'unscaled'}"] = (
            partial(dialects.mmaction_nl, attention=_attention, scaled=_scaled),
            partial(naive.mmaction, attention=_attention, scaled=_scaled, pool=POOL),
        )
DIALECTS["mmaction_nl_whole"] = (
    partial(dialects.mmaction_nl, pool=None),
    partial(naive.mmaction, attention="embedded_gaussian", scaled=False, pool=None),
)
ALL_DIALECTS = pytest.mark.parametrize("name", DIALECTS)
WHITENED = ("official_detection", "official_segmentation", "official_nowd", "mmseg", "mmseg_without_norm")
C = 8


def make_block(name, channels=C):
    return perturb(DIALECTS[name][0](channels).double())


def naive_output(name, block, x):
    weights = dict(block.named_parameters()) | {k: v.clone() for k, v in block.named_buffers()}
    return DIALECTS[name][1](x, weights, block.training)


@pytest.mark.full
@ALL_DIALECTS
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("size", [(3, 5, 4), (1, 7, 5), (2, 1, 3)], ids=str)
def test_forward_and_gradients_equal_the_naive_code(name, training, size, full_size):
    channels, size = (32, tuple(2 * s + 1 for s in size)) if full_size else (C, size)
    block, x = make_block(name, channels).train(training), make_input(3, channels, *size)
    weight = torch.randn(x.shape).double()
    out, *found = train_pass(block, x, weight)
    leaf = x.clone().requires_grad_()
    naive_out = naive_output(name, block, leaf)
    expected = torch.autograd.grad((naive_out * weight).sum(), [leaf, *block.parameters()])
    assert relative_error(out - x, naive_out - x) <= 1e-9
    for parameter, a, b in zip(["x", *dict(block.named_parameters())], found, expected, strict=True):
        # The gradient of biases that whitening, softmax or batch norm cancel is rounding noise.
        assert (a - b).abs().max() <= 1e-8 * max(b.abs().max().item(), 1e-3), parameter


@pytest.mark.parametrize("name", ["official_segmentation", "mmseg", "mmaction_nl_embedded_gaussian_scaled"])
@pytest.mark.parametrize("shape", [(2, C, 5, 4), (2, C, 7)], ids=["image", "sequence"])
def test_images_and_sequences_equal_the_naive_code(name, shape):
    block, x = make_block(name).eval(), make_input(2, C, 1, 5, 7).flatten(2)[:, :, : 20 if len(shape) == 4 else 7]
    x = x.reshape(shape)
    out = block(x)
    assert out.shape == x.shape
    lifted = x.reshape(*shape[:2], *(1,) * (5 - len(shape)), *shape[2:])
    torch.testing.assert_close(out, naive_output(name, block, lifted).reshape(shape), rtol=0, atol=1e-9)


@ALL_DIALECTS
def test_all_but_the_official_dialects_start_as_the_identity(name):
    block, x = DIALECTS[name][0](C), make_input(2, C, 3, 5, 4, dtype=torch.float32)
    identical = torch.equal(block(x), x)
    # The official gamma gates the pairwise term only.
    assert identical != name.startswith("official")
    if name.startswith("official"):
        assert block.gamma.item() == 0
        assert not torch.equal(block.unary.weight, torch.zeros_like(block.unary.weight))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("official_detection", lambda c, d: 2 * (c * d // 2 + d // 2) + c * c + c + 1 + 1),
        ("official_segmentation", lambda c, d: 2 * (c * d + d) + c * c + c + 1 + 1),
        ("official_nowd", lambda c, d: 2 * (c * d + d) + c * c + c + 1 + 1),
        ("mmseg", lambda c, d: 3 * (c * d + d) + c + 1 + d * c + 2 * c),
        ("mmseg_without_norm", lambda c, d: 3 * (c * d + d) + c + 1 + d * c + c),
        ("pyslowfast_nl_embedded_gaussian_pooled", lambda c, d: 3 * (c * d + d) + d * c + c + 2 * c),
        ("mmaction_nl_embedded_gaussian_scaled", lambda c, d: 3 * (c * d + d) + d * c + 2 * c),
        ("mmaction_nl_gaussian_unscaled", lambda c, d: c * d + d + d * c + 2 * c),
        ("mmaction_nl_concatenation_unscaled", lambda c, d: 3 * (c * d + d) + 2 * d + d * c + 2 * c),
    ],
)
def test_parameter_counts_are_the_published_ones(name, parameters):
    assert sum(p.numel() for p in DIALECTS[name][0](32).parameters()) == parameters(32, 16)


@ALL_DIALECTS
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_every_parameter_has_a_gradient_and_those_of_weights_are_not_zero(name, training):
    block, x = make_block(name, 16).train(training), make_input(3, 16, 2, 4, 4)
    (block(x) * torch.randn(x.shape).double()).sum().backward()
    assert all(p.grad is not None for p in block.parameters())
    for parameter, p in block.named_parameters():
        if not parameter.endswith("bias"):
            assert p.grad.abs().max() > 1e-6, parameter


def test_pyslowfast_has_two_similarities():
    with pytest.raises(ValueError, match="attention is 'gaussian'; PySlowFast has embedded_gaussian, dot_product"):
        dialects.pyslowfast_nl(8, attention="gaussian")


def test_mmseg_updates_the_statistics_of_its_norm_for_each_term():
    block, x = make_block("mmseg").train(), make_input(3, C, 3, 5, 4)
    before = block.norm.num_batches_tracked.item()
    block(x)
    assert block.norm.num_batches_tracked.item() == before + 2


# ---- half precision


@pytest.mark.parametrize("name", WHITENED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_mean_outside_the_range_of_half_precision_changes_nothing(name, dtype):
    """One channel is constant, and in query and key larger than the largest float16."""
    block, x = make_block(name, 32).eval(), make_input(2, 32, 2, 6, 6)
    plain = block.attention_maps(x)
    x[:, 0] = 1000.0
    with torch.no_grad():
        for projection in (block.query, block.key):
            projection.weight[:, 0] = 1000.0
        block.value.weight[:, 0] = 0
        block.unary.weight[:, 0] = 0
    exact = block.attention_maps(x)
    assert relative_error(exact.pairwise, plain.pairwise) > 0.1
    half = copy.deepcopy(block).float()
    x = x.float()
    with torch.autocast("cpu", dtype=dtype):
        projected = half.query(x.flatten(2).transpose(1, 2))
        assert projected.abs().max() > 65504
        maps, out = half.attention_maps(x), half(x)
    assert out.isfinite().all()
    assert (maps.pairwise - exact.pairwise).norm() < 0.03 * exact.pairwise.norm()
    branch = block(x.double()) - x
    branch[:, 0] = 0
    error = (out - x).double() - (block(x.double()) - x)
    error[:, 0] = 0
    assert error.norm() < 0.03 * branch.norm()


@pytest.mark.parametrize("name", WHITENED)
def test_half_precision_is_accurate_with_means_of_100_deviations(name):
    block, x = make_block(name, 32).eval(), make_input(2, 32, 2, 6, 6)
    x = x + 100 * torch.randn(1, 32, 1, 1, 1).double()
    exact = block.attention_maps(x).pairwise
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = copy.deepcopy(block).float().attention_maps(x.float()).pairwise
    assert (half - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(
    "name", ["pyslowfast_nl_embedded_gaussian_pooled", "mmaction_nl_embedded_gaussian_scaled", *WHITENED]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_key_bias_outside_the_range_of_half_precision_changes_nothing(name, dtype):
    block, x = make_block(name, 32).eval(), make_input(2, 32, 2, 6, 6)
    branch = block(x) - x
    half = copy.deepcopy(block).float()
    with torch.no_grad():
        half.key.bias.fill_(1e5)
    with torch.autocast("cpu", dtype=dtype):
        out = half(x.float())
    assert (out - x - branch).norm() < 0.05 * branch.norm()


@ALL_DIALECTS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_autocast_is_accurate(name, dtype, tolerance):
    block, x = make_block(name, 32).eval(), make_input(2, 32, 2, 6, 6)
    branch = block(x) - x
    with torch.autocast("cpu", dtype=dtype):
        out = copy.deepcopy(block).float()(x.float())
    assert (out - x - branch).norm() < tolerance * branch.norm()


# ---- fused kernels


SOFTMAX = [name for name in DIALECTS if "dot_product" not in name and "concatenation" not in name]


@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_of_another_width_use_the_fused_kernel(name, dtype, sdpa_kernels):
    block = perturb(DIALECTS[name][0](16)).to(dtype)
    block(torch.randn(2, 16, 2, 6, 6, dtype=dtype, requires_grad=True))
    assert sdpa_kernels == [torch.nn.attention.SDPBackend.FLASH_ATTENTION.value]


def test_the_fused_kernel_needs_equal_widths_and_contiguous_channels():
    """The CPU's fused kernel silently refuses values of another width and a last stride above 1: hence the padding."""
    math_backend = torch.nn.attention.SDPBackend.MATH.value
    query, narrow = torch.randn(1, 1, 20, 16), torch.randn(1, 1, 20, 8)
    strided = torch.randn(1, 1, 16, 20).transpose(2, 3)
    assert torch._fused_sdp_choice(query, query, query) != math_backend
    assert torch._fused_sdp_choice(query, query, narrow) == math_backend
    assert torch._fused_sdp_choice(query, query, strided) == math_backend
