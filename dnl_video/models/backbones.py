"""pytorchvideo's networks: build them, run them on one clip tensor, find their stages.

Only this module imports pytorchvideo. Names, settings and state-dict keys are those of its hub (pytorchvideo 0.1.5,
models/hub/resnet.py and slowfast.py), so that a hub checkpoint loads with only ``context_blocks`` missing.

Papers: Slow and SlowFast, Feichtenhofer et al., ICCV 2019, arXiv 1812.03982; I3D, Carreira and Zisserman, CVPR 2017,
arXiv 1705.07750; C2D and the ResNet form of I3D, Wang et al., CVPR 2018, arXiv 1711.07971.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

with warnings.catch_warnings():
    # pytorchvideo scripts its activations at import, and recent torch warns of that once per function.
    for _category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings(
            "ignore", message=r".*torch\.jit\.\w+. is (deprecated|not supported)", category=_category
        )
    from pytorchvideo.models.head import ResNetBasicHead
    from pytorchvideo.models.net import MultiPathWayWithFuse
    from pytorchvideo.models.resnet import BottleneckBlock as BottleneckBlock
    from pytorchvideo.models.resnet import ResBlock as ResBlock
    from pytorchvideo.models.resnet import ResStage as ResStage
    from pytorchvideo.models.resnet import create_resnet
    from pytorchvideo.models.slowfast import FuseFastToSlow as FuseFastToSlow
    from pytorchvideo.models.slowfast import PoolConcatPathway, create_slowfast
    from pytorchvideo.models.stem import ResNetBasicStem as ResNetBasicStem

from dnl_video.errors import InputError
from dnl_video.spec import Head, ModelSpec, SlowFrames

_T1, _T3 = (1, 1, 1), (3, 1, 1)
_FAMILIES: dict[str, dict[str, Any]] = {
    "slow": {"stem_conv_kernel_size": (1, 7, 7)},
    "c2d": {
        "stem_conv_kernel_size": (1, 7, 7),
        "stage1_pool": nn.MaxPool3d,
        "stage_conv_a_kernel_size": (_T1, _T1, _T1, _T1),
    },
    "i3d": {
        "stem_conv_kernel_size": (5, 7, 7),
        "stage1_pool": nn.MaxPool3d,
        "stage_conv_a_kernel_size": (_T3, [_T3, _T1], [_T3, _T1], [_T1, _T3]),
    },
}
_FUSION_KERNEL = {50: 7, 101: 5}


class VideoClassifier(nn.Module):
    """A pytorchvideo network that takes one clip tensor, with one pathway or two.

    Args:
        blocks: Stem, stages and head, under the keys ``blocks.N`` that pytorchvideo gives them.
        slow_alpha: Frame-rate ratio of SlowFast's pathways; None for networks with one pathway.
        slow_frames: The frames of the slow pathway (see `ModelSpec`).
        min_frames: The smallest number of frames T that the network can take.

    Attributes:
        spec: The `ModelSpec` that `build_model` built it from, otherwise None.

    Shape:
        [B, 3, T, H, W] -> logits [B, K].
    """

    def __init__(
        self,
        blocks: nn.ModuleList,
        *,
        slow_alpha: int | None = None,
        slow_frames: SlowFrames = "linspace",
        min_frames: int = 1,
    ) -> None:
        super().__init__()
        self.blocks = blocks
        self.slow_alpha = slow_alpha
        self.slow_frames: SlowFrames = slow_frames
        self.min_frames = min_frames
        self.spec: ModelSpec | None = None

    def forward(self, clip: Tensor) -> Tensor:
        """Return logits [B, K] of clips [B, 3, T, H, W].

        Raises:
            ValueError: The clip is not [B, 3, T, H, W] or has too few frames.
        """
        if clip.dim() != 5 or clip.shape[2] < self.min_frames:
            raise ValueError(f"clip has shape {tuple(clip.shape)}; expected [B, 3, T >= {self.min_frames}, H, W]")
        x: Any = clip
        if self.slow_alpha is not None:
            x = [clip[:, :, slow_pathway_frames(clip.shape[2], self.slow_alpha, self.slow_frames)], clip]
        for block in self.blocks:
            x = block(x)
        return x

    def __repr__(self) -> str:
        """Show the spec and the context blocks; ``model.blocks`` shows every layer."""
        blocks = [f"{n}: {m}" for n, m in self.named_modules() if n.rpartition(".")[0].endswith("context_blocks")]
        parameters = sum(parameter.numel() for parameter in self.parameters()) / 1e6
        return "\n  ".join([f"{type(self).__name__}({self.spec}, {parameters:.2f}M parameters", *blocks]) + ")"

    def pooled_features(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits, and the input of the classifier (the final projection) averaged over its positions.

        The classifier is linear: with the heads ``global`` and ``dense_logits`` the logits are these features times its
        weight plus its bias. SlowFast's features are those of the slow pathway, then those of the fast one.

        Args:
            clips: [B, 3, T, H, W].

        Returns:
            Logits [B, K]; features, float32 [B, C].
        """
        inputs: list[Tensor] = []
        classifier = cast(nn.Module, self.blocks[-1].proj)
        hook = classifier.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
        try:
            logits = self(clips)
        finally:
            hook.remove()
        return logits, inputs[0].float().mean(dim=(1, 2, 3))  # [B, T', H', W', C]


