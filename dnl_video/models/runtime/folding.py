"""`optimize_for_inference`: the same network with folded batch norms, channels-last layout and fused convolutions.

A factorised 3-D convolution is a 2-D one on a free view of a channels-last clip: (1, k, k) on [B*T, C, H, W],
(k, 1, 1) on [B, C, T, H*W]. PyTorch has far better code for those, above all with one thread, where most 3-D
convolutions take an unfold-and-multiply path.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnl_video.models.backbones import BottleneckBlock, FuseFastToSlow, ResBlock, ResNetBasicStem, ResStage
from dnl_video.models.runtime import onednn


def optimize_for_inference(model: nn.Module) -> nn.Module:
    """Return a copy of a network that computes the same logits faster on a CPU, for inference only.

    The copy is in evaluation mode, has no gradients and other state-dict keys; parts that it does not know (any module
    that is no stem, bottleneck block, fusion or context block of ours) are kept as they are. So is a network whose
    weights are not all finite.

    Args:
        model: A network of `create_model`, or any other module; it is not changed.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False)
    # oneDNN's ReLU turns NaN into 0: a broken network would look sound.
    finite = all(tensor.isfinite().all() for tensor in network.state_dict().values())
    return _converted(network) if finite else network


class FoldedConv3d(nn.Module):
    """A convolution with its batch norm folded in, then optionally a residual sum and a ReLU.

    Args:
        conv: The convolution.
        norm: The batch norm behind it, or None.
        relu: Apply a ReLU at the end.

    Shape:
        [B, C, T, H, W] -> [B, C', T', H', W'], channels-last.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv3d, norm: nn.BatchNorm3d | None, *, relu: bool) -> None:
        super().__init__()
        weight, bias = _fold(conv.weight, conv.bias, norm)
        (kt, kh, kw), (st, sh, sw) = conv.kernel_size, conv.stride
        (pt, ph, pw), (dt, dh, dw) = cast(tuple[int, int, int], conv.padding), conv.dilation
        self.relu = relu
        self.groups = conv.groups
        # "space" looks at frames one by one, "time" at positions one by one.
        if (kt, st, pt) == (1, 1, 0):
            self.kind, weight = "space", weight[:, :, 0]
            self.stride, self.padding, self.dilation = (sh, sw), (ph, pw), (dh, dw)
        elif (kh, kw, sh, sw, ph, pw) == (1, 1, 1, 1, 0, 0):
            self.kind, weight = "time", weight[:, :, :, :, 0]
            self.stride, self.padding, self.dilation = (st, 1), (pt, 0), (dt, 1)
        else:
            self.kind = "both"
            self.stride, self.padding, self.dilation = (st, sh, sw), (pt, ph, pw), (dt, dh, dw)  # type: ignore[assignment]
        layout = torch.channels_last_3d if self.kind == "both" else torch.channels_last
        self.register_buffer("weight", weight.contiguous(memory_format=layout))
        self.register_buffer("bias", bias)
        self._packed: Tensor | None = None

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Convolve x; with ``add``, overwrite that tensor with ``relu(add + convolution)`` and return it."""
        size = x.shape
        grid = self._view(x)
        if add is None:
            return self._unview(self._convolve(grid), size)
        return self._unview(self._convolve_add(grid, self._view(add)), size)

    def _view(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        if self.kind == "both":
            return x
        batch, channels, t, h, w = x.shape
        tokens = x.permute(0, 2, 3, 4, 1)  # [B, T, H, W, C], contiguous
        if self.kind == "space":
            return tokens.reshape(batch * t, h, w, channels).permute(0, 3, 1, 2)
        return tokens.reshape(batch, t, h * w, channels).permute(0, 3, 1, 2)

    def _unview(self, y: Tensor, size: torch.Size) -> Tensor:
        tokens = y.movedim(1, -1)
        if self.kind == "space":
            return tokens.unflatten(0, (size[0], -1)).permute(0, 4, 1, 2, 3)
        if self.kind == "time":
            return tokens.unflatten(2, tuple(size[3:])).permute(0, 4, 1, 2, 3)
        return y

    def _convolve(self, x: Tensor) -> Tensor:
        if self._fused(x):
            return onednn.convolution(
                x, self._pack(x), self.bias, self.padding, self.stride, self.dilation, self.groups, relu=self.relu
            )
        y = self._plain(x)
        return y.relu_() if self.relu else y

    def _convolve_add(self, x: Tensor, other: Tensor) -> Tensor:
        if self._fused(x):
            return onednn.convolution_add_relu(
                x, self._pack(x), self.bias, self.padding, self.stride, self.dilation, self.groups, other
            )
        return other.add_(self._plain(x)).relu_()

    def _fused(self, x: Tensor) -> bool:
        return onednn.fits(x) and not onednn.wants_gradient(x)

    def _plain(self, x: Tensor) -> Tensor:
        if self.kind == "both":
            return F.conv3d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        if self.weight.shape[2:] == (1, 1) and max(self.stride) == 1 and max(self.padding) == 0 and self.groups == 1:
            return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def _pack(self, x: Tensor) -> Tensor:
        # On first use, since the best layout depends on the size of the input; other sizes stay correct.
        if self._packed is None:
            self._packed = onednn.pack_convolution(
                self.weight, self.padding, self.stride, self.dilation, self.groups, tuple(x.shape)
            )
        return self._packed

    def __getstate__(self) -> dict[str, Any]:
        # Packed weights can neither be copied nor stored.
        return {**self.__dict__, "_packed": None}


class _FoldedStem(nn.Module):
    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.conv = FoldedConv3d(cast(nn.Conv3d, stem.conv), cast(nn.BatchNorm3d, stem.norm), relu=True)
        self.pool = stem.pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.pool is None else self.pool(x)  # type: ignore[operator]


class _FoldedResBlock(nn.Module):
    """A bottleneck block; with ``in_place`` it overwrites its input where the shortcut is the identity."""

    def __init__(self, block: nn.Module, *, in_place: bool) -> None:
        super().__init__()
        branch = cast(Any, block.branch2)
        self.a = FoldedConv3d(branch.conv_a, branch.norm_a, relu=True)
        self.b = FoldedConv3d(branch.conv_b, branch.norm_b, relu=True)
        self.c = FoldedConv3d(branch.conv_c, branch.norm_c, relu=False)
        shortcut = cast(Any, block)
        self.shortcut = (
            None
            if shortcut.branch1_conv is None
            else FoldedConv3d(shortcut.branch1_conv, shortcut.branch1_norm, relu=False)
        )
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        inner = self.b(self.a(x))
        if self.shortcut is not None:
            return self.c(inner, add=self.shortcut(x))
        return self.c(inner, add=x if self.in_place else x.clone(memory_format=torch.preserve_format))


class _FoldedFusion(nn.Module):
    def __init__(self, fusion: nn.Module) -> None:
        super().__init__()
        self.conv = FoldedConv3d(
            cast(nn.Conv3d, fusion.conv_fast_to_slow), cast(nn.BatchNorm3d, fusion.norm), relu=True
        )

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        slow, fast = x
        return [torch.cat([slow, self.conv(fast)], 1), fast]


def _converted(module: nn.Module, *, in_place: bool = False) -> nn.Module:
    if isinstance(module, ResNetBasicStem) and _plain_layers(module.conv, module.norm, module.activation):
        return _FoldedStem(module)
    if isinstance(module, ResBlock) and _is_plain_bottleneck(module):
        return _FoldedResBlock(module, in_place=in_place)
    if isinstance(module, FuseFastToSlow) and _plain_layers(module.conv_fast_to_slow, module.norm, module.activation):
        return _FoldedFusion(module)
    if isinstance(module, ResStage):
        # Behind its first block a stage's tensors are its own; the first one's input may be shared.
        for i, block in enumerate(module.res_blocks):
            module.res_blocks[i] = _converted(block, in_place=i > 0)
    _fold_output(module)
    for name, child in module.named_children():
        if not (isinstance(module, ResStage) and name == "res_blocks"):
            setattr(module, name, _converted(child))
    return module


def _is_plain_bottleneck(block: Any) -> bool:
    branch = block.branch2
    if not isinstance(branch, BottleneckBlock) or not isinstance(block.activation, nn.ReLU):
        return False
    shortcut = block.branch1_conv is None or _plain_layers(block.branch1_conv, block.branch1_norm, nn.ReLU())
    return (
        shortcut
        and _plain_layers(branch.conv_a, branch.norm_a, branch.act_a)
        and _plain_layers(branch.conv_b, branch.norm_b, branch.act_b)
        and _plain_layers(branch.conv_c, branch.norm_c, nn.ReLU())
        and block.branch_fusion(1, 2) == 3
    )


def _plain_layers(conv: Any, norm: Any, activation: Any) -> bool:
    return (
        type(conv) is nn.Conv3d
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and (norm is None or isinstance(norm, (nn.BatchNorm3d, nn.SyncBatchNorm)))
        and isinstance(activation, nn.ReLU)
    )


def _fold_output(block: nn.Module) -> None:
    """Fold a context block's batch norm into the linear map before it."""
    out, norm = getattr(block, "out", None), getattr(block, "norm", None)
    if isinstance(out, nn.Linear) and isinstance(norm, nn.BatchNorm3d):
        weight, bias = _fold(out.weight, out.bias, norm)
        out.weight, out.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
        block.norm = nn.Identity()


def _fold(weight: Tensor, bias: Tensor | None, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Return weight [D, ...] and bias [D] of the layer followed by the norm, computed in float64."""
    offset = torch.zeros(weight.shape[0], dtype=torch.float64, device=weight.device) if bias is None else bias.double()
    scaled = weight.detach().double()
    if norm is not None:
        n = cast(nn.BatchNorm3d, norm)
        assert n.running_mean is not None
        assert n.running_var is not None
        gain = (n.running_var.double() + n.eps).rsqrt()
        gain = gain if n.weight is None else gain * n.weight.double()
        offset = (offset - n.running_mean.double()) * gain
        offset = offset if n.bias is None else offset + n.bias.double()
        scaled = scaled * gain.reshape(-1, *[1] * (weight.dim() - 1))
    return scaled.to(weight.dtype).detach(), offset.to(weight.dtype).detach()
