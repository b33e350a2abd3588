"""Values that the processes of a run exchange, apart from gradients. A single process exchanges nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def all_reduce_mean(own: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes. A NaN or infinity in one process reaches all.

    Lightning's `strategy.reduce` waits at a barrier first, which is too slow for every step.
    """
    total = own.detach().clone()
    if _distributed():
        torch.distributed.all_reduce(total)
        total /= torch.distributed.get_world_size()
    return total


def all_gather_dict(own: dict[str, str]) -> dict[str, str]:
    """Return the entries of all processes, such as path to reason, in the same order in every process."""
    if not _distributed():
        return dict(own)
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return {key: value for part in parts for key, value in part.items()}


def barrier() -> None:
    """Wait until all processes of the run have called this."""
    if _distributed():
        torch.distributed.barrier()


def another_process_ended(error: BaseException) -> bool:
    """Return whether an error only says that another process of the run has ended (gloo has no error class)."""
    return _distributed() and (
        isinstance(error, torch.distributed.DistError)
        or (isinstance(error, RuntimeError) and ("by peer" in str(error) or "gloo" in str(error)))
    )
