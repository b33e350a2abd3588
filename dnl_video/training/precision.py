"""Which precisions train rightly where."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from dnl_video.config import Precision
from dnl_video.errors import InputError


def check_precision(precision: Precision, *, on_cpu: bool) -> None:
    """Refuse to train on a CPU in a precision that it has not, or has wrongly.

    Raises:
        InputError: It is fp16, for which Lightning would take bf16 with a warning; or bf16 with wrong gradients.
    """
    if on_cpu and precision == "16-mixed":
        raise InputError("trainer.precision 16-mixed needs a GPU; use bf16-mixed or 32-true")
    if on_cpu and precision == "bf16-mixed" and not bf16_gradients_are_right():
        raise InputError(
            f"trainer.precision bf16-mixed: on this CPU torch {torch.__version__} computes wrong gradients of temporal "
            "convolutions in bf16; use 32-true, or a GPU"
        )


def bf16_gradients_are_right() -> bool:
    """Whether a temporal convolution's weight gradient in bf16 is that in float32, on a CPU.

    Torch 2.15 leaves the taps that lie beyond a short clip unwritten (3 frames' kernel over 2 frames; oneDNN on
    AVX-512 with bf16): NaN, or whatever the memory held before.
    """
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(4, 64, 2, 8, 8, generator=generator).bfloat16()
    weight = 0.1 * torch.randn(64, 64, 3, 1, 1, generator=generator)
    gradient = torch.randn(4, 64, 2, 8, 8, generator=generator).bfloat16()
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        # Memory that the convolution is given next.
        dirty = [torch.full((size,), float("nan")) for size in (1_000, 10_000, 50_000, 100_000, 300_000)]
        del dirty
        found = []
        for dtype in (torch.bfloat16, torch.float32):
            leaf = weight.to(dtype).requires_grad_()
            out = F.conv3d(clip.to(dtype, memory_format=layout), leaf, padding=(1, 0, 0))
            found.append(torch.autograd.grad(out, leaf, gradient.to(dtype))[0].float())
        half, exact = found
        # False for NaN, too.
        if not bool((half - exact).norm() < 0.05 * exact.norm()):
            return False
    return True
