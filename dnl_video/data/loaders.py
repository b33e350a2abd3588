"""Workers and position: the resumable loader, and the datamodule that Lightning drives."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from dnl_video.config import AugmentConfig, DataConfig, ViewsConfig
from dnl_video.cores import default_workers
from dnl_video.data.crash_record import record_folder, start_record
from dnl_video.data.dataset import ClipDataset, ViewDataset, collate_clips
from dnl_video.data.manifest import Manifest, VideoRecord, missing, read_class_list, read_manifest
from dnl_video.data.samplers import ClipBatchSampler, ShardBatchSampler
from dnl_video.errors import InputError, nearest
from dnl_video.spec import Preprocessing

# Precise batch norm draws clips of its own, so that training clips do not depend on it.
_PRECISE_BN_STREAM = 1
_VALIDATION_BATCH = 4
VIEW_TIMEOUT_S = 300.0
"""Seconds after which an evaluation's loader that gives nothing is an error."""


class ResumableLoader(DataLoader):
    """A loader that knows which epoch it is in and how many batches were consumed of it.

    The datamodule stores `state_dict` in every checkpoint and restores it, so a run resumed in mid-epoch goes on with
    the next batch. The count is of batches handed out, not of those that workers fetched ahead.
    """

    _epoch = 0
    _position = 0
    _resumed = False

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if self._resumed:
            self._resumed = False
        elif self._position:
            self._epoch, self._position = self._epoch + 1, 0
        sampler = self.batch_sampler
        assert isinstance(sampler, ClipBatchSampler)
        sampler.epoch, sampler.start = self._epoch, self._position
        for batch in super().__iter__():
            self._position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the batches consumed of it."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state_dict` was taken."""
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        if self._position >= len(self):
            self._epoch, self._position = self._epoch + 1, 0
        self._resumed = True


