"""The equations of the papers as loops over i and j, in numpy and float64; independent of the package.

One sample at a time: query [N, D], key [M, D], value [M, E], saliency logits [M]; grids are [T, H, W, C].
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def dot(a, b):
    return float(np.dot(a, b))


def softmax(logits):
    largest = max(logits)
    exponentials = [math.exp(x - largest) for x in logits]
    total = sum(exponentials)
    return [e / total for e in exponentials]


def mean(tokens):
    total = np.zeros(len(tokens[0]))
    for token in tokens:
        total = total + token
    return total / len(tokens)


def weighted_sum(weights, value):
    total = np.zeros(value.shape[1])
    for weight, v in zip(weights, value, strict=True):
        total = total + weight * v
    return total


def non_local_weights(query, key, scale):
    return [softmax([scale * dot(q, k) for k in key]) for q in query]


def non_local(query, key, value, scale):
    """y_i = sum_j softmax_j(scale q_i . k_j) v_j."""
    return np.stack([weighted_sum(row, value) for row in non_local_weights(query, key, scale)])


def dot_product(query, key, value):
    """y_i = 1/M sum_j (q_i . k_j) v_j."""
    return np.stack([weighted_sum([dot(q, k) / len(key) for k in key], value) for q in query])


def concatenation(query, key, value, weight):
    """y_i = 1/M sum_j ReLU(weight . [q_i, k_j]) v_j."""
    rows = [[max(dot(weight, np.concatenate([q, k])), 0.0) / len(key) for k in key] for q in query]
    return np.stack([weighted_sum(row, value) for row in rows])


def global_context(x, weights, transform):
    """x [C, T, H, W] plus the transformed sum_j softmax_j(m_j) x_j, the same vector at every position."""
    positions = np.moveaxis(x, 0, -1).reshape(-1, x.shape[0])
    logits = [dot(weights["mask.weight"][0], p) + weights["mask.bias"][0] for p in positions]
    return x + transform(weighted_sum(softmax(logits), positions))[:, None, None, None]


def simplified_non_local(x, weights):
    """x_i + sum_j softmax_j(m_j) W_v x_j: every position projected, then summed."""
    positions = np.moveaxis(x, 0, -1).reshape(-1, x.shape[0])
    logits = [dot(weights["mask.weight"][0], p) + weights["mask.bias"][0] for p in positions]
    value = np.stack([weights["value.weight"] @ p for p in positions])
    return x + weighted_sum(softmax(logits), value)[:, None, None, None]


def bottleneck(context, weights, eps=1e-5):
    """GCNet's transform of one vector: reduce, layer norm, ReLU, expand."""
    hidden = weights["reduce.weight"] @ context + weights["reduce.bias"]
    hidden = (hidden - hidden.mean()) / math.sqrt(((hidden - hidden.mean()) ** 2).mean() + eps)
    hidden = np.maximum(hidden * weights["layer_norm.weight"] + weights["layer_norm.bias"], 0)
    return weights["expand.weight"] @ hidden + weights["expand.bias"]


def whitened_pairwise(query, key, value, scale):
    """y_i = sum_j softmax_j(scale (q_i - mu_q) . (k_j - mu_k)) v_j, mu_k the mean over the M keys given."""
    return non_local(query - mean(query), key - mean(key), value, scale)


def unary(logits, value):
    """y = sum_j softmax_j(m_j) v_j."""
    return weighted_sum(softmax(list(logits)), value)


def disentangled(query, key, value, logits, scale):
    """y_i = sum_j (softmax_j(scale (q_i - mu_q) . (k_j - mu_k)) + softmax_j(m_j)) v_j."""
    pairwise = np.array(non_local_weights(query - mean(query), key - mean(key), scale))
    weights = pairwise + np.array(softmax(list(logits)))
    np.testing.assert_allclose(weights.sum(axis=1), 2, atol=1e-12)
    return np.stack([weighted_sum(row, value) for row in weights])


