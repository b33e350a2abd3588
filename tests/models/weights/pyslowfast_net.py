"""PySlowFast's networks in plain functions of its named tensors, in its builder's order of operations.

Independent of the package: kernels, strides, block counts and names are written out again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Frames of the stem's kernel, then of the blocks' first convolutions in s2 ... s5, cyclically; the fast pathway's last.
FRAMES = {
    "c2d": (1, [1], [1], [1], [1]),
    "c2d_nopool": (1, [1], [1], [1], [1]),
    "i3d": (5, [3], [3, 1], [3, 1], [1, 3]),
    "slow": (1, [1], [1], [3], [3]),
    "slowfast": (1, [1], [1], [3], [3]),
    "fast": (5, [3], [3], [3], [3]),
}
NONLOCAL = {3: (1, 3), 4: (1, 3, 5)}
NORM = ("weight", "bias", "running_mean", "running_var")
Tensors = dict[str, torch.Tensor]


def shapes(arch, depth=50, width=8, classes=5, fusion_kernel=7, nonlocal_blocks=None, temporal_blocks=None):
    """Every tensor's shape by its name, counters of batches included.

    `temporal_blocks` is NUM_BLOCK_TEMP_KERNEL: in s2 ... s5, how many blocks keep their temporal kernel.
    """
    found = {}

    def norm(name, channels):
        found.update({f"{name}.{leaf}": (channels,) for leaf in NORM})
        found[f"{name}.num_batches_tracked"] = ()

    pathways = [(arch, width)] + ([("fast", width // 8)] if arch == "slowfast" else [])
    for p, (kind, channels) in enumerate(pathways):
        found[f"s1.pathway{p}_stem.conv.weight"] = (channels, 3, FRAMES[kind][0], 7, 7)
        norm(f"s1.pathway{p}_stem.bn", channels)
        before = channels
        for stage, count in enumerate(BLOCKS[depth], start=2):
            inner = channels * 2 ** (stage - 2)
            into = before + (2 * before // 8 if arch == "slowfast" and p == 0 else 0)
            for i in range(count):
                block = f"s{stage}.pathway{p}_res{i}"
                cycle = FRAMES[kind][stage - 1]
                kept = temporal_blocks is None or i < temporal_blocks[stage - 2]
                frames = cycle[i % len(cycle)] if kept else 1
                if i == 0:
                    found[f"{block}.branch1.weight"] = (inner * 4, into, 1, 1, 1)
                    norm(f"{block}.branch1_bn", inner * 4)
                found[f"{block}.branch2.a.weight"] = (inner, into, frames, 1, 1)
                norm(f"{block}.branch2.a_bn", inner)
                found[f"{block}.branch2.b.weight"] = (inner, inner, 1, 3, 3)
                norm(f"{block}.branch2.b_bn", inner)
                found[f"{block}.branch2.c.weight"] = (inner * 4, inner, 1, 1, 1)
                norm(f"{block}.branch2.c_bn", inner * 4)
                into = inner * 4
                if p == 0 and i in (nonlocal_blocks or {}).get(stage, ()):
                    block = f"s{stage}.pathway0_nonlocal{i}"
                    for layer in ("theta", "phi", "g"):
                        found[f"{block}.conv_{layer}.weight"] = (inner * 2, inner * 4, 1, 1, 1)
                        found[f"{block}.conv_{layer}.bias"] = (inner * 2,)
                    found[f"{block}.conv_out.weight"] = (inner * 4, inner * 2, 1, 1, 1)
                    found[f"{block}.conv_out.bias"] = (inner * 4,)
                    norm(f"{block}.bn", inner * 4)
            before = inner * 4
    if arch == "slowfast":
        for stage, channels in ((1, width // 8), (2, width // 2), (3, width), (4, width * 2)):
            found[f"s{stage}_fuse.conv_f2s.weight"] = (2 * channels, channels, fusion_kernel, 1, 1)
            norm(f"s{stage}_fuse.bn", 2 * channels)
    features = width * 32 + (width * 4 if arch == "slowfast" else 0)
    return found | {"head.projection.weight": (classes, features), "head.projection.bias": (classes,)}


def draw(named_shapes, seed=0) -> Tensors:
    """Weights under which signals keep their size and no part of the network is without effect, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(shape, std):
        return torch.randn(shape, generator=generator, dtype=torch.float64) * std

    tensors = {}
    for name, shape in named_shapes.items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            tensors[name] = 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)
        elif name.endswith("bn.weight"):
            scale = 0.3 if "c_bn" in name else 0.1 if "nonlocal" in name else 1
            tensors[name] = (0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)) * scale
        elif len(shape) == 1:
            tensors[name] = normal(shape, 0.2)
        else:
            fan_in = torch.Size(shape[1:]).numel()
            gain = 0.15 if "head" in name else 0.35 if "nonlocal" in name else 2**0.5
            tensors[name] = normal(shape, gain * fan_in**-0.5)
    return tensors