class VideoDataModule(LightningDataModule):
    """Training clips and validation views of two manifests.

    Args:
        data: Manifests, batch size, workers.
        preprocessing: How frames become clips.
        augment: Random views of training clips.
        validation: Views per video in validation.
        seed: Seed of order, sampling and augmentation.

    Raises:
        InputError: A manifest cannot be used, or too many training videos are missing.
    """

    def __init__(
        self,
        data: DataConfig,
        preprocessing: Preprocessing,
        augment: AugmentConfig,
        validation: ViewsConfig,
        *,
        seed: int,
    ) -> None:
        super().__init__()
        self.crashed: dict[str, str] = {}
        """Videos not to be opened (they stopped a loader process in an earlier part of the run), and why."""
        self.config = data
        self.preprocessing = preprocessing
        self.augment = augment
        self.validation = validation
        self.seed = seed
        self._train_loader: ResumableLoader | None = None
        self._restored: dict[str, int] | None = None
        if data.batch_size % augment.repeats:
            raise InputError(
                f"data.batch_size {data.batch_size} is no multiple of augment.repeats {augment.repeats}; it counts "
                "clips, and each video gives that many"
            )
        for name in ("train_manifest", "val_manifest"):
            if not getattr(data, name):
                raise InputError(f"data.{name} is not set; give a Kinetics CSV, a list or a class folder")
        self.train = self._read(data.train_manifest, data.train_root, None)
        self.class_names = self.train.class_names
        self.never_mirrored = class_ids(augment.flip_except, self.class_names)
        self.val = self._read(data.val_manifest, data.val_root, self.class_names)
        if self.class_names is None and self.val.class_names is not None:
            raise InputError(
                f"{data.train_manifest} has integer labels, {data.val_manifest} has names; use one kind in both, "
                "or give data.class_list"
            )
        self.train_missing = missing(self.train.records)
        self.train_records = _without(self.train.records, self.train_missing)
        allowed = allowed_failures(len(self.train.records), data.max_failed_share)
        if len(self.train_missing) > allowed:
            shown = ", ".join(r.path for r in self.train_missing[:5])
            raise InputError(
                f"{len(self.train_missing)} of {len(self.train.records)} videos of {data.train_manifest} are not on "
                f"disk (allowed: {allowed}): {shown}, ...; set data.train_root, or raise data.max_failed_share"
            )

    def _read(self, source: str, root: str | None, class_names: tuple[str, ...] | None) -> Manifest:
        if class_names is None and self.config.class_list is not None:
            class_names = read_class_list(self.config.class_list)
        return read_manifest(source, root=root, class_names=class_names, limit_videos=self.config.limit_videos)

    def train_dataloader(self) -> ResumableLoader:
        """Batches of clips, uint8 [B, T, H, W, 3], with labels and the failures met on the way."""
        self._train_loader = self._clip_loader(self.seed)
        if self._restored is not None:
            self._train_loader.load_state_dict(self._restored)
        return self._train_loader

    def state_dict(self) -> dict[str, Any]:
        """Return where the training loader is."""
        return {} if self._train_loader is None else {"train_loader": self._train_loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the training loader go on there. Lightning's own restoring of loaders comes after they have started."""
        self._restored = state_dict.get("train_loader")

    def precise_bn_dataloader(self, epoch: int) -> ResumableLoader:
        """Training clips from a stream of their own, for batch-norm statistics after ``epoch``."""
        loader = self._clip_loader((self.seed + 1) * 1_000_003 + _PRECISE_BN_STREAM, persistent=False)
        loader.load_state_dict({"epoch": epoch, "position": 0})
        return loader

    def val_dataloader(self) -> DataLoader:
        """Lists of videos with all their views; as many lists on every process, some of which may be empty."""
        rank, world_size = self._rank_and_world_size()
        dataset = ViewDataset(
            self.val.records,
            self.preprocessing,
            num_clips=self.validation.num_clips,
            num_crops=self.validation.num_crops,
            decoder=self.config.decoder,
        )
        dataset.refuse(self.crashed)
        batches = ShardBatchSampler(len(dataset), _VALIDATION_BATCH, rank=rank, world_size=world_size)
        workers = min(default_workers(self.config.num_workers), len(batches))
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=_unchanged,
            **_view_options(workers, self.config.timeout_s),
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move training batches; validation views stay, and `validation_step` moves a few at a time."""
        if isinstance(batch, list):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _clip_loader(self, seed: int, persistent: bool = True) -> ResumableLoader:
        rank, world_size = self._rank_and_world_size()
        dataset = ClipDataset(
            self.train_records,
            self.preprocessing,
            self.augment,
            seed=seed,
            decoder=self.config.decoder,
            never_mirrored=self.never_mirrored,
        )
        dataset.refuse(self.crashed)
        videos = self.config.batch_size // self.augment.repeats
        sampler = ClipBatchSampler(
            len(self.train_records),
            videos,
            seed=seed,
            rank=rank,
            world_size=world_size,
            accumulate=self.trainer.accumulate_grad_batches if self.trainer is not None else 1,
        )
        workers = default_workers(self.config.num_workers)
        return ResumableLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate_clips,
            **_worker_options(workers, self.config.timeout_s, persistent),
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)


def view_loader(
    dataset: ViewDataset, order: Sequence[int], num_workers: int | None, timeout_s: float = VIEW_TIMEOUT_S
) -> DataLoader:
    """Load views of videos, one video an item, in this order."""
    workers = min(default_workers(num_workers), len(order))
    return DataLoader(
        dataset,
        sampler=order,
        batch_size=None,
        # Without a batch size the loader collates nothing, but would turn arrays into tensors.
        collate_fn=_unchanged,
        **_view_options(workers, timeout_s),
    )


def class_ids(names: Sequence[str], class_names: Sequence[str] | None) -> frozenset[int]:
    """Return the ids of the classes in `augment.flip_except`.

    Raises:
        InputError: There is no such class, or classes have no names.
    """
    if names and class_names is None:
        raise InputError("augment.flip_except names classes, but the labels are integers; give data.class_list")
    known = list(class_names or ())
    for name in names:
        if name not in known:
            raise InputError(f"augment.flip_except: no class {name!r}{nearest(name, known)}")
    return frozenset(known.index(name) for name in names)


def allowed_failures(num_videos: int, max_failed_share: float) -> int:
    """Return how many videos may fail before training stops: the share, rounded up."""
    return int(np.ceil(num_videos * max_failed_share - 1e-9))


def _worker_options(workers: int, timeout_s: float, persistent: bool) -> dict[str, Any]:
    return {
        "num_workers": workers,
        "persistent_workers": persistent and workers > 0,
        "timeout": timeout_s if workers else 0,
        "pin_memory": torch.cuda.is_available(),
        "prefetch_factor": 4 if workers else None,
        "worker_init_fn": functools.partial(start_record, record_folder()) if workers else None,
        # Loaders draw a seed for their workers; from a generator of their own, the global random state stays as it is.
        "generator": torch.Generator(),
    }


def _view_options(workers: int, timeout_s: float) -> dict[str, Any]:
    # All views of a video are large: few wait in shared memory.
    return _worker_options(workers, timeout_s, persistent=False) | {"prefetch_factor": 2 if workers else None}


def _without(records: tuple[VideoRecord, ...], dropped: list[VideoRecord]) -> tuple[VideoRecord, ...]:
    gone = {record.path for record in dropped}
    return tuple(record for record in records if record.path not in gone)


def _unchanged(items: Any) -> Any:
    return items
