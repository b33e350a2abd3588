"""Check that the device trains correctly in the chosen precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from dnl_video.config import Precision
from dnl_video.errors import InputError


def check_precision(precision: Precision, *, on_cpu: bool) -> None:
    """Refuse precisions that a CPU does not support, or computes wrongly.

    Raises:
        InputError: fp16 (Lightning would use bf16 instead, with a warning), or bf16 with wrong gradients.
    """
    if on_cpu and precision == "16-mixed":
        raise InputError("trainer.precision 16-mixed needs a GPU; use bf16-mixed or 32-true")
    if on_cpu and precision == "bf16-mixed" and not bf16_gradients_are_correct():
        raise InputError(
            f"trainer.precision bf16-mixed: on this CPU torch {torch.__version__} computes wrong gradients of temporal "
            "convolutions in bf16; use 32-true, or a GPU"
        )


def bf16_gradients_are_correct() -> bool:
    """Return whether the weight gradient of a temporal convolution in bf16 equals that in float32 on this CPU.

    Torch 2.15 does not write the taps outside a short clip (a kernel of 3 frames over 2 frames; oneDNN on AVX-512 with
    bf16): they are NaN, or hold the previous content of the memory.
    """
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(4, 64, 2, 8, 8, generator=generator).bfloat16()
    weight = 0.1 * torch.randn(64, 64, 3, 1, 1, generator=generator)
    gradient = torch.randn(4, 64, 2, 8, 8, generator=generator).bfloat16()
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        # Fill the memory that the convolution will get with NaN.
        dirty = [torch.full((size,), float("nan")) for size in (1_000, 10_000, 50_000, 100_000, 300_000)]
        del dirty
        found = []
        for dtype in (torch.bfloat16, torch.float32):
            leaf = weight.to(dtype).requires_grad_()
            out = F.conv3d(clip.to(dtype, memory_format=layout), leaf, padding=(1, 0, 0))
            found.append(torch.autograd.grad(out, leaf, gradient.to(dtype))[0].float())
        half, exact = found
        # The comparison is False for NaN.
        if not bool((half - exact).norm() < 0.05 * exact.norm()):
            return False
    return True
