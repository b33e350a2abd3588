"""Whole networks: with literal blocks, with ours, and ours prepared for inference."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from dnl_video.bench.block import Precision
from dnl_video.bench.naive import NaiveBlock3d
from dnl_video.models.backbones import ContextStage
from dnl_video.models.create import create_model
from dnl_video.models.runtime.folding import optimize_for_inference
from dnl_video.spec import Architecture, Context, ContextOptions

# Contexts of which bench.naive has a literal form.
LITERAL = ("nl", "dnl", "pairwise")


@dataclass(frozen=True)
class NetworkCase:
    """What is measured.

    Attributes:
        architecture: Backbone.
        context: Its blocks.
        pooled: Max-pool keys and values by (1, 2, 2).
        training: Forward, loss, backward and an SGD step; otherwise a forward pass in evaluation mode.
        batch: Clips.
        frames: Frames of a clip.
        size: Side of a clip in pixels.
        precision: bf16 is autocast.
        compiled: Also measure ``torch.compile`` of ours.
    """

    architecture: Architecture = "slow_r50"
    context: Context = "dnl"
    pooled: bool = True
    training: bool = False
    batch: int = 1
    frames: int = 8
    size: int = 224
    precision: Precision = "fp32"
    compiled: bool = False

    def passes(self, device: torch.device) -> dict[str, Callable[[], object]]:
        """Return a function for each variant: naive and ours, compiled where asked; on a CPU in evaluation, folded."""
        torch.manual_seed(0)
        options = ContextOptions(pool=(1, 2, 2) if self.pooled else None, zero_init=False)
        ours = create_model(self.architecture, context=self.context, dropout=0.0, context_options=options).to(device)
        networks: dict[str, nn.Module] = {}
        if self.context in LITERAL:
            networks["naive"] = with_naive_blocks(copy.deepcopy(ours))
        networks["ours"] = ours
        if self.compiled:
            networks["compiled"] = torch.compile(copy.deepcopy(ours))  # type: ignore[assignment]
        if not self.training and device.type == "cpu" and self.precision == "fp32":
            networks["folded"] = optimize_for_inference(ours)
        clip = torch.randn(self.batch, 3, self.frames, self.size, self.size, device=device)
        labels = torch.zeros(self.batch, dtype=torch.long, device=device)
        return {
            name: self._step(network.train(self.training), clip, labels)
            if self.training
            else self._forward(network.eval(), clip)
            for name, network in networks.items()
        }

    def _forward(self, network: nn.Module, clip: torch.Tensor) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode(), self._autocast(clip):
                return network(clip)

        return run

    def _step(self, network: nn.Module, clip: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

        def run() -> None:
            with self._autocast(clip):
                loss = F.cross_entropy(network(clip), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return run

    def _autocast(self, clip: torch.Tensor) -> torch.autocast:
        return torch.autocast(clip.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def with_naive_blocks(network: nn.Module) -> nn.Module:
    """Replace a network's context blocks by their literal form, in place, and return it."""
    for stage in network.modules():
        if isinstance(stage, ContextStage):
            for name, block in stage.context_blocks.items():
                stage.context_blocks[name] = NaiveBlock3d(block)  # type: ignore[arg-type]
    return network
