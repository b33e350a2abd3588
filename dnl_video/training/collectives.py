"""What the processes of a run tell each other, beyond the gradients; with one process all of it is its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_PATIENCE_S = 10.0


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


def wait_for_all() -> None:
    """Return when all processes of the run have come here."""
    if _several():
        torch.distributed.barrier()


def another_process_ended(error: BaseException) -> bool:
    """Tell whether an error only says that another process of the run has gone (gloo has no error of its own)."""
    return _several() and (
        isinstance(error, torch.distributed.DistError)
        or (isinstance(error, RuntimeError) and ("by peer" in str(error) or "gloo" in str(error)))
    )


def take_children(launcher: Any) -> list[subprocess.Popen[Any]]:
    """Take the processes that Lightning's launcher started out of its hands.

    Its observer kills everything, this process first, when one of them leaves with a status other than 0.
    """
    started = getattr(launcher, "procs", [])
    children = list(started)
    started.clear()
    return children


def wait_for_children(children: Iterable[subprocess.Popen[Any]], patience_s: float = _PATIENCE_S) -> None:
    """Let them end, and end those that wait for this one.

    A process that fails leaves the others in collectives; on a GPU they would stay there, orphaned.
    """
    deadline = time.monotonic() + patience_s
    for process in children:
        try:
            process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
