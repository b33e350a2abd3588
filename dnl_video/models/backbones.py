"""pytorchvideo's networks: building them, finding their stages, inserting context blocks. The only importer of it.

Hub names and settings: pytorchvideo 0.1.5, models/hub/resnet.py and models/hub/slowfast.py. State-dict keys stay
those of the hub, so its checkpoints load with only ``context_blocks`` missing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

with warnings.catch_warnings():
    # pytorchvideo scripts its activations at import; newer torch calls that deprecated, once per function.
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

from dnl_video.errors import InputError, nearest
from dnl_video.spec import Architecture, Fusion, Head, ModelSpec, SlowFrames

# After which residual blocks non-local blocks sit: video-nonlocal-net's five (every second block of res3 and res4).
_POSITIONS_R50 = {"res3": (1, 3), "res4": (1, 3, 5)}
_POSITIONS_R101 = {"res3": (1, 3), "res4": (6, 13, 20)}

_SLOW = {"stem_conv_kernel_size": (1, 7, 7)}
_C2D = {
    "stem_conv_kernel_size": (1, 7, 7),
    "stage1_pool": nn.MaxPool3d,
    "stage_conv_a_kernel_size": ((1, 1, 1),) * 4,
}
_I3D = {
    "stem_conv_kernel_size": (5, 7, 7),
    "stage1_pool": nn.MaxPool3d,
    "stage_conv_a_kernel_size": (
        (3, 1, 1),
        [(3, 1, 1), (1, 1, 1)],
        [(3, 1, 1), (1, 1, 1)],
        [(1, 1, 1), (3, 1, 1)],
    ),
}
_FAMILIES: dict[str, dict[str, Any]] = {"slow": _SLOW, "c2d": _C2D, "i3d": _I3D}
_FUSION_KERNEL = {50: 7, 101: 5}


class VideoClassifier(nn.Module):
    """A pytorchvideo network that takes one clip tensor, whatever the number of its pathways.

    Args:
        blocks: Stem, stages and head, under the keys ``blocks.N`` that pytorchvideo gives them.
        slow_alpha: Frame-rate ratio of SlowFast's pathways; None for single-pathway networks.
        slow_frames: Which frames the slow pathway sees (see `ModelSpec`).
        min_frames: Fewest frames the network can take.

    Attributes:
        spec: What it was built from; None where nothing of ours built it.

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
        self.slow_frames = slow_frames
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
            strided = self.slow_frames == "strided"
            slow = (
                slice(None, None, self.slow_alpha) if strided else slow_pathway_frames(clip.shape[2], self.slow_alpha)
            )
            x = [clip[:, :, slow], clip]
        for block in self.blocks:
            x = block(x)
        return x


class ContextStage(ResStage):
    """A residual stage with context blocks behind some of its residual blocks.

    ``res_blocks`` keeps its name and numbering; ``context_blocks`` maps the residual block's number to the module.
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
        """Return residual and context blocks in the order they run."""
        blocks: list[nn.Module] = []
        for index, res_block in enumerate(self.res_blocks):
            blocks.append(res_block)
            if str(index) in self.context_blocks:
                blocks.append(self.context_blocks[str(index)])
        return blocks


class DensePool(nn.Module):
    """Average T x 7 x 7 windows at stride 1, as hub heads do at their nominal size, at any T and crop."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C, 1, max(H - 6, 1), max(W - 6, 1)]."""
        t, h, w = x.shape[2:]
        return F.avg_pool3d(x, (t, min(h, 7), min(w, 7)), stride=1)


class LogMeanProbability(nn.Module):
    """Average softmax probabilities over windows and return their logarithm, so that outputs stay logits.

    PySlowFast averages probabilities in evaluation only; here both modes do, and with one window (training size) the
    cross entropy is the same as without.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, K, T, H, W] -> [B, K, 1, 1, 1]."""
        log_p = x.float().log_softmax(dim=1).flatten(2)
        mean = torch.logsumexp(log_p, dim=2) - torch.log(torch.tensor(float(log_p.shape[2]), device=x.device))
        return mean[:, :, None, None, None]


