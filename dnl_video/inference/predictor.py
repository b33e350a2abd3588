"""Scores and features of videos, in Python."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dnl_video.config import EvaluationConfig
from dnl_video.cores import default_workers, network_threads
from dnl_video.data.crash_record import STOPPED_REASON, LoaderStopped, later_faults, loader_faults
from dnl_video.data.dataset import VideoViews, ViewDataset
from dnl_video.data.folders import existing
from dnl_video.data.loaders import VIEW_TIMEOUT_S, view_loader
from dnl_video.data.manifest import VideoRecord
from dnl_video.data.sliding_clips import SlidingClips, read_ahead, stream_clips
from dnl_video.data.sources import Source, above_zero, checked_pixels, open_source
from dnl_video.data.transforms import normalize
from dnl_video.errors import InputError
from dnl_video.inference.device import check_cpu_precision, resolve_device
from dnl_video.inference.scores import VideoFeatures, VideoScores
from dnl_video.launcher import local_processes
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.runtime.folding import optimize_for_inference
from dnl_video.models.weights.checkpoint import Checkpoint, load_checkpoint
from dnl_video.models.weights.export import export_model
from dnl_video.models.weights.huggingface import download, upload
from dnl_video.naming import training_facts
from dnl_video.spec import Preprocessing, to_dict

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


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
    def from_checkpoint(
        cls,
        checkpoint: str | Path | Checkpoint,
        options: EvaluationConfig | None = None,
        *,
        num_frames: int | None = None,
        **settings: Any,
    ) -> Predictor:
        """Load a checkpoint, or the best one of a training run, with its preprocessing and class names.

        Args:
            checkpoint: A checkpoint or an exported model, or the folder of a run.
            options: Views, device, precision; None: those of the commands, 10 clips x 3 crops.
            num_frames: Frames of a clip, in place of those of the training.
            **settings: Fields of the options to replace: `num_clips`, `num_crops`, `device`, ...

        Raises:
            InputError: The checkpoint cannot be used, or a value is not allowed.
        """
        loaded = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
        network, preprocessing = loaded.build(), loaded.preprocessing
        if num_frames is not None:
            preprocessing = replace(preprocessing, num_frames=num_frames)
        predictor = cls(network, preprocessing, loaded.class_names, replace(options or EvaluationConfig(), **settings))
        predictor._checkpoint = replace(loaded, preprocessing=preprocessing, state_dict={})
        predictor.facts = {"weights": loaded.path, **training_facts(loaded.config), **to_dict(loaded.spec)}
        return predictor

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, token: str | None = None, **settings: Any
    ) -> Predictor:
        """Load ``user/repository`` of the Hugging Face hub (extra ``hub``), or a path, as `from_checkpoint` does.

        Raises:
            InputError: There is no such repository, revision or file, or the hub cannot be reached.
        """
        return cls.from_checkpoint(download(name, revision=revision, token=token), **settings)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the network with preprocessing, class names and model card; return the repository's address.

        Raises:
            InputError: The hub refused, the extra ``hub`` is missing, or `create_model` did not make the network.
        """
        if (spec := getattr(self.network, "spec", None)) is None:
            raise InputError(f"{type(self.network).__name__} has no ModelSpec; push a network of create_model")
        known = self._checkpoint or Checkpoint("", "", spec, self.preprocessing, self.class_names, {}, {})
        with tempfile.TemporaryDirectory() as folder:
            export_model(replace(known, state_dict=self.network.state_dict()), folder, repository=repo_id)
            return upload(folder, repo_id, private=private, token=token)

    def __repr__(self) -> str:
        spec, views, clip = getattr(self.network, "spec", None), self.options, self.preprocessing
        name = f"{spec.architecture} {spec.context}" if spec else type(self.network).__name__
        protocol = f"{views.num_clips} clips x {views.num_crops} crops of {clip.num_frames}x{clip.frame_stride} frames"
        return f"Predictor({name}, {len(self.class_names)} classes, {protocol}, {self.device})"

    def predict(self, source: Source, *, fps: float | None = None) -> VideoScores:
        """Score one video.

        Args:
            source: A path, a file object or bytes of a video file, or its frames: uint8 [N, H, W, 3], RGB.
            fps: Frames per second of frames; a file has its own.

        Raises:
            InputError: There is no such file, it is a folder, or frames or fps have another form.
            VideoDecodeError: The file cannot be decoded.
        """
        return self.score(self._read(source, fps, "predict"))

    def features(self, source: Source, *, fps: float | None = None) -> VideoFeatures:
        """Return the pooled features of one video (see `pooled_features`); arguments and errors as for `predict`."""
        found = self.score(self._read(source, fps, "features"), features=True)
        assert found.clip_features is not None
        return VideoFeatures(found.clip_features, found.clip_start_s, found.clip_end_s)

    def predict_many(
        self, paths: Iterable[str | os.PathLike[str]], *, num_workers: int | None = None
    ) -> Iterator[tuple[str, VideoScores | None, str | None]]:
        """Yield (path, scores, error) of video files in their order, while loader processes decode the next ones.

        A video that cannot be read, or that crashes its decoder, has an error, and its scores are None. The processes
        end with the iterator, also if it is closed early.

        Args:
            paths: The files.
            num_workers: Loader processes; 0 decodes in this process, None takes `options.num_workers`.

        Raises:
            LoaderStopped: A loader process died while it read no video.
        """
        names = [os.fspath(path) for path in paths]
        dataset, done = self.dataset([VideoRecord(name, name) for name in names]), 0
        workers = default_workers(self.options.num_workers if num_workers is None else num_workers)
        processes, threads = local_processes(), torch.get_num_threads()
        try:
            torch.set_num_threads(min(threads, network_threads(workers, processes)))
            while done < len(names):
                try:
                    with loader_faults(VIEW_TIMEOUT_S):
                        for views in view_loader(dataset, range(done, len(names)), workers, processes):
                            scores = None if views.error is not None else self.score(views)
                            with later_faults():
                                done += 1  # a fault before this line scores the video again, none loses it
                                yield names[views.index], scores, views.error
                except LoaderStopped as stopped:
                    if not stopped.videos:
                        raise
                    dataset.refuse(dict.fromkeys(stopped.videos, STOPPED_REASON))
        finally:
            torch.set_num_threads(threads)

    def stream(
        self, frames: Iterable[NDArray[np.uint8] | Tensor], fps: float, hop_s: float = 1.0
    ) -> Iterator[tuple[float, float, NDArray[np.float32]]]:
        """Yield (start_s, end_s, scores [K]) of clips of frames that arrive one by one, in constant memory.

        The clips are those of `predict_sliding`. Each is scored as soon as its last frame has come; the last one comes
        at the end. Of the options only `num_crops` and `views_per_forward` are used.

        Args:
            frames: Frames uint8 [H, W, 3], RGB, all of one size. (OpenCV gives BGR: `frame[..., ::-1]`.)
            fps: Frames per second.
            hop_s: Seconds from the start of one clip to the next.

        Raises:
            InputError: fps or hop_s is no number above 0, a frame has another form, or there are no frames.
        """
        rate = above_zero("fps", fps)
        clips = stream_clips(frames, rate, max(above_zero("hop_s", hop_s) * rate, 1.0), self.dataset(()))
        return ((float(s.clip_start_s[0]), float(s.clip_end_s[0]), s.scores) for s in map(self.score, clips))

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
        workers, crops = default_workers(self.options.num_workers), self.options.num_crops
        at_once = max(self.options.views_per_forward // crops, 1)
        clips = SlidingClips(
            str(path), self.preprocessing, hop_s=hop_s, num_crops=crops, clips_at_once=at_once, threads=max(workers, 1)
        )
        found = []
        for batch in read_ahead(clips) if workers else clips:
            found.append(self.score(batch).clip_scores)
            if progress is not None:
                progress(batch.index + len(found[-1]), len(clips.indices))
        scores = np.concatenate(found)
        return VideoScores(scores.mean(axis=0), scores, clips.clip_start_s, clips.clip_end_s, self.class_names)

    def dataset(self, records: Sequence[VideoRecord]) -> ViewDataset:
        """Return the views of videos, as the options and the preprocessing choose them."""
        names = ("num_clips", "num_crops", "frame_order", "decoder")
        return ViewDataset(records, self.preprocessing, **{name: getattr(self.options, name) for name in names})

    def _read(self, source: Source, fps: float | None, command: str) -> VideoViews:
        if isinstance(source, (str, os.PathLike)):
            source = existing(source, f"{source} does not exist; give one video file")
            if source.is_dir():
                raise InputError(f"{source} is a folder; give one video file, or use `dnl-video {command}` for many")
        with open_source(source, fps, decoder=self.options.decoder) as video:
            return self.dataset(()).read(video)

    def score(self, views: VideoViews, *, features: bool = False) -> VideoScores:
        """Score the decoded views of one video; with ``features``, also return the pooled features of its clips."""
        assert views.views is not None
        scores, pooled = self._forward(views.views, features)
        scores, num_clips = views.expand(scores), len(views.clip_start_s)
        mean, clip_scores = scores.numpy().mean(axis=0), _per_clip(scores, num_clips)
        found = None if pooled is None else _per_clip(views.expand(pooled), num_clips)
        return VideoScores(mean, clip_scores, views.clip_start_s, views.clip_end_s, self.class_names, found)

    def score_views(self, views: Tensor | NDArray[np.uint8]) -> Tensor:
        """Return the softmax scores [V, K] of views uint8 [V, T, H, W, 3], RGB.

        Raises:
            InputError: The views have another form.
        """
        pixels = np.require(checked_pixels(views, "views", "[V, T, H, W, 3]"), requirements=["C", "W"])
        return self._forward(torch.from_numpy(pixels), features=False)[0]

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
