"""`optimize_for_inference`: fold batch norms, use the channels-last layout and fused convolutions.

A factorised 3-D convolution is a 2-D convolution on a free view of a channels-last clip: (1, k, k) on [B*T, C, H, W],
(k, 1, 1) on [B, C, T, H*W]. PyTorch has much faster CPU kernels for these: most 3-D convolutions unfold and multiply.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnl_video.models.backbones import BottleneckBlock, FuseFastToSlow, ResBlock, ResNetBasicStem, ResStage
from dnl_video.models.runtime import onednn


def optimize_for_inference(model: nn.Module) -> nn.Module:
    """Return a copy of a network that computes the same logits faster on a CPU, for inference only.

    The copy is in evaluation mode, has no gradients and other state-dict keys. Modules of unknown types stay as they
    are; known are pytorchvideo's stems, bottleneck blocks and lateral connections, and our context blocks. A network
    with NaN or infinite weights is copied without changes.

    Args:
        model: A network of `create_model`, or any other module; it is not changed.
    """
    network = copy.deepcopy(model).requires_grad_(False)
    # oneDNN's ReLU turns NaN into 0, which would hide a broken network.
    finite = all(tensor.isfinite().all() for tensor in network.state_dict().values())
    return (_converted(network) if finite else network).eval()


class FoldedConv3d(nn.Module):
    """A convolution with its batch norm folded in, then optionally a residual sum and a ReLU.

    Args:
        conv: The `nn.Conv3d`.
        norm: The batch norm after it, or None.
        relu: Apply a ReLU at the end.

    Shape:
        [B, C, T, H, W] -> [B, C', T', H', W'], channels-last.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: Any, norm: Any, *, relu: bool) -> None:
        super().__init__()
        weight, bias = _fold(conv.weight, conv.bias, norm)
        (kt, kh, kw), (st, sh, sw) = conv.kernel_size, conv.stride
        (pt, ph, pw), (dt, dh, dw) = conv.padding, conv.dilation
        self.relu = relu
        # "space" convolves each frame alone, "time" each position alone.
        if (kt, st, pt) == (1, 1, 0):
            self.kind, weight = "space", weight[:, :, 0]
            self.geometry: onednn.Geometry = ((ph, pw), (sh, sw), (dh, dw), conv.groups)
        elif (kh, kw, sh, sw, ph, pw) == (1, 1, 1, 1, 0, 0):
            self.kind, weight = "time", weight[:, :, :, :, 0]
            self.geometry = ((pt, 0), (st, 1), (dt, 1), conv.groups)
        else:
            self.kind = "both"
            self.geometry = ((pt, ph, pw), (st, sh, sw), (dt, dh, dw), conv.groups)
        layout = torch.channels_last_3d if self.kind == "both" else torch.channels_last
        self.register_buffer("weight", weight.contiguous(memory_format=layout))
        self.register_buffer("bias", bias)
        self._packed: Tensor | None = None

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Convolve x; with ``add``, overwrite that tensor with ``relu(add + convolution)`` and return it."""
        y = self._convolve(self._view(x), None if add is None else self._view(add))
        tokens = y.movedim(1, -1)
        if self.kind == "space":
            return tokens.unflatten(0, (x.shape[0], -1)).permute(0, 4, 1, 2, 3)
        if self.kind == "time":
            return tokens.unflatten(2, tuple(x.shape[3:])).permute(0, 4, 1, 2, 3)
        return y

    def _view(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        if self.kind == "both":
            return x
        batch, channels, t, h, w = x.shape
        tokens = x.permute(0, 2, 3, 4, 1)  # [B, T, H, W, C], contiguous
        if self.kind == "space":
            return tokens.reshape(batch * t, h, w, channels).permute(0, 3, 1, 2)
        return tokens.reshape(batch, t, h * w, channels).permute(0, 3, 1, 2)

    def _convolve(self, x: Tensor, add: Tensor | None) -> Tensor:
        if onednn.fits(x) and not onednn.wants_gradient(x):
            if self._packed is None:
                # On first use, since the best layout depends on the input size; other sizes stay correct.
                self._packed = onednn.pack_convolution(self.weight, self.geometry, tuple(x.shape))
            return onednn.convolution(x, self._packed, self.bias, self.geometry, relu=self.relu, add=add)
        y = self._plain(x)
        if add is not None:
            return add.add_(y).relu_()
        return y.relu_() if self.relu else y

    def _plain(self, x: Tensor) -> Tensor:
        padding, stride, dilation, groups = self.geometry
        if self.kind == "both":
            return F.conv3d(x, self.weight, self.bias, stride, padding, dilation, groups)
        if self.weight.shape[2:] == (1, 1) and max(stride) == 1 and max(padding) == 0 and groups == 1:
            return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        return F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)

    def __getstate__(self) -> dict[str, Any]:
        # Packed weights can be neither copied nor stored.
        return {**self.__dict__, "_packed": None}


class _FoldedStem(nn.Module):
    def __init__(self, stem: Any) -> None:
        super().__init__()
        self.conv = FoldedConv3d(stem.conv, stem.norm, relu=True)
        self.pool = stem.pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.pool is None else self.pool(x)


class _FoldedResBlock(nn.Module):
    """A bottleneck block; with ``in_place`` it overwrites its input if the shortcut is the identity."""

    def __init__(self, block: Any, *, in_place: bool) -> None:
        super().__init__()
        branch, shortcut = block.branch2, block.branch1_conv
        self.a = FoldedConv3d(branch.conv_a, branch.norm_a, relu=True)
        self.b = FoldedConv3d(branch.conv_b, branch.norm_b, relu=True)
        self.c = FoldedConv3d(branch.conv_c, branch.norm_c, relu=False)
        self.shortcut = None if shortcut is None else FoldedConv3d(shortcut, block.branch1_norm, relu=False)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        inner = self.b(self.a(x))
        if self.shortcut is not None:
            return self.c(inner, add=self.shortcut(x))
        return self.c(inner, add=x if self.in_place else x.clone(memory_format=torch.preserve_format))


class _FoldedFusion(nn.Module):
    def __init__(self, fusion: Any) -> None:
        super().__init__()
        self.conv = FoldedConv3d(fusion.conv_fast_to_slow, fusion.norm, relu=True)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        slow, fast = x
        return [torch.cat([slow, self.conv(fast)], 1), fast]


def _converted(module: nn.Module, *, in_place: bool = False) -> nn.Module:
    if isinstance(module, ResNetBasicStem) and _foldable(module.conv, module.norm, module.activation):
        return _FoldedStem(module)
    if isinstance(module, ResBlock) and _is_plain_bottleneck(module):
        return _FoldedResBlock(module, in_place=in_place)
    if isinstance(module, FuseFastToSlow) and _foldable(module.conv_fast_to_slow, module.norm, module.activation):
        return _FoldedFusion(module)
    if isinstance(module, ResStage):
        # The input of a stage's first block may be used elsewhere; those of the others are not.
        for i, block in enumerate(module.res_blocks):
            module.res_blocks[i] = _converted(block, in_place=i > 0)
    _fold_output(module)
    for name, child in module.named_children():
        if not (isinstance(module, ResStage) and name == "res_blocks"):
            setattr(module, name, _converted(child))
    return module


def _is_plain_bottleneck(block: Any) -> bool:
    branch, relu = block.branch2, nn.ReLU()
    if not isinstance(branch, BottleneckBlock) or not isinstance(block.activation, nn.ReLU):
        return False
    return (
        (block.branch1_conv is None or _foldable(block.branch1_conv, block.branch1_norm, relu))
        and _foldable(branch.conv_a, branch.norm_a, branch.act_a)
        and _foldable(branch.conv_b, branch.norm_b, branch.act_b)
        and _foldable(branch.conv_c, branch.norm_c, relu)
        and block.branch_fusion(1, 2) == 3
    )


def _foldable(conv: Any, norm: Any, activation: Any) -> bool:
    return (
        type(conv) is nn.Conv3d
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and (norm is None or isinstance(norm, (nn.BatchNorm3d, nn.SyncBatchNorm)))
        and isinstance(activation, nn.ReLU)
    )


def _fold_output(block: nn.Module) -> None:
    """Fold the batch norm of a context block into its output projection."""
    out, norm = getattr(block, "out", None), getattr(block, "norm", None)
    if isinstance(out, nn.Linear) and isinstance(norm, nn.BatchNorm3d):
        weight, bias = _fold(out.weight, out.bias, norm)
        out.weight, out.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
        block.norm = nn.Identity()


def _fold(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    """Return weight [D, ...] and bias [D] of a layer followed by a batch norm (or None), computed in float64."""
    offset = torch.zeros(weight.shape[0], dtype=torch.float64, device=weight.device) if bias is None else bias.double()
    scaled = weight.detach().double()
    if norm is not None:
        gain = (norm.running_var.double() + norm.eps).rsqrt()
        gain = gain if norm.weight is None else gain * norm.weight.double()
        offset = (offset - norm.running_mean.double()) * gain
        offset = offset if norm.bias is None else offset + norm.bias.double()
        scaled = scaled * gain.reshape(-1, *[1] * (weight.dim() - 1))
    return scaled.to(weight.dtype).detach(), offset.to(weight.dtype).detach()
