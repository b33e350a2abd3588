"""The attention functions compared with the equations, written as loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dnl_video.models import attention
from tests.models import reference
from tests.models.helpers import Recorder, relative_error

SCALE = 0.7
B, N, M, D, E = 2, 11, 7, 4, 3


def make_tokens(n=N, m=M, d=D, e=E, dtype=torch.float64):
    """Query, key, value and logits whose means are as large as their deviations."""
    query = torch.randn(B, n, d, dtype=torch.float64) + torch.randn(d, dtype=torch.float64)
    key = torch.randn(B, m, d, dtype=torch.float64) + torch.randn(d, dtype=torch.float64)
    value = torch.randn(B, m, e, dtype=torch.float64)
    logits = torch.randn(B, m, dtype=torch.float64)
    return tuple(t.to(dtype) for t in (query, key, value, logits))


def whitened_pairwise(query, key, value, *, scale=SCALE):
    return attention.non_local_attention(attention.center(query), attention.center(key), value, scale=scale)


def disentangled(query, key, value, logits):
    return whitened_pairwise(query, key, value) + attention.unary_attention(logits, value).unsqueeze(1)


def centered_projection(tokens, weight):
    return attention.centered_projections(tokens, (weight, None))[0]


# name -> (ours, the loop over one sample), each of (query, key, value, logits)
FUNCTIONS = {
    "non_local": (
        lambda q, k, v, m: attention.non_local_attention(q, k, v, scale=SCALE),
        lambda q, k, v, m: reference.non_local(q, k, v, SCALE),
    ),
    "dot_product": (
        lambda q, k, v, m: attention.dot_product_attention(q, k, v),
        lambda q, k, v, m: reference.dot_product(q, k, v),
    ),
    "whitened_pairwise": (
        lambda q, k, v, m: whitened_pairwise(q, k, v),
        lambda q, k, v, m: reference.whitened_pairwise(q, k, v, SCALE),
    ),
    "unary": (
        lambda q, k, v, m: attention.unary_attention(m, v),
        lambda q, k, v, m: reference.unary(m, v),
    ),
    "disentangled": (
        disentangled,
        lambda q, k, v, m: reference.disentangled(q, k, v, m, SCALE),
    ),
    "pairwise_map": (
        lambda q, k, v, m: attention.pairwise_map(q, k, scale=SCALE),
        lambda q, k, v, m: np.array(reference.non_local_weights(q, k, SCALE)),
    ),
    "unary_map": (
        lambda q, k, v, m: attention.unary_map(m),
        lambda q, k, v, m: np.array(reference.softmax(list(m))),
    ),
    "center": (
        lambda q, k, v, m: attention.center(q),
        lambda q, k, v, m: q - reference.mean(list(q)),
    ),
    "position_mean": (
        lambda q, k, v, m: attention.position_mean(q),
        lambda q, k, v, m: reference.mean(list(q))[None],
    ),
}


@pytest.mark.full
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("value_channels", [D, E], ids=["same_width", "narrow_value"])
def test_function_equals_the_loop(name, dtype, tolerance, value_channels, full_size):
    ours, loop = FUNCTIONS[name]
    sizes = (200, 150, 32, 32) if full_size else (N, M, D, value_channels)
    tokens = make_tokens(*sizes, dtype=dtype)
    expected = torch.stack([torch.as_tensor(loop(*(t[b].double().numpy() for t in tokens))) for b in range(B)])
    got = ours(*tokens)
    assert got.dtype == dtype
    assert got.shape == expected.shape
    assert relative_error(got, expected) <= tolerance


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("value_channels", [3, 2, 4])
def test_gradcheck(name, value_channels):
    tokens = [t.requires_grad_() for t in make_tokens(5, 4, 3, value_channels)]
    assert torch.autograd.gradcheck(FUNCTIONS[name][0], tokens)


def test_centered_projection_equals_projecting_then_centring():
    tokens, weight, bias = torch.randn(B, N, 5).double() + 3, torch.randn(D, 5).double(), torch.randn(D).double()
    projected = F.linear(tokens, weight, bias).numpy()
    expected = torch.stack([torch.as_tensor(p - reference.mean(list(p))) for p in projected])
    torch.testing.assert_close(centered_projection(tokens, weight), expected, rtol=0, atol=1e-12)


def test_centered_projection_gradcheck():
    tokens, weight = torch.randn(B, 5, 4).double().requires_grad_(), torch.randn(3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(centered_projection, (tokens, weight))


@pytest.mark.parametrize("which", ["query", "key"])
def test_a_constant_added_to_all_queries_or_keys_does_not_change_whitened_pairwise(which):
    query, key, value, _ = make_tokens()
    constant = 5 * torch.randn(D).double()
    moved = (query + constant, key, value) if which == "query" else (query, key + constant, value)
    torch.testing.assert_close(whitened_pairwise(*moved), whitened_pairwise(query, key, value))


def test_a_constant_added_to_all_queries_changes_non_local_and_one_in_the_keys_does_not():
    query, key, value, _ = make_tokens()
    constant = torch.randn(D).double()
    plain = attention.non_local_attention(query, key, value, scale=SCALE)
    moved_query = attention.non_local_attention(query + constant, key, value, scale=SCALE)
    moved_key = attention.non_local_attention(query, key + constant, value, scale=SCALE)
    assert relative_error(moved_query, plain) > 0.1
    torch.testing.assert_close(moved_key, plain)


def test_non_local_weights_are_proportional_to_pairwise_times_unary():
    # q_i . k_j = (q_i - mu_q) . (k_j - mu_k) + mu_q . k_j + terms constant in j
    query, key, _, _ = make_tokens()
    pairwise = attention.pairwise_map(attention.center(query), attention.center(key), scale=SCALE)
    unary = attention.unary_map(SCALE * (key @ attention.position_mean(query).transpose(1, 2)).squeeze(-1))
    product = pairwise * unary.unsqueeze(1)
    expected = product / product.sum(-1, keepdim=True)
    torch.testing.assert_close(attention.pairwise_map(query, key, scale=SCALE), expected)


def test_rows_of_disentangled_weights_sum_to_two():
    query, key, value, logits = make_tokens()
    pairwise = attention.pairwise_map(attention.center(query), attention.center(key), scale=SCALE)
    weights = pairwise + attention.unary_map(logits).unsqueeze(1)
    torch.testing.assert_close(weights.sum(-1), torch.full((B, N), 2.0).double())
    torch.testing.assert_close(weights @ value, disentangled(query, key, value, logits))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_means_and_maps_of_half_precision_are_float32(dtype):
    query, key, _, logits = (t.to(dtype) for t in make_tokens())
    assert attention.position_mean(query).dtype == torch.float32
    assert attention.pairwise_map(query, key, scale=SCALE).dtype == torch.float32
    assert attention.unary_map(logits).dtype == torch.float32
    assert attention.center(query).dtype == dtype
    # Near 1000 the spacing of bfloat16 is 4: neither the mean nor the centred values would be accurate.
    tokens = torch.tensor([1000, 1008, 1001]).to(dtype)[None, :, None]
    assert attention.position_mean(tokens).item() == pytest.approx(tokens.double().mean().item(), rel=1e-6)


def test_centring_the_keys_makes_bfloat16_gradients_accurate():
    """In exact arithmetic centring the queries is enough; here the means are about four times the deviations."""
    query, key = (torch.randn(B, 64, 16) + 4 * torch.randn(16) for _ in range(2))
    value, weight = torch.randn(B, 64, 16).bfloat16(), torch.randn(B, 64, 16)
    query, key = query.bfloat16(), key.bfloat16()

    def gradient(function, dtype):
        leaf = query.to(dtype).requires_grad_()
        out = function(leaf, key.to(dtype), value.to(dtype), scale=0.2)
        return torch.autograd.grad((out.double() * weight).sum(), leaf)[0].double()

    def queries_alone(q, k, v, *, scale):
        return attention.non_local_attention(attention.center(q), k, v, scale=scale)

    exact = gradient(whitened_pairwise, torch.float64)
    error, naive_error = (
        (gradient(function, torch.bfloat16) - exact).norm() / exact.norm()
        for function in (whitened_pairwise, queries_alone)
    )
    assert error < 0.02
    assert naive_error > 2.5 * error


@pytest.mark.parametrize("name", ["non_local", "dot_product", "whitened_pairwise", "disentangled"])
@pytest.mark.parametrize("value_channels", [8, 4, 16], ids=["same_width", "narrow_value", "wide_value"])
def test_no_function_makes_an_n_by_m_matrix(name, value_channels):
    tokens = [t.requires_grad_() for t in make_tokens(600, 500, 8, value_channels, torch.float32)]
    with Recorder() as recorder:
        FUNCTIONS[name][0](*tokens).sum().backward()
    assert max(recorder.largest.values()) < 600 * 500, recorder.largest


def test_the_recorder_records_the_map():
    query, key, _, _ = make_tokens(600, 500, 8, 8)
    with Recorder() as recorder:
        attention.pairwise_map(query, key, scale=SCALE)
    assert max(recorder.largest.values()) >= 600 * 500


def test_dot_product_of_small_keys_stays_in_float16_range():
    q, k, v = (torch.randn(1, 4096, 8, dtype=torch.float64) * std for std in (1, 1e-3, 1))
    half = attention.dot_product_attention(q.half(), k.half(), v.half())
    exact = attention.dot_product_attention(q, k, v)
    # Keys divided by M would have only four to eight steps of float16.
    assert (half.double() - exact).norm() < 0.02 * exact.norm()