class ContextStage(ResStage):
    """A residual stage with context blocks after some of its residual blocks.

    ``res_blocks`` keeps its name and numbering; ``context_blocks`` maps the number of a residual block to the module
    that follows it.
    """

    def __init__(self, res_blocks: nn.ModuleList, context_blocks: Mapping[int, nn.Module]) -> None:
        super().__init__(res_blocks)
        self.context_blocks = nn.ModuleDict({str(i): context_blocks[i] for i in sorted(context_blocks)})

    def forward(self, x: Tensor) -> Tensor:
        """Run the stage on [B, C, T, H, W]."""
        for block in self.in_order():
            x = block(x)
        return x

    def in_order(self) -> list[nn.Module]:
        """Return residual and context blocks in the order of the forward pass."""
        blocks: list[nn.Module] = []
        for index, res_block in enumerate(self.res_blocks):
            blocks.append(res_block)
            if str(index) in self.context_blocks:
                blocks.append(self.context_blocks[str(index)])
        return blocks


class DensePool(nn.Module):
    """Average T x 7 x 7 windows at stride 1: the pooling of the hub's heads, for any T and crop size."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C, 1, max(H - 6, 1), max(W - 6, 1)]."""
        t, h, w = x.shape[2:]
        return F.avg_pool3d(x, (t, min(h, 7), min(w, 7)), stride=1)


class LogMeanProbability(nn.Module):
    """Average softmax probabilities over windows and return their logarithm, so that the outputs are logits.

    PySlowFast averages probabilities in evaluation only. Here training does so too: with one window (the training crop)
    the cross entropy is the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, K, T, H, W] -> [B, K, 1, 1, 1]."""
        log_p = x.float().log_softmax(dim=1).flatten(2)
        mean = torch.logsumexp(log_p, dim=2) - torch.log(torch.tensor(float(log_p.shape[2]), device=x.device))
        return mean[:, :, None, None, None]