@torch.compiler.assume_constant_result
def slow_pathway_frames(num_frames: int, alpha: int) -> list[int]:
    """Frames of a clip that SlowFast's slow pathway sees: linspace(0, T - 1, T / alpha), truncated.

    The rule of PySlowFast (`pack_pathway_output`) and pytorchvideo (`PackPathway`): [0, 4, 8, 13, 17, 22, 26, 31]
    for 32 frames and alpha 4. T that alpha does not divide rounds the count up, as the lateral convolutions do.
    """
    num_frames = int(num_frames)  # jit tracing gives sizes as tensors
    count = -(-num_frames // alpha)
    if count == 1:
        return [0]
    # torch.linspace's float32 steps from either end, rounding included, in numpy: tracers follow torch's own values.
    last, k = np.float32(num_frames - 1), np.arange(count, dtype=np.float32)
    step = last / np.float32(count - 1)
    positions = np.where(k < count // 2, step * k, last - step * (count - 1 - k))
    return [int(p) for p in positions]


def create_backbone(
    architecture: Architecture,
    *,
    num_classes: int,
    stem_channels: int = 64,
    dropout: float = 0.5,
    head: Head = "dense_logits",
    zero_init_residual: bool = True,
    slow_alpha: int = 4,
    slow_frames: SlowFrames = "linspace",
    fusion_kernel: int | None = None,
    fusion: Fusion = "conv_bn_relu",
    stem_strides: tuple[int, int] = (1, 1),
) -> VideoClassifier:
    """Build a bare pytorchvideo network with the hub's settings for that name.

    Args:
        architecture: One of slow, i3d, c2d, slowfast with _r50 or _r101.
        num_classes: Outputs K.
        stem_channels: Width of the stem; 64 is the published network.
        dropout: Dropout rate before the classifier.
        head: How the last features become logits (see `ModelSpec`).
        zero_init_residual: Keep pytorchvideo's zero scale of each residual block's last batch norm; else one.
        slow_alpha: SlowFast's ratio of frame rates.
        slow_frames: Frames that SlowFast's slow pathway sees.
        fusion_kernel: Frames that SlowFast's lateral convolutions span; None is the hub's number.
        fusion: What a lateral connection of SlowFast is: conv_bn_relu, or conv alone.
        stem_strides: Frame strides of the stem's convolution and max-pooling, in the other networks.
    """
    family, _, depth_name = architecture.partition("_r")
    depth = int(depth_name)
    common: dict[str, Any] = {"model_depth": depth, "model_num_class": num_classes, "dropout_rate": dropout}
    if family == "slowfast":
        net = create_slowfast(
            stem_dim_outs=(stem_channels, stem_channels // 8),
            slowfast_fusion_conv_kernel_size=(fusion_kernel or _FUSION_KERNEL[depth], 1, 1),
            slowfast_fusion_conv_stride=(slow_alpha, 1, 1),
            **common,
        )
        model = VideoClassifier(net.blocks, slow_alpha=slow_alpha, slow_frames=slow_frames)
    else:
        net = create_resnet(
            stem_dim_out=stem_channels,
            stem_conv_stride=(stem_strides[0], 2, 2),
            stem_pool_stride=(stem_strides[1], 2, 2),
            **_FAMILIES[family],
            **common,
        )
        model = VideoClassifier(net.blocks, min_frames=min_frames(architecture, stem_strides))
    _make_exportable(model)
    _set_head(model, head)
    if fusion == "conv":
        for module in model.modules():
            if isinstance(module, FuseFastToSlow):
                module.norm = module.activation = None
    if not zero_init_residual:
        for module in model.modules():
            if getattr(module, "block_final_bn", False):
                nn.init.ones_(cast(Tensor, module.weight))
    return model


def min_frames(architecture: Architecture, stem_strides: tuple[int, int] = (1, 1)) -> int:
    """Return the fewest frames a network can take: I3D and C2D pool pairs of what the stem's strides leave."""
    return 1 + stem_strides[0] * stem_strides[1] if architecture.startswith(("i3d", "c2d")) else 1


def find_stages(model: nn.Module) -> dict[str, tuple[nn.Module, str, ResStage]]:
    """Find the residual stages of a pytorchvideo net, on the slow pathway where there are two.

    Returns:
        ``res2``, ``res3``, ... in order, each with the module that holds the stage, its name there, and the stage.
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


def stages_from_input(model: VideoClassifier) -> list[list[nn.Module]]:
    """Return a network's parts in order: stem, res2 ... res5, of all pathways, each with its lateral connection.

    Context blocks are parts of their stage.
    """
    parts: list[list[nn.Module]] = []
    for block in model.blocks:
        inner = list(block.multipathway_blocks) if isinstance(block, MultiPathWayWithFuse) else [block]
        if isinstance(inner[0], ResNetBasicStem | ResStage):
            parts.append([block])
    return parts


def default_positions(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Where context blocks sit unless told otherwise, as {stage: residual blocks they follow}."""
    return dict(_POSITIONS_R101 if architecture.endswith("r101") else _POSITIONS_R50)


def insert_context_blocks(
    model: nn.Module, make_block: Callable[[int], nn.Module], positions: Mapping[str, Sequence[int]]
) -> list[str]:
    """Insert context blocks behind residual blocks of any pytorchvideo net made of `ResStage`.

    Insert after building: pytorchvideo's `Net` re-initialises every weight it is given.

    Args:
        model: The network; changed in place.
        make_block: Makes a block for a number of channels C, [B, C, T, H, W] -> same shape.
        positions: For each stage (res2 ... res5) the residual blocks, counted from 0, that a block follows.

    Returns:
        The inserted modules' names, for example ``blocks.2.context_blocks.1``.

    Raises:
        InputError: A stage or residual block does not exist, or the stage has context blocks already.
    """
    stages = find_stages(model)
    for stage_name, indices in positions.items():
        if stage_name not in stages:
            raise InputError(
                f"positions: no stage {stage_name!r}; allowed: {', '.join(stages)}{nearest(stage_name, stages)}"
            )
        _, _, stage = stages[stage_name]
        depth = len(stage.res_blocks)
        if isinstance(stage, ContextStage):
            raise InputError(f"positions: {stage_name} has context blocks already; insert into a bare network")
        for index in indices:
            if not 0 <= index < depth:
                raise InputError(f"positions: {stage_name} has no residual block {index}; allowed: 0 to {depth - 1}")
        if len(set(indices)) != len(indices):
            raise InputError(f"positions: {stage_name} lists {list(indices)}; give each residual block once")
    for stage_name, indices in positions.items():
        if not indices:
            continue
        parent, name, stage = stages[stage_name]
        inserted = {i: make_block(_out_channels(stage.res_blocks[i])) for i in indices}
        setattr(parent, name, ContextStage(stage.res_blocks, inserted))
    return [name for name, _ in model.named_modules() if name.rpartition(".")[0].endswith("context_blocks")]


def _out_channels(res_block: nn.Module) -> int:
    branch = cast(nn.Module, res_block.branch2)
    convolutions = [m for m in branch.modules() if isinstance(m, nn.Conv3d)]
    return convolutions[-1].out_channels


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
            # In place, it would overwrite the list its caller holds.
            module.inplace = False
