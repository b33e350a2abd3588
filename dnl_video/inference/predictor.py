"""Scores and features of single videos."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dnl_video.config import EvaluationConfig
from dnl_video.cores import default_workers
from dnl_video.data.dataset import VideoViews, ViewDataset
from dnl_video.data.decoding import VideoDecodeError
from dnl_video.data.manifest import VideoRecord, read_videos
from dnl_video.data.sliding_clips import SlidingClips, read_ahead
from dnl_video.data.transforms import normalize
from dnl_video.errors import InputError
from dnl_video.inference.device import check_cpu_precision, resolve_device
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.runtime.folding import optimize_for_inference
from dnl_video.models.weights.checkpoint import Checkpoint, load_checkpoint
from dnl_video.models.weights.export import export_model
from dnl_video.models.weights.huggingface import download, require_hub, upload
from dnl_video.naming import training_facts
from dnl_video.spec import Preprocessing, to_dict

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


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


@dataclass(frozen=True)
class VideoScores:
    """Scores of one video.

    Attributes:
        scores: Mean of the softmax over all views, [K].
        clip_scores: Scores of each clip, averaged over its crops, [J, K].
        clip_start_s: Start of each clip in seconds, [J].
        clip_end_s: End of each clip in seconds, [J].
        class_names: Names of the K classes.
        clip_features: Pooled features of each clip, averaged over its crops, [J, C]; None unless requested.
    """

    scores: NDArray[np.float32]
    clip_scores: NDArray[np.float32]
    clip_start_s: NDArray[np.float64]
    clip_end_s: NDArray[np.float64]
    class_names: tuple[str, ...]
    clip_features: NDArray[np.float32] | None = None

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k most probable classes with their scores."""
        return [(self.class_names[i], float(self.scores[i])) for i in np.argsort(-self.scores, kind="stable")[:k]]