@torch.compiler.assume_constant_result
def slow_pathway_frames(num_frames: int, alpha: int, rule: SlowFrames = "linspace") -> list[int]:
    """Return the frames of a clip that SlowFast's slow pathway sees.

    ``linspace`` is linspace(0, T - 1, T / alpha), truncated, as in PySlowFast (`pack_pathway_output`) and pytorchvideo
    (`PackPathway`): [0, 4, 8, 13, 17, 22, 26, 31] for T = 32, alpha = 4. If alpha does not divide T, the count is
    rounded up, as in the lateral convolutions. ``strided`` is 0, alpha, 2 alpha, ..., as in mmaction2.
    """
    num_frames = int(num_frames)  # a tensor under jit tracing
    if rule == "strided":
        return list(range(0, num_frames, alpha))
    count = -(-num_frames // alpha)
    if count == 1:
        return [0]
    # The float32 arithmetic of torch.linspace, rounding included. In numpy, since tracers would record torch's.
    last, k = np.float32(num_frames - 1), np.arange(count, dtype=np.float32)
    step = last / np.float32(count - 1)
    positions = np.where(k < count // 2, step * k, last - step * (count - 1 - k))
    return [int(p) for p in positions]


def create_backbone(spec: ModelSpec) -> VideoClassifier:
    """Build the network of a spec without context blocks, with the hub's settings for its name."""
    family, _, depth = spec.architecture.partition("_r")
    common: dict[str, Any] = {
        "model_depth": int(depth),
        "model_num_class": spec.outputs,
        "dropout_rate": spec.dropout,
    }
    if family == "slowfast":
        net = create_slowfast(
            stem_dim_outs=(spec.stem_channels, spec.stem_channels // 8),
            slowfast_fusion_conv_kernel_size=(spec.fusion_kernel or _FUSION_KERNEL[int(depth)], 1, 1),
            slowfast_fusion_conv_stride=(spec.slow_alpha, 1, 1),
            **common,
        )
        model = VideoClassifier(net.blocks, slow_alpha=spec.slow_alpha, slow_frames=spec.slow_frames)
    else:
        net = create_resnet(
            stem_dim_out=spec.stem_channels,
            stem_conv_stride=(spec.stem_strides[0], 2, 2),
            stem_pool_stride=(spec.stem_strides[1], 2, 2),
            **_FAMILIES[family],
            **common,
        )
        model = VideoClassifier(net.blocks, min_frames=min_frames(spec))
    _make_exportable(model)
    _set_head(model, spec.head)
    for module in model.modules():
        if spec.fusion == "conv" and isinstance(module, FuseFastToSlow):
            module.norm = module.activation = None
        if not spec.zero_init_residual and getattr(module, "block_final_bn", False):
            nn.init.ones_(cast(Tensor, module.weight))
    return model


def min_frames(spec: ModelSpec) -> int:
    """Return the smallest number of frames that a network can take: I3D and C2D pool pairs of frames after the stem."""
    return 1 + spec.stem_strides[0] * spec.stem_strides[1] if spec.architecture.startswith(("i3d", "c2d")) else 1


def find_stages(model: nn.Module) -> dict[str, tuple[nn.Module, str, ResStage]]:
    """Find the residual stages of a pytorchvideo network, in SlowFast those of the slow pathway.

    Returns:
        ``res2``, ``res3``, ... in order, each with its parent module, its name in the parent, and the stage.

    Raises:
        InputError: The network has no residual stage.
    """
    found: list[tuple[nn.Module, str, ResStage]] = []
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise InputError(f"{type(model).__name__} has no `blocks`; give a pytorchvideo network made of ResStage")
    for name, block in blocks.named_children():
        if isinstance(block, ResStage):
            found.append((blocks, name, block))
        elif isinstance(block, MultiPathWayWithFuse) and isinstance(block.multipathway_blocks[0], ResStage):
            found.append((block.multipathway_blocks, "0", block.multipathway_blocks[0]))
    if not found:
        raise InputError(f"{type(model).__name__} has no ResStage; give a pytorchvideo network made of them")
    return {f"res{i + 2}": stage for i, stage in enumerate(found)}


def stages_from_input(model: VideoClassifier) -> list[nn.Module]:
    """Return stem, res2, ... res5 in order, each with all its pathways, lateral connection and context blocks."""
    stages = []
    for block in model.blocks:
        first = block.multipathway_blocks[0] if isinstance(block, MultiPathWayWithFuse) else block
        if isinstance(first, ResNetBasicStem | ResStage):
            stages.append(block)
    return stages


def _set_head(model: VideoClassifier, head: Head) -> None:
    def new_pool() -> nn.Module:
        return nn.AdaptiveAvgPool3d(1) if head == "global" else DensePool()

    for block in model.blocks:
        if isinstance(block, PoolConcatPathway):
            block.pool = nn.ModuleList(new_pool() for _ in block.pool)
        elif isinstance(block, ResNetBasicHead):
            if block.pool is not None:
                block.pool = new_pool()
            if head == "dense_probabilities":
                block.output_pool = LogMeanProbability()


def _make_exportable(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            # Some strides are numpy.int64, which torch.export refuses.
            module.stride = tuple(int(s) for s in module.stride)  # type: ignore[assignment]
        elif isinstance(module, MultiPathWayWithFuse):
            # In-place mode would overwrite the list that the caller passes.
            module.inplace = False