def max_pool(grid, size):
    """Non-overlapping maxima; a remainder is dropped, and a window never exceeds the grid."""
    size = [min(s, n) for s, n in zip(size, grid.shape[:3], strict=True)]
    out = np.zeros([n // s for n, s in zip(grid.shape[:3], size, strict=True)] + [grid.shape[3]])
    for t, h, w, c in np.ndindex(*out.shape):
        window = [
            grid[t * size[0] + i, h * size[1] + j, w * size[2] + k, c]
            for i, j, k in itertools.product(*map(range, size))
        ]
        out[t, h, w, c] = max(window)
    return out


def convolve(grid, weights, name):
    """A 1x1x1 convolution with the weights of that name."""
    out = np.zeros([*grid.shape[:3], weights[f"{name}.weight"].shape[0]])
    for t, h, w in np.ndindex(*grid.shape[:3]):
        out[t, h, w] = weights[f"{name}.weight"] @ grid[t, h, w] + weights.get(f"{name}.bias", 0.0)
    return out


def whiten_frames(grid):
    out = grid.copy()
    for t in range(len(grid)):
        out[t] = grid[t] - mean(list(grid[t].reshape(-1, grid.shape[3])))
    return out


def branch(x, weights, *, kind, scale, pool=None, pool_order="before", whiten_over="space_time"):
    """What a block adds to one sample x [C, T, H, W] before the batch norm, as [C, T, H, W].

    Args:
        x: One sample.
        weights: The block's state dict as numpy arrays.
        kind: nl, gaussian, dot_product, concatenation, dnl, pairwise or unary.
        scale: Factor on the similarities.
        pool: Sizes along T, H and W, or None.
        pool_order: Pool before or after the convolutions.
        whiten_over: space_time or frame.
    """
    grid = np.moveaxis(x, 0, -1)

    def source(name):
        if pool is None:
            return convolve(grid, weights, name)
        if pool_order == "before":
            return convolve(max_pool(grid, pool), weights, name)
        return max_pool(convolve(grid, weights, name), pool)

    def tokens(features):
        return features.reshape(-1, features.shape[3])

    value = tokens(source("value"))
    if kind == "gaussian":
        query, key = tokens(grid), tokens(grid if pool is None else max_pool(grid, pool))
    elif kind != "unary":
        query, key = convolve(grid, weights, "query"), source("key")
        if whiten_over == "frame":
            # Already centred in each frame, so centring once more over all frames changes nothing.
            query, key = whiten_frames(query), whiten_frames(key)
        query, key = tokens(query), tokens(key)
    if kind in ("dnl", "unary"):
        logits = tokens(source("unary"))[:, 0]
    if kind in ("nl", "gaussian"):
        y = non_local(query, key, value, scale)
    elif kind == "dot_product":
        y = dot_product(query, key, value)
    elif kind == "concatenation":
        y = concatenation(query, key, value, weights["concat.weight"][0])
    elif kind == "pairwise":
        y = whitened_pairwise(query, key, value, scale)
    elif kind == "dnl":
        y = disentangled(query, key, value, logits, scale)
    else:
        y = np.stack([unary(logits, value)] * (grid.shape[0] * grid.shape[1] * grid.shape[2]))
    out = convolve(y.reshape(*grid.shape[:3], -1), weights, "out")
    return np.moveaxis(out, -1, 0)


def batch_norm(y, weights, *, training, eps=1e-5):
    """[B, C, T, H, W]: statistics of the batch in training, running ones else."""
    out = np.zeros_like(y)
    for c in range(y.shape[1]):
        if training:
            center, variance = y[:, c].mean(), ((y[:, c] - y[:, c].mean()) ** 2).mean()
        else:
            center, variance = weights["norm.running_mean"][c], weights["norm.running_var"][c]
        normal = (y[:, c] - center) / math.sqrt(variance + eps)
        out[:, c] = normal * weights["norm.weight"][c] + weights["norm.bias"][c]
    return out


def block(x, weights, *, training=False, **options):
    """x [B, C, T, H, W] plus the normalised branch; options as `branch` takes them."""
    return x + batch_norm(np.stack([branch(sample, weights, **options) for sample in x]), weights, training=training)
