"""Chooses the device and checks its precision."""

from __future__ import annotations

import torch

from dnl_video.config import Precision
from dnl_video.cores import cpu_flags
from dnl_video.errors import InputError
from dnl_video.launcher import local_rank

# Without one of these instructions an x86 CPU emulates half precision, 30 to 100 times slower than float32.
_INSTRUCTIONS = {"bf16-mixed": {"avx512_bf16", "amx_bf16"}, "16-mixed": {"avx512_fp16", "amx_fp16"}}


def resolve_device(name: str, option: str = "device") -> torch.device:
    """Return the device named auto, cpu, cuda, cuda:N or mps; ``option`` is its option in error messages.

    auto prefers cuda (the device of this process), then mps, then cpu.

    Raises:
        InputError: This machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank() % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"{option} {name!r} is unknown; allowed: auto, cpu, cuda, cuda:N, mps") from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        here = ", ".join(kind for kind, there in available.items() if there)
        raise InputError(f"{option} {name!r} is not available here; available: {here}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"{option} {name!r} is not available here; there are {torch.cuda.device_count()}, from cuda:0")
    return device


def check_cpu_precision(precision: Precision, option: str = "--precision") -> None:
    """Refuse a precision that this CPU emulates. A CPU that does not list its instructions is not checked.

    Raises:
        InputError: The CPU lacks the instructions.
    """
    needed, present = _INSTRUCTIONS.get(precision), cpu_flags()
    if needed and present and not needed & present:
        raise InputError(
            f"precision {precision!r} is emulated on this CPU (none of {', '.join(sorted(needed))}), 30 to 100 times "
            f"slower than float32; use {option} 32-true, or a GPU"
        )
