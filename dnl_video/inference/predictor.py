"""From a file to scores, for Python users and for the runner."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dnl_video.config import EvaluationConfig
from dnl_video.data.dataset import VideoViews, ViewDataset
from dnl_video.data.decoding import VideoDecodeError
from dnl_video.data.manifest import read_videos
from dnl_video.data.transforms import normalize
from dnl_video.errors import InputError
from dnl_video.models.weights.checkpoint import Checkpoint, load_checkpoint
from dnl_video.spec import Preprocessing

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class VideoScores:
    """Scores of one video.

    Attributes:
        scores: Mean of softmax over all views, [K].
        clip_scores: Scores of each clip, averaged over its crops, [J, K].
        clip_start_s: Start of each clip in seconds, [J].
        clip_end_s: End of each clip in seconds, [J].
        class_names: Names of the K classes.
    """

    scores: NDArray[np.float32]
    clip_scores: NDArray[np.float32]
    clip_start_s: NDArray[np.float64]
    clip_end_s: NDArray[np.float64]
    class_names: tuple[str, ...]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k most probable classes with their scores."""
        return [(self.class_names[i], float(self.scores[i])) for i in np.argsort(-self.scores, kind="stable")[:k]]


class Predictor:
    """A network ready to score videos.

    Args:
        network: Clips [B, 3, T, H, W] to logits [B, K].
        preprocessing: How frames become clips.
        class_names: Names of the outputs.
        options: Views, device, precision.

    Raises:
        InputError: The device is not available.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        class_names: Sequence[str],
        options: EvaluationConfig | None = None,
    ) -> None:
        self.options = options or EvaluationConfig()
        self.preprocessing = preprocessing
        self.class_names = tuple(class_names)
        self.device = resolve_device(self.options.device)
        self.network = network.eval().to(self.device)

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path | Checkpoint, options: EvaluationConfig | None = None) -> Predictor:
        """Load a checkpoint, or a training run's best one; it brings its own preprocessing and class names."""
        loaded = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
        return cls(loaded.build(), loaded.preprocessing, loaded.class_names, options)

    def predict(self, path: str | Path) -> VideoScores:
        """Score one video file.

        Raises:
            InputError: There is no such file, or it is a folder.
            VideoDecodeError: It cannot be decoded.
        """
        if Path(path).is_dir():
            raise InputError(f"{path} is a folder; give one video file, or use `dnl-video predict` for many")
        options = self.options
        dataset = ViewDataset(
            read_videos([str(path)]).records,
            self.preprocessing,
            num_clips=options.num_clips,
            num_crops=options.num_crops,
            frame_order=options.frame_order,
        )
        views = dataset[0]
        if views.views is None:
            raise VideoDecodeError(str(path), views.error or "no frames")
        return self.score(views)

    def score(self, views: VideoViews) -> VideoScores:
        """Score the decoded views of one video."""
        assert views.views is not None
        scores = self.score_views(views.views).numpy()
        clips = scores.reshape(len(views.clip_start_s), -1, scores.shape[1]).mean(axis=1)
        return VideoScores(scores.mean(axis=0), clips, views.clip_start_s, views.clip_end_s, self.class_names)

    @torch.inference_mode()
    def score_views(self, views: Tensor) -> Tensor:
        """Return softmax scores [V, K] of views uint8 [V, T, H, W, 3], a few views at a time on the device."""
        parts = []
        dtype = _AUTOCAST.get(self.options.precision)
        for chunk in views.split(self.options.views_per_forward):
            clips = normalize(
                chunk.to(self.device), self.preprocessing.mean, self.preprocessing.std, self.preprocessing.channel_order
            )
            with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
                logits = self.network(clips)
            parts.append(logits.float().softmax(dim=1).cpu())
        return torch.cat(parts)


def resolve_device(name: str) -> torch.device:
    """Return the device called ``name``; auto takes cuda (the one of LOCAL_RANK), then mps, then cpu.

    Raises:
        InputError: The device does not exist here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank() % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r} is unknown; allowed: auto, cpu, cuda, cuda:N, mps") from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        here = ", ".join(kind for kind, there in available.items() if there)
        raise InputError(f"device {name!r} is not available here; available: {here}")
    return device


def local_rank() -> int:
    """Return this process's number on its machine, from torchrun or Lightning; 0 alone."""
    return int(os.environ.get("LOCAL_RANK", "0"))
