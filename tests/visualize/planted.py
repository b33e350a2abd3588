"""Networks for the tests: one whose attention to a red place of a clip is known, and untrained ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dnl_video.config import EvaluationConfig
from dnl_video.inference.predictor import Predictor
from dnl_video.models.backbones import ContextStage, VideoClassifier
from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
from dnl_video.models.create import create_model
from dnl_video.spec import Architecture, Context, ContextOptions, Preprocessing
from dnl_video.visualize.clip import Clip

STRIDE = 8


class Residual(nn.Module):
    """A residual block that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.branch2 = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Head(nn.Module):
    """Two logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3, 4))[:, :2]


def redness_network(block: nn.Module, *, kernel: int, padding: int) -> Predictor:
    """A network with two feature channels, red minus green and 0, every eighth pixel; then the block."""
    stem = nn.Conv3d(3, 2, (1, kernel, kernel), (1, STRIDE, STRIDE), (0, padding, padding), bias=False)
    with torch.no_grad():
        stem.weight.zero_()
        stem.weight[0, 0], stem.weight[0, 1] = 1 / kernel**2, -1 / kernel**2
    stage = ContextStage(nn.ModuleList([Residual()]), {0: block})
    network = VideoClassifier(nn.ModuleList([stem, stage, Head()]))
    preprocessing = Preprocessing(num_frames=4, short_side=64, crop_size=64)
    return Predictor(network, preprocessing, ["red", "not"], EvaluationConfig(device="cpu"))


def dnl_block(pool: tuple[int, int, int] | None) -> DisentangledNonLocalBlock3d:
    """Red places are salient, and red queries attend to red keys."""
    block = DisentangledNonLocalBlock3d(2, 1, pool=pool)
    with torch.no_grad():
        for layer, size in ((block.query, 1.0), (block.key, 1.0), (block.unary, 3.0)):
            layer.weight.copy_(torch.tensor([[size, 0.0]]))
    return block


def nl_block(pool: tuple[int, int, int] | None) -> NonLocalBlock3d:
    """Red queries attend to red keys."""
    block = NonLocalBlock3d(2, 1, pool=pool)
    with torch.no_grad():
        for layer in (block.query, block.key):
            layer.weight.copy_(torch.tensor([[1.5, 0.0]]))
    return block


def planted_clip(height: int, width: int, *, frame: int, row: int, column: int, num_frames: int = 4) -> Clip:
    """A grey clip with a red square of the same brightness in one frame, 8 pixels wide, centred on (row, column)."""
    frames = np.full((num_frames, height, width, 3), 85, dtype=np.uint8)
    frames[frame, max(row - 4, 0) : row + 4, max(column - 4, 0) : column + 4] = (255, 0, 0)
    return Clip("planted.mp4", frames, np.arange(num_frames) / 10, num_frames / 10)


def untrained(
    architecture: Architecture, context: Context, preprocessing: Preprocessing | None = None, **options: Any
) -> Predictor:
    torch.manual_seed(0)
    context_options = ContextOptions(**options)
    model = create_model(architecture, context=context, num_classes=2, stem_channels=8, context_options=context_options)
    return Predictor(model, preprocessing or Preprocessing(), ["a", "b"], EvaluationConfig(device="cpu"))
