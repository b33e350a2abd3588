"""From a file to scores, for Python users and for the runner."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
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
from dnl_video.inference.device import check_cpu_precision, resolve_device
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.runtime.folding import optimize_for_inference
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


@dataclass(frozen=True)
class VideoFeatures:
    """Pooled backbone features of one video.

    Attributes:
        features: Features of each clip, averaged over its crops, [J, C].
        clip_start_s: Start of each clip in seconds, [J].
        clip_end_s: End of each clip in seconds, [J].
    """

    features: NDArray[np.float32]
    clip_start_s: NDArray[np.float64]
    clip_end_s: NDArray[np.float64]


class Predictor:
    """A network ready to score videos.

    Args:
        network: Clips [B, 3, T, H, W] to logits [B, K]. In float32 on a CPU a folded copy of it, ``scorer``, gives the
            scores: the same within rounding, in about half the time.
        preprocessing: How frames become clips.
        class_names: Names of the outputs.
        options: Views, device, precision.

    Raises:
        InputError: The device is not available, or its processor would only emulate the precision.
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
        if self.device.type == "cpu":
            check_cpu_precision(self.options.precision)
        self.network = network.eval().to(self.device)

    @functools.cached_property
    def scorer(self) -> nn.Module:
        """What gives scores and features; made on first use, since drawing attention needs the network only."""
        folds = self.device.type == "cpu" and self.options.precision == "32-true"
        return optimize_for_inference(self.network) if folds else self.network

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
        return self.score(self._read(path, "predict"))

    def features(self, path: str | Path) -> VideoFeatures:
        """Return the pooled features of one video file (see `VideoClassifier.pooled_features`).

        Raises:
            InputError: There is no such file, or it is a folder.
            VideoDecodeError: It cannot be decoded.
        """
        return self.embed(self._read(path, "features"))

    def _read(self, path: str | Path, command: str) -> VideoViews:
        if Path(path).is_dir():
            raise InputError(f"{path} is a folder; give one video file, or use `dnl-video {command}` for many")
        options = self.options
        dataset = ViewDataset(
            read_videos([str(path)]).records,
            self.preprocessing,
            num_clips=options.num_clips,
            num_crops=options.num_crops,
            frame_order=options.frame_order,
            decoder=options.decoder,
        )
        views = dataset[0]
        if views.views is None:
            raise VideoDecodeError(str(path), views.error or "no frames")
        return views

    def score(self, views: VideoViews) -> VideoScores:
        """Score the decoded views of one video."""
        assert views.views is not None
        scores = self.score_views(views.views).numpy()
        clips = scores.reshape(len(views.clip_start_s), -1, scores.shape[1]).mean(axis=1)
        return VideoScores(scores.mean(axis=0), clips, views.clip_start_s, views.clip_end_s, self.class_names)

    def embed(self, views: VideoViews) -> VideoFeatures:
        """Return the pooled features of the decoded views of one video."""
        assert views.views is not None
        network = self.scorer
        if not isinstance(network, VideoClassifier):
            raise ValueError(f"{type(network).__name__} has no known last features; give a network of create_model")
        features = self._each_chunk(views.views, network.pooled_features).numpy()
        clips = features.reshape(len(views.clip_start_s), -1, features.shape[1]).mean(axis=1)
        return VideoFeatures(clips, views.clip_start_s, views.clip_end_s)

    def score_views(self, views: Tensor) -> Tensor:
        """Return softmax scores [V, K] of views uint8 [V, T, H, W, 3], a few views at a time on the device."""
        return self._each_chunk(views, lambda clips: self.scorer(clips).float().softmax(dim=1))

    @torch.inference_mode()
    def _each_chunk(self, views: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        parts = []
        dtype = _AUTOCAST.get(self.options.precision)
        for chunk in views.split(self.options.views_per_forward):
            clips = normalize(
                chunk.to(self.device), self.preprocessing.mean, self.preprocessing.std, self.preprocessing.channel_order
            )
            with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
                parts.append(function(clips).cpu())
        return torch.cat(parts)
