"""Published blocks in their order of operations: convolutions on grids and the whole attention map.

Written from the equations and the sources that `dialects` names; shares no code with the package. Plain torch, so that
autograd differentiates it; meant for float64. x is [B, C, T, H, W]; w holds a block's parameters by our names.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def convolve(x, w, name):
    """A 1x1x1 convolution."""
    return F.conv3d(x, w[f"{name}.weight"][:, :, None, None, None], w.get(f"{name}.bias"))


def softmax(logits):
    """Over the last dimension."""
    exponentials = torch.exp(logits - logits.max(dim=-1, keepdim=True).values)
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def batch_norm(y, w, training, eps=1e-5):
    mean, variance = w["norm.running_mean"], w["norm.running_var"]
    if training:
        mean = y.mean(dim=(0, 2, 3, 4))
        variance = ((y - mean[:, None, None, None]) ** 2).mean(dim=(0, 2, 3, 4))
    mean, variance, gamma, beta = (t[:, None, None, None] for t in (mean, variance, w["norm.weight"], w["norm.bias"]))
    return (y - mean) / torch.sqrt(variance + eps) * gamma + beta


def max_pool(x, pool):
    """Windows that do not fit are dropped; none is larger than the grid."""
    if pool is None:
        return x
    size = tuple(min(k, n) for k, n in zip(pool, x.shape[2:], strict=True))
    return F.max_pool3d(x, kernel_size=size, stride=size)


def official(x, w, training, *, pool, scaled, temperature):
    """nl_gc_block.py, nonlocal_block.py and nonlocal_block_nowd.py of the DNL authors."""
    residual = x
    input_x = max_pool(x, pool)
    query = convolve(x, w, "query")
    key = convolve(input_x, w, "key")
    value = convolve(input_x, w, "value")
    query, key, value = (t.reshape(t.shape[0], t.shape[1], -1) for t in (query, key, value))  # [B, D, N or M]

    key = key - key.mean(dim=2).unsqueeze(2)
    query = query - query.mean(dim=2).unsqueeze(2)

    sim_map = torch.bmm(query.transpose(1, 2), key)  # [B, N, M]
    if scaled:
        sim_map = sim_map / math.sqrt(query.shape[1])
        sim_map = sim_map / temperature
    sim_map = softmax(sim_map)
    out_sim = torch.bmm(sim_map, value.transpose(1, 2)).transpose(1, 2)
    out_sim = w["gamma"] * out_sim.reshape(x.shape)

    mask = convolve(input_x, w, "unary")
    mask = softmax(mask.reshape(mask.shape[0], 1, -1))
    out_gc = torch.bmm(value, mask.permute(0, 2, 1))[..., None, None]  # [B, C, 1, 1, 1]
    return out_sim + out_gc + residual


def mmseg(x, w, training, *, norm):
    """dnl_head.py of mmsegmentation over mmcv's non_local.py."""

    def conv_out(y):
        y = convolve(y, w, "out")
        return batch_norm(y, w, training) if norm else y

    n = x.shape[0]
    g_x = convolve(x, w, "value").reshape(n, -1, x[0, 0].numel()).permute(0, 2, 1)  # [B, N, E]
    theta_x = convolve(x, w, "query").reshape(n, -1, x[0, 0].numel()).permute(0, 2, 1)
    phi_x = convolve(x, w, "key").reshape(n, -1, x[0, 0].numel())
    theta_x = theta_x - theta_x.mean(dim=-2, keepdim=True)
    phi_x = phi_x - phi_x.mean(dim=-1, keepdim=True)

    pairwise_weight = torch.matmul(theta_x, phi_x)
    pairwise_weight = pairwise_weight / theta_x.shape[-1] ** 0.5
    pairwise_weight = pairwise_weight / 0.05
    pairwise_weight = softmax(pairwise_weight)
    y = torch.matmul(pairwise_weight, g_x).permute(0, 2, 1).reshape(n, -1, *x.shape[2:])

    unary_mask = softmax(convolve(x, w, "unary").reshape(n, 1, -1))
    unary_x = torch.matmul(unary_mask, g_x).permute(0, 2, 1).reshape(n, -1, 1, 1, 1)
    return x + conv_out(y) + conv_out(unary_x)


def pyslowfast(x, w, training, *, pool, attention):
    """nonlocal_helper.py of SlowFast."""
    x_identity = x
    n, _, t, height, width = x.shape
    theta = convolve(x, w, "query")
    x = max_pool(x, pool)
    phi = convolve(x, w, "key")
    g = convolve(x, w, "value")
    dim_inner = theta.shape[1]
    theta, phi, g = (y.reshape(n, dim_inner, -1) for y in (theta, phi, g))
    theta_phi = torch.einsum("nct,ncp->ntp", theta, phi)
    if attention == "embedded_gaussian":
        theta_phi = theta_phi * dim_inner**-0.5
        theta_phi = softmax(theta_phi)
    else:
        theta_phi = theta_phi / theta_phi.shape[2]
    theta_phi_g = torch.einsum("ntg,ncg->nct", theta_phi, g).reshape(n, dim_inner, t, height, width)
    p = convolve(theta_phi_g, w, "out")
    p = batch_norm(p, w, training)
    return x_identity + p


def mmaction(x, w, training, *, pool, attention, scaled):
    """mmcv's non_local.py with sub_sample, as mmaction2 configures it."""
    n = x.shape[0]
    g_x = max_pool(convolve(x, w, "value"), pool).flatten(2).permute(0, 2, 1)
    if attention == "gaussian":
        theta_x = x.flatten(2).permute(0, 2, 1)
        phi_x = max_pool(x, pool).flatten(2)
    else:
        theta_x = convolve(x, w, "query").flatten(2).permute(0, 2, 1)
        phi_x = max_pool(convolve(x, w, "key"), pool).flatten(2)

    if attention == "concatenation":
        h, width = theta_x.shape[1], phi_x.shape[2]
        theta_x = theta_x.permute(0, 2, 1)[..., None].repeat(1, 1, 1, width)
        phi_x = phi_x[:, :, None].repeat(1, 1, h, 1)
        concat_feature = torch.cat([theta_x, phi_x], dim=1)  # [B, 2D, N, M]
        pairwise_weight = torch.einsum("d,bdnm->bnm", w["concat.weight"][0], concat_feature)
        pairwise_weight = torch.clamp(pairwise_weight, min=0)
        pairwise_weight = pairwise_weight / pairwise_weight.shape[-1]
    else:
        pairwise_weight = torch.matmul(theta_x, phi_x)
        if attention == "embedded_gaussian" and scaled:
            pairwise_weight = pairwise_weight / theta_x.shape[-1] ** 0.5
        if attention == "dot_product":
            pairwise_weight = pairwise_weight / pairwise_weight.shape[-1]
        else:
            pairwise_weight = softmax(pairwise_weight)

    y = torch.matmul(pairwise_weight, g_x)
    y = y.permute(0, 2, 1).reshape(n, -1, *x.shape[2:])
    return x + batch_norm(convolve(y, w, "out"), w, training)
