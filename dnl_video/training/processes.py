"""What the processes of a run tell each other, beyond the gradients; with one process all of it is its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def mean_over_processes(own: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes; a value that is not finite in one is so in all.

    Lightning's `strategy.reduce` waits at a barrier first, which a step cannot afford.
    """
    total = own.detach().clone()
    if _several():
        torch.distributed.all_reduce(total)
        total /= torch.distributed.get_world_size()
    return total


def of_all_processes(own: dict[str, str]) -> dict[str, str]:
    """Return the entries of all processes, such as path to reason, in the same order in each."""
    if not _several():
        return dict(own)
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return {key: value for part in parts for key, value in part.items()}
