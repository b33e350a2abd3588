"""Where the positions of a context block are in the clip: centres of receptive fields.

A convolution or pooling of kernel k, stride s and padding p changes the spacing j of neighbouring positions and the
centre o of the first one to ``j * s`` and ``o + ((k - 1) / 2 - p) * j`` (Araujo, Norris and Sim, "Computing Receptive
Fields of Convolutional Neural Networks", Distill 2019). With the usual padding, position i of a stage of stride s is
centred on pixel ``s * i``, not on the middle of the s x s cell that results from stretching the map over the frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from torch import nn

from dnl_video.models.backbones import VideoClassifier, slow_pathway_frames
from dnl_video.models.context_block import ContextBlock


class PlacedBlock(NamedTuple):
    """A context block in its network.

    Attributes:
        name: Stage and residual block that it follows, such as ``res3.1``.
        block: The module.
        spacing: Distance of neighbouring input positions in frames of the block's pathway and pixels, (T, H, W).
        offset: Centre of position 0, (T, H, W); 0 is the middle of the first frame or pixel.
    """

    name: str
    block: ContextBlock
    spacing: tuple[float, ...]
    offset: tuple[float, ...]


def placed_blocks(model: nn.Module) -> list[PlacedBlock]:
    """Find the context blocks of a network that `create_model` built, in the order of the forward pass."""
    found: list[PlacedBlock] = []
    spacing, offset = [1.0] * 3, [0.0] * 3
    stage_number = 1
    for child in cast(nn.ModuleList, model.blocks):
        pathways: Any = getattr(child, "multipathway_blocks", None)
        stage = child if pathways is None else pathways[0]
        if not hasattr(stage, "res_blocks"):
            for layer in _sliding_layers(stage):
                _advance(spacing, offset, layer)
            continue
        stage_number += 1
        inserted: Any = getattr(stage, "context_blocks", {})
        for index, res_block in enumerate(cast(Any, stage.res_blocks)):
            # The 1x1x1 convolution of the shortcut has the stride and centre of the branch.
            for layer in _sliding_layers(res_block.branch2):
                _advance(spacing, offset, layer)
            if str(index) in inserted:
                name = f"res{stage_number}.{index}"
                found.append(PlacedBlock(name, inserted[str(index)], tuple(spacing), tuple(offset)))
    return found


def pathway_frames(model: VideoClassifier, num_frames: int) -> list[int]:
    """Return the frames of a clip that the pathway with the context blocks sees: all, or those of the slow pathway."""
    if model.slow_alpha is None:
        return list(range(num_frames))
    return slow_pathway_frames(num_frames, model.slow_alpha, model.slow_frames)


def _sliding_layers(module: nn.Module) -> Iterator[Any]:
    return (m for m in module.modules() if isinstance(m, (nn.Conv3d, nn.MaxPool3d, nn.AvgPool3d)))


def _advance(spacing: list[float], offset: list[float], layer: Any) -> None:
    kernel, stride, padding = (_sizes(getattr(layer, name)) for name in ("kernel_size", "stride", "padding"))
    dilation = _sizes(getattr(layer, "dilation", 1))
    for axis in range(3):
        offset[axis] += ((kernel[axis] - 1) * dilation[axis] / 2 - padding[axis]) * spacing[axis]
        spacing[axis] *= stride[axis]


def _sizes(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, (tuple, list)) else (int(value),) * 3
