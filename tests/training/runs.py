"""What tests of whole training runs share."""

from __future__ import annotations

from pathlib import Path

import torch

from dnl_video.models.weights.checkpoint import find_checkpoint


class Killed(RuntimeError):
    """Ends a run in mid-step; what it leaves on disk is what a real kill leaves."""


def final_weights(output: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a run's last checkpoint."""
    return torch.load(find_checkpoint(output, last=True), weights_only=True)["state_dict"]
