"""Generate videos to measure data loading: a warped scene, a moving and noisy camera, bit rates like Kinetics'."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from command import progress
from dnl_video.data.encoding import write_video

FPS = 30


@dataclass(frozen=True)
class VideoKind:
    """A size and a key-frame distance."""

    name: str
    width: int
    height: int
    gop: int  # largest number of frames between key frames
    noise: float  # standard deviation of the camera's noise, chosen for the bit rate

    @property
    def title(self) -> str:
        return f"{self.width} x {self.height}, GOP {self.gop}"


KINDS = {
    kind.name: kind
    for kind in (
        # Resized Kinetics has 300 to 600 kbit/s. x264 sets a key frame every 250 frames by default; many data sets are
        # re-encoded with 12.
        VideoKind("gop12", 340, 256, 12, 6.0),
        VideoKind("gop250", 340, 256, 250, 6.0),
        VideoKind("720p", 1280, 720, 12, 4.0),
    )
}


def generate(kind: VideoKind, folder: Path | None, *, count: int, seconds: float) -> list[Path]:
    """Return videos of a kind, those of earlier calls included; by default in the system's temporary folder."""
    folder = folder or Path(tempfile.gettempdir()) / f"dnl-video-bench-{os.environ.get('USER', 'user')}"
    paths = []
    for seed in range(count):
        path = folder / f"{kind.name}-{seconds:g}s-{seed}.mp4"
        paths.append(path)
        if not path.is_file():
            progress(f"writing {path}")
            # The defaults of x264, as in most videos of the web; only the key frames are set.
            options = {"preset": "medium", "threads": "1"}
            write_video(path, _frames(kind, round(seconds * FPS), seed), FPS, crf=23, gop=kind.gop, options=options)
    return paths


def _frames(kind: VideoKind, count: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    generator = torch.Generator().manual_seed(seed)
    height, width = kind.height, kind.width
    scene = _scene(height, width, generator)
    grain = kind.noise * torch.randn(16, 3, height, width, generator=generator)
    y, x = torch.meshgrid(torch.linspace(-0.75, 0.75, height), torch.linspace(-0.75, 0.75, width), indexing="ij")
    for number in range(count):
        t = number / FPS
        across = x + 0.12 * np.cos(0.9 * t + seed) + 0.04 * torch.sin(5 * y + 1.7 * t)
        down = y + 0.12 * np.sin(1.3 * t + seed) + 0.04 * torch.sin(6 * x + 2.1 * t)
        grid = torch.stack([across, down], dim=-1)[None]
        frame = F.grid_sample(scene, grid, padding_mode="reflection", align_corners=False)[0]
        frame += grain[int(torch.randint(len(grain), (), generator=generator))]
        yield frame.clamp(0, 255).permute(1, 2, 0).to(torch.uint8).numpy()


def _scene(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Return a picture with detail at all scales, [1, 3, H', W'], a quarter larger than the frame."""
    size = (height * 5 // 4, width * 5 // 4)
    scene = torch.full((1, 3, *size), 128.0)
    for scale in (2, 4, 8, 16, 32, 64):
        coarse = torch.randn(1, 3, size[0] // scale + 2, size[1] // scale + 2, generator=generator)
        scene += 6 * scale**0.5 * F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return scene.clamp(0, 255)
