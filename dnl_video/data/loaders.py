"""Loaders: the resumable training loader, evaluation loaders, and Lightning's datamodule."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from dnl_video.config import AugmentConfig, DataConfig, ViewsConfig
from dnl_video.cores import default_workers
from dnl_video.data.class_lists import read_class_list
from dnl_video.data.crash_record import record_folder, start_record
from dnl_video.data.dataset import ClipBatchSampler, ClipDataset, ViewDataset, collate_clips, shard_batches
from dnl_video.data.manifest import Manifest, missing, read_manifest
from dnl_video.data.shared_memory import fitting_workers
from dnl_video.errors import InputError, nearest
from dnl_video.spec import Preprocessing

_VALIDATION_BATCH = 4
_PREFETCH = 4
_VIEW_PREFETCH = 2  # all views of a video are large
VIEW_TIMEOUT_S = 300.0
"""Default timeout of evaluation loaders in seconds."""


class ResumableLoader(DataLoader):
    """A loader that counts its epochs and the batches of the current epoch.

    The datamodule stores `state_dict` in every checkpoint and restores it, so a run resumed in mid-epoch continues with
    the next batch. Batches that workers fetched ahead are not counted.
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
        """Return the epoch and its number of batches so far."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from the position of `state_dict`."""
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

    Attributes:
        crashed: Reason by path of videos that stopped a loader process earlier in this run; they are not opened.

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
        self.config = data
        self.preprocessing = preprocessing
        self.augment = augment
        self.validation = validation
        self.seed = seed
        self._train_loader: ResumableLoader | None = None
        self._restored: dict[str, int] | None = None
        if data.batch_size % augment.repeats:
            raise InputError(
                f"data.batch_size {data.batch_size} is not a multiple of augment.repeats {augment.repeats}; it counts "
                f"clips, and each video gives {augment.repeats}"
            )
        for name in ("train_manifest", "val_manifest"):
            if getattr(data, name) == "":
                raise InputError(f"data.{name} is not set; give a Kinetics CSV, a list or a class folder")
        self.train = self._read("train", data.train_manifest, data.train_root, None)
        self.class_names = self.train.class_names
        self.never_mirrored = class_ids(augment.flip_except, self.class_names)
        self.val = self._read("val", data.val_manifest, data.val_root, self.class_names)
        if self.class_names is None and self.val.class_names is not None:
            raise InputError(
                f"{data.train_manifest} has integer labels, {data.val_manifest} has names; use one kind in both, "
                "or give data.class_list"
            )
        self.train_missing = missing(self.train.records)
        lost = {record.path for record in self.train_missing}
        self.train_records = tuple(record for record in self.train.records if record.path not in lost)
        self.train_labels = [record.label for record in self.train_records if record.label is not None]
        allowed = allowed_failures(len(self.train.records), data.max_failed_share)
        if len(self.train_missing) > allowed:
            shown = ", ".join(r.path for r in self.train_missing[:5])
            raise InputError(
                f"{len(self.train_missing)} of {len(self.train.records)} videos of {data.train_manifest} are not on "
                f"disk (allowed: {allowed}): {shown}, ...; set data.train_root, or raise data.max_failed_share"
            )

    def _read(self, split: str, source: str | None, root: str | None, class_names: tuple[str, ...] | None) -> Manifest:
        if source is None:
            return Manifest("", (), None, "")
        if class_names is None and self.config.class_list is not None:
            class_names = read_class_list(self.config.class_list)
        limit = self.config.limit_videos
        return read_manifest(source, root=root, class_names=class_names, limit_videos=limit, split=split)

    def train_dataloader(self) -> ResumableLoader:
        """Return batches of clips, uint8 [B, T, H, W, 3], with labels and failures (see `collate_clips`)."""
        self._train_loader = self._clip_loader(self.seed)
        if self._restored is not None:
            self._train_loader.load_state_dict(self._restored)
        return self._train_loader

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the training loader."""
        return {} if self._train_loader is None else {"train_loader": self._train_loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the position of the training loader. Lightning itself restores loaders only after they have started."""
        self._restored = state_dict.get("train_loader")

    def precise_bn_dataloader(self, epoch: int) -> ResumableLoader:
        """Return training clips for batch-norm statistics after ``epoch``, with other draws than the training clips."""
        loader = self._clip_loader((self.seed + 1) * 1_000_003 + 1, persistent=False)
        loader.load_state_dict({"epoch": epoch, "position": 0})
        return loader

    def val_dataloader(self) -> DataLoader:
        """Return lists of videos with all their views; see `shard_batches`."""
        rank, world_size = self._rank_and_world_size()
        dataset = ViewDataset(
            self.val.records,
            self.preprocessing,
            num_clips=self.validation.num_clips,
            num_crops=self.validation.num_crops,
            decoder=self.config.decoder,
        )
        dataset.refuse(self.crashed)
        batches = shard_batches(len(dataset), _VALIDATION_BATCH, rank, world_size)
        workers = min(default_workers(self.config.num_workers), len(batches))
        options = _view_options(workers, self.config.timeout_s, _VALIDATION_BATCH * dataset.video_bytes, self._loaders)
        return DataLoader(dataset, batch_sampler=batches, **options)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move training batches to the device; `validation_step` moves a few validation views at a time."""
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
        sampler = ClipBatchSampler(
            len(self.train_records),
            self.config.batch_size // self.augment.repeats,
            seed=seed,
            rank=rank,
            world_size=world_size,
            accumulate=self.trainer.accumulate_grad_batches if self.trainer is not None else 1,
            labels=np.asarray(self.train_labels) if self.config.balance == "sampler" else None,
        )
        workers, prefetch = self._clip_workers
        options = worker_options(workers, self.config.timeout_s, persistent, prefetch)
        return ResumableLoader(dataset, batch_sampler=sampler, collate_fn=_shared_clips, **options)

    @functools.cached_property
    def _clip_workers(self) -> tuple[int, int]:
        """Loader processes and batches ahead; the same for every loader of clips, so that a change is printed once."""
        size = self.config.batch_size * self.preprocessing.num_frames * self.augment.crop_size**2 * 3
        workers = default_workers(self.config.num_workers)
        return fitting_workers("training clips", workers, _PREFETCH, size, self._loaders)

    @property
    def _loaders(self) -> int:
        # Precise batch norm and validation run at the same time.
        return 2 * (self.trainer.num_devices if self.trainer is not None else 1)

    def _rank_and_world_size(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)


def view_loader(dataset: ViewDataset, order: Sequence[int], num_workers: int | None, processes: int = 1) -> DataLoader:
    """Return a loader of single videos with their views, in the given order of indices.

    Args:
        dataset: The views.
        order: Indices of the videos.
        num_workers: Loader processes; None: one per available core, at most 8.
        processes: Processes of this machine that have such a loader.
    """
    workers = min(default_workers(num_workers), len(order))
    options = _view_options(workers, VIEW_TIMEOUT_S, dataset.video_bytes, processes)
    return DataLoader(dataset, sampler=order, batch_size=None, **options)


def class_ids(names: Sequence[str], class_names: Sequence[str] | None) -> frozenset[int]:
    """Return the ids of the classes in `augment.flip_except`.

    Raises:
        InputError: There is no such class, or the classes have no names.
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