class Predictor:
    """Scores videos with a network.

    Args:
        network: Clips [B, 3, T, H, W] to logits [B, K]. In float32 on a CPU, a folded copy (``scorer``) gives the
            scores: equal within rounding, in about half the time.
        preprocessing: How frames become clips.
        class_names: Names of the outputs.
        options: Views, device, precision.

    Raises:
        InputError: The device is not available, or its processor can only emulate the precision.
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
        self._checkpoint: Checkpoint | None = None  # the file's description, without its weights
        self.facts: dict[str, Any] = {}  # the origin of the weights, for names in pictures; see `network_names`

    @functools.cached_property
    def scorer(self) -> nn.Module:
        """The network that gives scores and features. Made on first use: drawing attention needs `network` only."""
        folds = self.device.type == "cpu" and self.options.precision == "32-true"
        return optimize_for_inference(self.network) if folds else self.network

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path | Checkpoint, options: EvaluationConfig | None = None) -> Predictor:
        """Load a checkpoint, or the best one of a training run, with its preprocessing and class names."""
        loaded = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
        predictor = cls(loaded.build(), loaded.preprocessing, loaded.class_names, options)
        predictor._checkpoint = replace(loaded, state_dict={})
        predictor.facts = {"weights": loaded.path, **training_facts(loaded.config), **to_dict(loaded.spec)}
        return predictor

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, token: str | None = None, **settings: Any
    ) -> Predictor:
        """Load a network from the Hugging Face hub, or from a folder that `push_to_hub` or `dnl-video export` wrote.

        Args:
            name: ``user/repository`` (needs the extra ``hub``), or a path of this machine.
            revision: Branch, tag or commit of the repository.
            token: Access token; None for the one of `hf auth login`.
            **settings: As for `from_checkpoint`.

        Raises:
            InputError: There is no such repository or file, or it cannot be reached.
        """
        return cls.from_checkpoint(download(name, revision=revision, token=token), **settings)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the network with its preprocessing, class names and model card; return the address.

        Args:
            repo_id: ``user/repository`` of the Hugging Face hub; made if there is none.
            private: Make a new repository private.
            token: Access token; None for the one of `hf auth login`.

        Raises:
            InputError: It cannot be written, the extra ``hub`` is missing, or `create_model` did not make the network.
        """
        require_hub(repo_id)
        spec = getattr(self.network, "spec", None)
        if spec is None:
            raise InputError(f"{type(self.network).__name__} has no ModelSpec; push a network of create_model")
        known = self._checkpoint or Checkpoint("", "", spec, self.preprocessing, self.class_names, {}, {})
        with tempfile.TemporaryDirectory() as folder:
            export_model(replace(known, state_dict=self.network.state_dict()), folder, repository=repo_id)
            return upload(folder, repo_id, private=private, token=token)

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
        found = self.score(self._read(path, "features"), features=True)
        assert found.clip_features is not None
        return VideoFeatures(found.clip_features, found.clip_start_s, found.clip_end_s)

    def predict_sliding(
        self, path: str | Path, *, hop_s: float = 1.0, progress: Callable[[int, int], None] | None = None
    ) -> VideoScores:
        """Score clips every `hop_s` seconds over a whole video, in memory that does not grow with its length.

        Only the options `num_crops`, `views_per_forward` and `num_workers` are used. `num_workers` counts decoding
        threads here; 0 decodes and scores in turn.

        Args:
            path: The video.
            hop_s: Seconds from the start of one clip to the next.
            progress: Called with (clips done, clips of the video).

        Raises:
            VideoDecodeError: It cannot be decoded to its end.
            ValueError: `hop_s` is not above 0.
        """
        options = self.options
        workers = default_workers(options.num_workers)
        clips = SlidingClips(
            str(path),
            self.preprocessing,
            hop_s=hop_s,
            num_crops=options.num_crops,
            clips_at_once=max(options.views_per_forward // options.num_crops, 1),
            threads=max(workers, 1),
        )
        total, done = len(clips.indices), 0
        scores = np.full((total, len(self.class_names)), np.nan, dtype=np.float32)
        for batch in read_ahead(clips) if workers else clips:
            found = _per_clip(self.score_views(batch.views), len(batch.views) // options.num_crops)
            scores[batch.first : batch.first + len(found)] = found
            done += len(found)
            if progress is not None:
                progress(done, total)
        return VideoScores(scores.mean(axis=0), scores, clips.clip_start_s, clips.clip_end_s, self.class_names)

    def dataset(self, records: Sequence[VideoRecord]) -> ViewDataset:
        """Return the views of videos, as the options and the preprocessing choose them."""
        options = self.options
        return ViewDataset(
            records,
            self.preprocessing,
            num_clips=options.num_clips,
            num_crops=options.num_crops,
            frame_order=options.frame_order,
            decoder=options.decoder,
        )

    def _read(self, path: str | Path, command: str) -> VideoViews:
        if Path(path).is_dir():
            raise InputError(f"{path} is a folder; give one video file, or use `dnl-video {command}` for many")
        views = self.dataset(read_videos([str(path)]).records)[0]
        if views.views is None:
            raise VideoDecodeError(str(path), views.error or "no frames")
        return views

    def score(self, views: VideoViews, *, features: bool = False) -> VideoScores:
        """Score the decoded views of one video; with ``features``, also return the pooled features of its clips."""
        assert views.views is not None
        scores, pooled = self._forward(views.views, features)
        scores, num_clips = views.expand(scores), len(views.clip_start_s)
        return VideoScores(
            scores.numpy().mean(axis=0),
            _per_clip(scores, num_clips),
            views.clip_start_s,
            views.clip_end_s,
            self.class_names,
            None if pooled is None else _per_clip(views.expand(pooled), num_clips),
        )

    def score_views(self, views: Tensor) -> Tensor:
        """Return the softmax scores [V, K] of views uint8 [V, T, H, W, 3]."""
        return self._forward(views, features=False)[0]

    @torch.inference_mode()
    def _forward(self, views: Tensor, features: bool) -> tuple[Tensor, Tensor | None]:
        """Return softmax scores [V, K] and, if asked for, features [V, C]; `views_per_forward` views at a time."""
        network = self.scorer
        if features and not isinstance(network, VideoClassifier):
            raise ValueError(f"{type(network).__name__} has no known last features; give a network of create_model")
        dtype = _AUTOCAST.get(self.options.precision)
        preprocessing = self.preprocessing
        scores, pooled = [], []
        for chunk in views.split(self.options.views_per_forward):
            clips = normalize(chunk.to(self.device), preprocessing.mean, preprocessing.std, preprocessing.channel_order)
            with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
                if features:
                    assert isinstance(network, VideoClassifier)
                    logits, found = network.pooled_features(clips)
                    pooled.append(found.cpu())
                else:
                    logits = network(clips)
                scores.append(logits.float().softmax(dim=1).cpu())
        return torch.cat(scores), torch.cat(pooled) if features else None


def _per_clip(values: Tensor, num_clips: int) -> NDArray[np.float32]:
    """Average the views of each clip: [J * R, n] to [J, n]."""
    return values.numpy().reshape(num_clips, -1, values.shape[1]).mean(axis=1)
