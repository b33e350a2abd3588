"""The blocks compared with the equations and with pytorchvideo's block; their memory and precision."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from pytorchvideo.layers.nonlocal_net import create_nonlocal
from torch.func import functional_call

from dnl_video.models import attention
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.runtime import onednn
from tests.models import reference
from tests.models.helpers import BLOCKS, TEMPERATURE, Recorder, make_input, perturb, relative_error

# Height 5 and, for the last two, T = 3 leave a remainder under pooling.
POOLS = [
    (None, "before"),
    ((1, 2, 2), "before"),
    ((1, 2, 2), "after"),
    ((2, 2, 3), "before"),
    ((2, 2, 3), "after"),
]
SHAPE, SMALL = (2, 6, 3, 5, 4), (2, 4, 2, 3, 2)
ALL_BLOCKS = pytest.mark.parametrize("kind", BLOCKS)


def make_block(kind, channels=SHAPE[1], **options):
    return perturb(BLOCKS[kind](channels, **options).double())


def expected_output(block, x, kind, *, temperature=None, scaled=True, **options):
    weights = {name: tensor.double().numpy() for name, tensor in block.state_dict().items()}
    width = x.shape[1] if kind == "gaussian" else weights["value.weight"].shape[0]
    scale = (1 / math.sqrt(width) if scaled else 1.0) / (temperature or TEMPERATURE.get(kind, 1.0))
    out = reference.block(x.double().numpy(), weights, kind=kind, scale=scale, training=block.training, **options)
    return torch.as_tensor(out)


def assert_equals_the_loop(block, x, kind, **options):
    expected = expected_output(block, x, kind, **options)
    with torch.no_grad():
        branch = block(x) - x
        branch_float32 = copy.deepcopy(block).float()(x.float()) - x.float()
    assert relative_error(branch, expected - x) <= 1e-9
    # In training, torch's CPU batch norm adds channels-last float32 one by one, and the unary term's are all equal.
    assert relative_error(branch_float32, expected - x) <= (1e-3 if block.training else 1e-4)


@pytest.mark.full
@ALL_BLOCKS
@pytest.mark.parametrize(("pool", "pool_order"), POOLS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_block_equals_the_loop(kind, pool, pool_order, training, full_size):
    shape = (2, 16, 5, 7, 9) if full_size else SHAPE
    block = make_block(kind, shape[1], pool=pool, pool_order=pool_order).train(training)
    assert_equals_the_loop(block, make_input(*shape), kind, pool=pool, pool_order=pool_order)


@pytest.mark.parametrize("kind", ["dnl", "pairwise"])
@pytest.mark.parametrize(("pool", "pool_order"), POOLS[:3])
def test_whitening_over_each_frame_equals_the_loop(kind, pool, pool_order):
    options = {"pool": pool, "pool_order": pool_order, "whiten_over": "frame"}
    block = make_block(kind, **options).eval()
    x = make_input(*SHAPE)
    # Frames with means of their own, or whitening each would be whitening all.
    x = x + 2 * torch.randn(2, SHAPE[1], SHAPE[2], 1, 1).double()
    assert_equals_the_loop(block, x, kind, **options)
    block.whiten_over = "space_time"
    assert relative_error(block(x) - x, expected_output(block, x, kind, **options) - x) > 1e-2


@pytest.mark.parametrize("kind", ["nl", "gaussian", "dnl", "pairwise"])
@pytest.mark.parametrize("inner_channels", [1, 5])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_scale_is_one_over_temperature_and_root_d(kind, inner_channels, scaled, temperature):
    options = {"scaled": scaled, "temperature": temperature}
    block = make_block(kind, inner_channels=inner_channels, pool=None, **options).eval()
    assert_equals_the_loop(block, make_input(*SMALL[:1], SHAPE[1], *SMALL[2:]), kind, **options)


@pytest.mark.parametrize("kind", ["nl", "gaussian", "dnl", "pairwise", "unary"])
def test_perturbed_attention_is_neither_flat_nor_saturated(kind):
    # A saturated or flat softmax would hide errors in the other tests.
    block = make_block(kind, 32, pool=None).eval()
    for attention_map in block.attention_maps(make_input(2, 32, 3, 5, 4)):
        if attention_map is not None:
            positions = attention_map.shape[-1]
            assert 2 / positions < attention_map.max(-1).values.mean() < 0.9


@ALL_BLOCKS
@pytest.mark.parametrize(("pool", "pool_order"), POOLS[:3])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_gradcheck_of_the_whole_block(kind, pool, pool_order, training):
    block = make_block(kind, SMALL[1], pool=pool, pool_order=pool_order).train(training)
    names = [name for name, _ in block.named_parameters()]

    def run(x, *parameters):
        # Running statistics of each call's own: training moves them, and a copy of the block would cost more than it.
        buffers = {name: buffer.clone() for name, buffer in block.named_buffers()}
        return functional_call(block, buffers | dict(zip(names, parameters, strict=True)), (x,))

    inputs = [make_input(*SMALL), *block.parameters()]
    assert torch.autograd.gradcheck(run, [t.detach().clone().requires_grad_() for t in inputs])


@pytest.mark.parametrize("kind", ["dnl", "pairwise"])
def test_gradcheck_of_whitening_over_each_frame(kind):
    block = make_block(kind, SMALL[1], pool=None, whiten_over="frame").eval()
    assert torch.autograd.gradcheck(block, (make_input(*SMALL).requires_grad_(),))


# ---- maps


@pytest.mark.parametrize("kind", ["nl", "gaussian", "dnl", "pairwise", "unary"])
@pytest.mark.parametrize(("pool", "pool_order"), POOLS)
def test_attention_maps_times_values_are_the_forward_pass(kind, pool, pool_order):
    block = make_block(kind, pool=pool, pool_order=pool_order).eval()
    x = make_input(*SHAPE)
    maps = block.attention_maps(x)
    positions = math.prod(SHAPE[2:])
    # The values, as the equations have them: sources pooled before the projection or after it.
    pooled = F.max_pool3d if pool else lambda grid, _: grid

    def project(grid):
        return torch.einsum("dc,bcthw->bdthw", block.value.weight, grid) + block.value.bias[:, None, None, None]

    value = project(pooled(x, pool)) if pool_order == "before" else pooled(project(x), pool)
    value = value.flatten(2).transpose(1, 2)

    weights, terms = torch.zeros(SHAPE[0], positions, value.shape[1]).double(), 0
    if maps.pairwise is not None:
        torch.testing.assert_close(maps.pairwise.sum(-1), torch.ones(SHAPE[0], positions).double())
        weights, terms = weights + maps.pairwise, terms + 1
    if maps.unary is not None:
        torch.testing.assert_close(maps.unary.sum(-1), torch.ones(SHAPE[0]).double())
        weights, terms = weights + maps.unary.unsqueeze(1), terms + 1
    assert terms == (2 if kind == "dnl" else 1)
    torch.testing.assert_close(weights.sum(-1), torch.full((SHAPE[0], positions), float(terms)).double())

    swapped = block.out(weights @ value).transpose(1, 2).unflatten(2, SHAPE[2:])
    torch.testing.assert_close(x + block.norm(swapped), block(x), rtol=0, atol=1e-9)


def test_which_maps_a_block_has():
    x = make_input(*SHAPE)
    expected = {"nl": "pairwise", "gaussian": "pairwise", "dnl": "both", "pairwise": "pairwise", "unary": "unary"}
    for kind, terms in expected.items():
        has = [m is not None for m in make_block(kind).attention_maps(x)]
        assert has == [terms != "unary", terms != "pairwise"]
    with pytest.raises(ValueError, match="dot_product attention has no softmax map; attention maps need embedded_gau"):
        make_block("dot_product").attention_maps(x)


# ---- pytorchvideo's block


@pytest.mark.full
@pytest.mark.parametrize(("instantiation", "ours"), [("softmax", "embedded_gaussian"), ("dot_product", "dot_product")])
@pytest.mark.parametrize("pool", [None, (1, 2, 2), (2, 2, 3)])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_non_local_block_equals_pytorchvideos(instantiation, ours, pool, training, full_size):
    shape = (2, 512, 4, 14, 14) if full_size else SHAPE
    theirs = create_nonlocal(
        dim_in=shape[1], dim_inner=shape[1] // 2, pool_size=pool, instantiation=instantiation
    ).double()
    block = make_block("nl", shape[1], attention=ours, pool=pool)
    names = {"query": "conv_theta", "key": "conv_phi", "value": "conv_g", "out": "conv_out", "norm": "norm"}
    with torch.no_grad():
        for our_name, their_name in names.items():
            our_module, their_module = getattr(block, our_name), getattr(theirs, their_name)
            for name, tensor in our_module.state_dict().items():
                target = their_module.state_dict()[name]
                target.copy_(tensor.reshape(target.shape))
    block.train(training), theirs.train(training)

    x = make_input(*shape)
    weight = torch.randn(shape).double()
    results = []
    for module in (block, theirs):
        leaf = x.clone().requires_grad_()
        out = module(leaf)
        (out * weight).sum().backward()
        results.append((out.detach(), leaf.grad, module.norm.running_mean, module.norm.running_var))
    (our_out, *_), (their_out, *_) = results
    assert relative_error(our_out - x, their_out - x) <= 1e-9
    for ours_, theirs_ in zip(*results, strict=True):
        assert relative_error(ours_, theirs_) <= 1e-9


# ---- parameters and initial values


@ALL_BLOCKS
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_every_parameter_gets_a_gradient(kind, training):
    block = make_block(kind, 16).train(training)
    x = make_input(2, 16, 2, 4, 4)
    (block(x) * torch.randn(x.shape).double()).sum().backward()
    size = {name: p.grad.abs().max().item() for name, p in block.named_parameters()}
    # Exactly cancelled in theory: a key's bias by the softmax over keys, the constants before a batch norm by its mean.
    cancelled = {"key.bias"} if kind == "nl" else set()
    if training:
        cancelled |= {"out.bias"} if kind in ("dot_product", "concatenation") else {"value.bias", "out.bias"}
    assert {name for name, s in size.items() if s < 1e-10} == cancelled
    assert all(s > 1e-5 for name, s in size.items() if name not in cancelled)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("nl", {"query.weight", "query.bias", "key.weight", "key.bias"}),
        ("gaussian", set()),
        ("dot_product", {"query.weight", "query.bias", "key.weight", "key.bias"}),
        ("concatenation", {"query.weight", "query.bias", "key.weight", "key.bias", "concat.weight"}),
        ("dnl", {"query.weight", "key.weight", "unary.weight"}),
        ("pairwise", {"query.weight", "key.weight"}),
        ("unary", {"unary.weight"}),
    ],
)
def test_a_block_owns_only_the_parameters_of_its_terms(kind, expected):
    common = {f"{name}.{part}" for name in ("value", "out", "norm") for part in ("weight", "bias")}
    assert {name for name, _ in BLOCKS[kind](8).named_parameters()} == common | expected


@ALL_BLOCKS
def test_initial_values(kind):
    block = BLOCKS[kind](256)
    for name, parameter in block.named_parameters():
        if name.startswith("norm") or name.endswith("bias"):
            assert torch.count_nonzero(parameter) == 0, name
        else:
            assert parameter.mean().abs() < 5 * 0.01 / parameter.numel() ** 0.5, name
            assert parameter.std().item() == pytest.approx(0.01, rel=4 / (2 * parameter.numel()) ** 0.5), name
    assert (BLOCKS[kind](8, zero_init=False).norm.weight == 1).all()


@ALL_BLOCKS
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_new_block_is_exactly_the_identity(kind, training):
    x = make_input(*SHAPE, dtype=torch.float32)
    assert torch.equal(BLOCKS[kind](SHAPE[1]).train(training)(x), x)
    assert not torch.equal(BLOCKS[kind](SHAPE[1], zero_init=False).train(training)(x), x)


@ALL_BLOCKS
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (4, 1, 3), (3, 7, 5)], ids=str)
@pytest.mark.parametrize("pool_order", ["before", "after"])
def test_any_size_runs(kind, shape, pool_order):
    block = make_block(kind, pool=(2, 2, 2), pool_order=pool_order).eval()
    assert_equals_the_loop(block, make_input(2, SHAPE[1], *shape), kind, pool=(2, 2, 2), pool_order=pool_order)


@ALL_BLOCKS
def test_channels_last_input_gives_the_same(kind):
    block, x = make_block(kind).eval(), make_input(*SHAPE)
    torch.testing.assert_close(block(x.to(memory_format=torch.channels_last_3d)), block(x), rtol=0, atol=1e-12)


# ---- whitening


@pytest.mark.parametrize(("pool", "pool_order"), POOLS[:3])
@pytest.mark.parametrize("whiten_over", ["space_time", "frame"])
@pytest.mark.parametrize("bias", [False, True])
def test_whitened_queries_and_pooled_keys_have_mean_zero(pool, pool_order, whiten_over, bias):
    # Exact outputs do not depend on the keys' mean; gradients in half precision do.
    block = make_block("pairwise", pool=pool, pool_order=pool_order, whiten_over=whiten_over, bias=bias)
    x = make_input(*SHAPE)
    for tokens in block._whitened_query_key(*block._tokens(x), SHAPE[2:]):
        groups = tokens.unflatten(1, (SHAPE[2] if whiten_over == "frame" else 1, -1))
        assert groups.mean(2).abs().max() < 1e-12 < groups.std()


@pytest.mark.parametrize(("pool", "pool_order"), POOLS[:3])
def test_biases_of_query_and_key_change_non_local_but_not_pairwise(pool, pool_order):
    # A bias is a constant vector added to all queries or keys.
    x = make_input(*SHAPE)
    nl = make_block("nl", pool=pool, pool_order=pool_order).eval()
    before = nl(x)
    nl.query.bias.data += 1
    assert relative_error(nl(x) - x, before - x) > 1e-2

    block = make_block("pairwise", pool=pool, pool_order=pool_order).eval()
    before = block(x)
    for name in ("query", "key"):
        projection = getattr(block, name)
        projection.bias = torch.nn.Parameter(torch.full((block.inner_channels,), 3.0).double())
    torch.testing.assert_close(block(x), before, rtol=0, atol=1e-9)


@pytest.mark.full
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.06), (torch.float16, 0.008)])
@pytest.mark.parametrize(("pool", "pool_order"), POOLS[:3])
def test_half_precision_is_accurate_with_large_means(dtype, tolerance, pool, pool_order, full_size):
    """The means of queries and keys are about four times their deviations, as after a ReLU."""
    channels, size = (256, (4, 14, 14)) if full_size else (64, (2, 8, 8))
    x = torch.randn(2, channels, *size) + 4 * torch.randn(1, channels, 1, 1, 1)
    weight = torch.randn(x.shape)
    exact = make_block("pairwise", channels, pool=pool, pool_order=pool_order).eval()
    exact.norm.running_mean.zero_()
    block = copy.deepcopy(exact).float()
    tokens = x.flatten(2).transpose(1, 2)
    queries = exact.query(tokens.double())
    assert 3 < queries.mean(1).square().mean().sqrt() / queries.std(1).mean() < 5

    # In pooling after the projection rounding decides between near keys, so their gradient is not checked.
    checked = ["query"] if pool and pool_order == "after" else ["query", "key"]

    def gradients(module, out):
        loss = (out.double() * weight.double()).sum()
        return torch.autograd.grad(loss, [getattr(module, name).weight for name in checked])

    expected = exact(x.double())
    expected_grads = gradients(exact, expected)
    with torch.autocast("cpu", dtype=dtype):
        out = block(x)
        # Centred queries and plain keys: equal in exact arithmetic.
        tokens, sources = block._tokens(x)
        query = block.query(tokens)
        key, value = (block._pooled_after(p(sources), size) for p in (block.key, block.value))
        plain = attention.non_local_attention(attention.center(query), key, value, scale=block.scale)
        naive = x + block.norm(block._projected(plain, size))
    assert out.dtype == torch.float32
    assert (out - x - (expected - x)).norm() / (expected - x).norm() < tolerance / 5
    for got, naive_grad, exact_grad in zip(gradients(block, out), gradients(block, naive), expected_grads, strict=True):
        error, naive_error = ((g - exact_grad).norm() / exact_grad.norm() for g in (got, naive_grad))
        assert error < tolerance
        assert naive_error > 2.5 * error


@ALL_BLOCKS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
@pytest.mark.parametrize("pool_order", ["before", "after"])
def test_autocast_and_half_modules_are_accurate(kind, dtype, tolerance, pool_order):
    exact = make_block(kind, 32, pool_order=pool_order).eval()
    x = make_input(2, 32, 2, 6, 6)
    branch = exact(x) - x
    with torch.autocast("cpu", dtype=dtype):
        autocast = copy.deepcopy(exact).float()(x.float()) - x
    assert (autocast - branch).norm() < tolerance * branch.norm()
    half = copy.deepcopy(exact).to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    assert (half - exact(x)).norm() < tolerance * exact(x).norm()


# ---- memory


@pytest.mark.full
@ALL_BLOCKS
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_no_n_by_m_matrix_in_forward_or_backward(kind, autocast, full_size):
    size = (8, 28, 28) if full_size else (2, 20, 20)
    positions = math.prod(size)
    block = perturb(BLOCKS[kind](8, pool=None))
    x = torch.randn(1, 8, *size, requires_grad=True)
    usable = onednn.available()  # before recording, since it runs operators
    with Recorder() as recorder:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            out = block(x)
        out.sum().backward()
    # Large float32 maps are computed 256 rows at a time; otherwise no tensor exceeds twice the input.
    chunked = "_linear_pointwise" in recorder.largest
    bound = 256 * positions if chunked else 2 * x.numel()
    assert max(recorder.largest.values()) <= bound < positions**2 / 10, recorder.largest
    softmax = kind in ("nl", "gaussian", "dnl", "pairwise")
    assert chunked == (softmax and full_size and not autocast and usable)
    fused = [name for name in recorder.largest if name.startswith("_scaled_dot_product") and "math" not in name]
    assert len(fused) == (2 if softmax and not chunked else 0), recorder.largest

    if kind not in ("dot_product", "concatenation", "unary"):
        with Recorder() as recorder:
            block.attention_maps(x)
        assert max(recorder.largest.values()) >= positions**2


@pytest.mark.parametrize("kind", ["nl", "gaussian", "dnl", "pairwise"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pool", [None, (1, 2, 2)])
def test_attention_uses_a_fused_kernel(kind, dtype, pool, sdpa_kernels):
    block = perturb(BLOCKS[kind](16, pool=pool)).to(dtype)
    block(torch.randn(1, 16, 2, 6, 6, dtype=dtype, requires_grad=True))
    backends = torch.nn.attention.SDPBackend
    assert len(sdpa_kernels) == 1
    assert sdpa_kernels[0] not in (backends.MATH.value, backends.ERROR.value)


# ---- errors


NL, DNL = NonLocalBlock3d, DisentangledNonLocalBlock3d


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NL(8, 0), "inner_channels is 0; give at least 1, or None for channels // 2"),
        (lambda: NL(8, pool=(2, 2)), r"pool is \(2, 2\); give three sizes \(T, H, W\) of at least 1, or"),
        (lambda: NL(8, pool=(0, 2, 2)), r"pool is \(0, 2, 2\); give three sizes"),
        (lambda: NL(8, pool_order="behind"), "pool_order is 'behind'; allowed: before, after"),
        (lambda: NL(8, output="bn"), "output is 'bn'; allowed: conv_bn, conv, gamma"),
        (lambda: NL(8, temperature=0), "temperature is 0; give a number above 0"),
        (
            lambda: NL(8, attention="softmax"),
            "attention is 'softmax'; allowed: embedded_gaussian, gaussian, dot_product, c",
        ),
        (
            lambda: NL(8, attention="dot_product", learned_temperature=True),
            "dot_product attention has no softmax, so no",
        ),
        (
            lambda: DNL(8, pairwise=False, unary=False),
            "pairwise and unary are both False; a block needs at least one te",
        ),
        (lambda: DNL(8, whiten_over="channel"), "whiten_over is 'channel'; allowed: space_time, frame"),
        (
            lambda: DNL(8, pool=(2, 2, 2), whiten_over="frame"),
            r"pool \(2, 2, 2\) mixes frames; whiten_over='frame' needs",
        ),
        (lambda: DNL(8, project_terms="both"), "project_terms is 'both'; allowed: sum, each"),
    ],
)
def test_errors_say_what_is_allowed(make, message):
    with pytest.raises(ValueError, match=message):
        make()