def probabilities(
    tensors: Tensors, clip: torch.Tensor, arch: str, *, depth=50, alpha=4, attention="softmax"
) -> torch.Tensor:
    """PySlowFast's test result for a clip [B, 3, T, H, W]: [B, K], softmax at each position, then their mean."""
    frames = clip.shape[2]
    paths = [clip]
    if arch == "slowfast":
        paths = [clip[:, :, torch.linspace(0, frames - 1, frames // alpha).long()], clip]
    paths = [_stem(tensors, f"s1.pathway{p}_stem", x) for p, x in enumerate(paths)]
    for stage, count in enumerate(BLOCKS[depth], start=2):
        if arch == "slowfast":
            paths[0] = _fuse(tensors, f"s{stage - 1}_fuse", *paths, alpha)
        for p in range(len(paths)):
            for i in range(count):
                paths[p] = _block(tensors, f"s{stage}.pathway{p}_res{i}", paths[p], 2 if i == 0 and stage > 2 else 1)
                if f"s{stage}.pathway{p}_nonlocal{i}.conv_g.weight" in tensors:
                    paths[p] = _nonlocal(tensors, f"s{stage}.pathway{p}_nonlocal{i}", paths[p], attention)
        if stage == 2 and arch in ("c2d", "i3d"):
            paths = [F.max_pool3d(x, (2, 1, 1), (2, 1, 1)) for x in paths]
    pooled = [F.avg_pool3d(x, (x.shape[2], min(7, x.shape[3]), min(7, x.shape[4])), stride=1) for x in paths]
    features = torch.cat(pooled, dim=1).permute(0, 2, 3, 4, 1)
    logits = features @ tensors["head.projection.weight"].T + tensors["head.projection.bias"]
    return logits.softmax(dim=-1).mean(dim=(1, 2, 3))


def _norm(tensors, name, x):
    scale, bias, mean, variance = (tensors[f"{name}.{leaf}"].view(-1, 1, 1, 1) for leaf in NORM)
    return (x - mean) / (variance + 1e-5).sqrt() * scale + bias


def _stem(tensors, name, x):
    weight = tensors[f"{name}.conv.weight"]
    x = F.conv3d(x, weight, stride=(1, 2, 2), padding=(weight.shape[2] // 2, 3, 3))
    return F.max_pool3d(F.relu(_norm(tensors, f"{name}.bn", x)), (1, 3, 3), (1, 2, 2), (0, 1, 1))


def _fuse(tensors, name, slow, fast, alpha):
    weight = tensors[f"{name}.conv_f2s.weight"]
    lateral = F.conv3d(fast, weight, stride=(alpha, 1, 1), padding=(weight.shape[2] // 2, 0, 0))
    return torch.cat([slow, F.relu(_norm(tensors, f"{name}.bn", lateral))], dim=1)


def _block(tensors, name, x, stride):
    weight = tensors[f"{name}.branch2.a.weight"]
    y = F.conv3d(x, weight, padding=(weight.shape[2] // 2, 0, 0))
    y = F.relu(_norm(tensors, f"{name}.branch2.a_bn", y))
    y = F.conv3d(y, tensors[f"{name}.branch2.b.weight"], stride=(1, stride, stride), padding=(0, 1, 1))
    y = F.relu(_norm(tensors, f"{name}.branch2.b_bn", y))
    y = _norm(tensors, f"{name}.branch2.c_bn", F.conv3d(y, tensors[f"{name}.branch2.c.weight"]))
    if f"{name}.branch1.weight" in tensors:
        x = F.conv3d(x, tensors[f"{name}.branch1.weight"], stride=(1, stride, stride))
        x = _norm(tensors, f"{name}.branch1_bn", x)
    return F.relu(x + y)


def _nonlocal(tensors, name, x, attention):
    def project(layer, source):
        weight = tensors[f"{name}.conv_{layer}.weight"].flatten(1)
        return torch.einsum("dc,bcthw->bdthw", weight, source) + tensors[f"{name}.conv_{layer}.bias"].view(-1, 1, 1, 1)

    pooled = F.max_pool3d(x, (1, 2, 2), (1, 2, 2))
    theta, phi, g = (
        project(layer, s).flatten(2) for layer, s in (("theta", x), ("phi", pooled), ("g", pooled))
    )  # [B, D, N], [B, D, M] twice
    affinity = torch.einsum("bdn,bdm->bnm", theta, phi)
    if attention == "softmax":
        affinity = (affinity * theta.shape[1] ** -0.5).softmax(dim=2)
    else:
        affinity = affinity / phi.shape[2]
    y = torch.einsum("bnm,bdm->bdn", affinity, g).unflatten(2, x.shape[2:])
    return x + _norm(tensors, f"{name}.bn", project("out", y))