def worker_options(
    workers: int, timeout_s: float, persistent: bool = False, prefetch: int = _PREFETCH
) -> dict[str, Any]:
    """Return `DataLoader` options for loader processes that keep crash records."""
    return {
        "num_workers": workers,
        "persistent_workers": persistent and workers > 0,
        "timeout": timeout_s if workers else 0,
        "pin_memory": torch.cuda.is_available(),
        "prefetch_factor": prefetch if workers else None,
        "worker_init_fn": functools.partial(start_record, record_folder()) if workers else None,
        # The loader draws its workers' seed from this generator, not from the global random state.
        "generator": torch.Generator(),
    }


def _view_options(workers: int, timeout_s: float, batch_bytes: int, loaders: int) -> dict[str, Any]:
    workers, prefetch = fitting_workers("views", workers, _VIEW_PREFETCH, batch_bytes, loaders)
    # With batch_size None, DataLoader's own `collate_fn` would turn the arrays into tensors.
    return worker_options(workers, timeout_s, prefetch=prefetch) | {"collate_fn": _shared_views}


def _shared_clips(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    batch = collate_clips(samples)
    _share(*batch.values())
    return batch


def _shared_views(items: Any) -> Any:
    _share(*(item.views for item in (items if isinstance(items, list) else [items])))
    return items


def _share(*values: Any) -> None:
    """Move tensors to shared memory, in a loader process.

    The queue would do it in a thread, which loses the batch when the memory is full; here the error reaches the caller.
    """
    if get_worker_info() is not None:
        for value in values:
            if isinstance(value, Tensor):
                value.share_memory_()
