"""The dataclasses every YAML file and command line is parsed into. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from dnl_video.errors import InputError
from dnl_video.spec import ModelSpec, Preprocessing


def _at_least(section: str, least: float, values: object, *names: str) -> None:
    for name in names:
        value = getattr(values, name)
        if value is not None and value < least:
            raise InputError(f"{section}{name} is {value}; give at least {least:g}")


Decoder = Literal["decord", "av", "auto"]
FrameOrder = Literal["natural", "reversed", "shuffled", "repeated"]
Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


def check_decoder(section: str, decoder: str) -> None:
    """Refuse an unknown decoder.

    Raises:
        InputError: It is none of decord, av, auto.
    """
    if decoder not in get_args(Decoder):
        raise InputError(f"{section}decoder is {decoder!r}; allowed: {', '.join(get_args(Decoder))}")


@dataclass
class DataConfig:
    """Which videos, and how they are loaded.

    Args:
        train_manifest: Kinetics CSV, `path label` list or class folder to train on.
        val_manifest: The same for validation.
        train_root: Folder that relative paths and ids of train_manifest are looked up in; null is the manifest's own.
        val_root: The same for val_manifest.
        class_list: File with one class name a line, in the order of the outputs, or kinetics400, kinetics600 or
            kinetics700; null takes the training manifest's class names in alphabetical order.
        batch_size: Clips per process and step (with augment.repeats, of so many fewer videos).
        num_workers: Loader processes per training process; null picks the cores available, 8 at most.
        limit_videos: Use only this many videos of each manifest, evenly spaced (for dry runs).
        max_failed_share: Stop when more than this share of the training videos cannot be decoded or are missing.
        timeout_s: Seconds after which a loader that gives nothing is an error.
        decoder: What reads the videos; every frame is the right one with each. decord: decord where it is exact, else
            PyAV; av: PyAV; auto: the faster of those that are exact.
    """

    train_manifest: str = ""
    val_manifest: str = ""
    train_root: str | None = None
    val_root: str | None = None
    class_list: str | None = None
    batch_size: int = 8
    num_workers: int | None = None
    limit_videos: int | None = None
    max_failed_share: float = 0.02
    timeout_s: float = 300.0
    decoder: Decoder = "decord"

    def __post_init__(self) -> None:
        check_decoder("data.", self.decoder)
        _at_least("data.", 1, self, "batch_size", "limit_videos", "timeout_s")
        _at_least("data.", 0, self, "num_workers")
        if not 0 <= self.max_failed_share <= 1:
            raise InputError(f"data.max_failed_share is {self.max_failed_share}; give a share in [0, 1]")


@dataclass
class AugmentConfig:
    """Random views of training clips; the same for every frame of a clip. Defaults beyond crop and flip are off.

    Args:
        short_side: Range in pixels from which the short side is drawn, both ends included.
        crop_size: Side in pixels of the random square crop.
        flip: Probability of a horizontal flip. Set it to 0 where mirroring changes every label.
        flip_except: Classes that are never mirrored, by name.
        crop_area: Range of the crop's share of the frame's area; replaces short_side. Null uses short_side.
        crop_aspect: Range of the crop's width to height under crop_area.
        randaugment_ops: RandAugment: operations a clip; 0 for none.
        randaugment_magnitude: RandAugment: strength of all operations, 0 to 30.
        color_jitter: Largest changes of brightness, contrast, saturation (shares) and hue (of the circle, up to 0.5).
        erasing: Probability that a box, the same in all frames, is filled with the mean colour.
        erasing_area: Range of the box's share of the crop.
        mixup: Alpha of mixup's Beta distribution; 0 for none.
        cutmix: Alpha of CutMix's Beta distribution; 0 for none. With mixup, a batch gets either, half the time each.
        mix_prob: Probability that a batch is mixed.
        repeats: Clips that one decoding of a video gives (repeated augmentation). data.batch_size counts clips, and an
            epoch shows every video this many times.
    """

    short_side: tuple[int, int] = (256, 320)
    crop_size: int = 224
    flip: float = 0.5
    flip_except: tuple[str, ...] = ()
    crop_area: tuple[float, float] | None = None
    crop_aspect: tuple[float, float] = (0.75, 1.3333)
    randaugment_ops: int = 0
    randaugment_magnitude: int = 9
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    erasing: float = 0.0
    erasing_area: tuple[float, float] = (0.02, 0.33)
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    repeats: int = 1

    def __post_init__(self) -> None:
        _at_least("augment.", 1, self, "crop_size", "repeats")
        _at_least("augment.", 0, self, "randaugment_ops", "mixup", "cutmix")
        low, high = self.short_side
        if not self.crop_size <= low <= high:
            raise InputError(
                f"augment.short_side is {list(self.short_side)} with crop_size {self.crop_size}; "
                "give [low, high] with crop_size <= low <= high"
            )
        for name in ("flip", "erasing", "mix_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augment.{name} is {getattr(self, name)}; give a probability in [0, 1]")
        for name in ("crop_area", "erasing_area"):
            area = getattr(self, name)
            if area is not None and not 0 < area[0] <= area[1] <= 1:
                raise InputError(f"augment.{name} is {list(area)}; give shares [low, high] with 0 < low <= high <= 1")
        if not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise InputError(f"augment.crop_aspect is {list(self.crop_aspect)}; give [low, high] with 0 < low <= high")
        if not 0 <= self.randaugment_magnitude <= 30:
            raise InputError(f"augment.randaugment_magnitude is {self.randaugment_magnitude}; give 0 to 30")
        if min(self.color_jitter) < 0 or self.color_jitter[3] > 0.5:
            raise InputError(
                f"augment.color_jitter is {list(self.color_jitter)}; give brightness, contrast and saturation of at "
                "least 0, and hue in [0, 0.5]"
            )


@dataclass
class OptimConfig:
    """Optimiser and schedule.

    Args:
        lr: Learning rate for `lr_batch` clips a step; the rate used is lr * (all clips of a step) / lr_batch.
        lr_batch: Clips a step that `lr` is stated for; null uses `lr` as it is.
        optimizer: sgd (Nesterov momentum) or adamw.
        momentum: Momentum of sgd.
        weight_decay: Weight decay.
        norm_weight_decay: Weight decay of normalisation layers.
        bias_weight_decay: Weight decay of biases; null is weight_decay, as in PySlowFast.
        query_key_weight_decay: Weight decay of the context blocks' queries and keys; null is weight_decay. The DNL
            authors' segmentation recipe without scale takes 0.
        context_lr_factor: Factor on the learning rate of the context blocks, for those that are new in a trained
            network.
        frozen_stages: Parts that keep their weights and statistics, from the input on: 1 the stem, 2 also res2, ... 5.
        freeze_batch_norm: Batch norms of the backbone keep their statistics, scale and shift; those of the context
            blocks learn.
        schedule: cosine (to 0) or step, updated every step.
        milestones: Epochs at which step multiplies the rate by gamma.
        gamma: Factor at a milestone.
        warmup_epochs: Epochs of linear warm-up (a fraction is allowed).
        warmup_start_lr: Rate for `lr_batch` clips at which warm-up starts.
        label_smoothing: Label smoothing of the cross entropy.
        precise_bn_batches: Training batches for precise batch-norm statistics before each validation; 0 for none.
        ema_decay: Share that each step leaves of the weights' moving average, with which validation runs and which
            checkpoints give to evaluation; null for none.
    """

    lr: float = 0.1
    lr_batch: int | None = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    norm_weight_decay: float = 0.0
    bias_weight_decay: float | None = None
    query_key_weight_decay: float | None = None
    context_lr_factor: float = 1.0
    frozen_stages: int = 0
    freeze_batch_norm: bool = False
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    warmup_epochs: float = 34.0
    warmup_start_lr: float = 0.01
    label_smoothing: float = 0.0
    precise_bn_batches: int = 200
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise InputError(f"optim.lr is {self.lr}; give a number above 0")
        _at_least("optim.", 1, self, "lr_batch")
        names = (
            "momentum",
            "weight_decay",
            "norm_weight_decay",
            "bias_weight_decay",
            "query_key_weight_decay",
            "context_lr_factor",
            "frozen_stages",
            "warmup_epochs",
            "warmup_start_lr",
            "precise_bn_batches",
        )
        _at_least("optim.", 0, self, *names)
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise InputError(f"optim.ema_decay is {self.ema_decay}; give a number in [0, 1), for example 0.999")
        for name in ("momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"optim.{name} is {getattr(self, name)}; give a number in [0, 1)")
        if self.frozen_stages > 5:
            raise InputError(f"optim.frozen_stages is {self.frozen_stages}; give 0 to 5 (the stem, res2, ... res5)")
        if self.schedule == "step" and not self.milestones:
            raise InputError("optim.schedule is step without optim.milestones; give the epochs, for example [44, 88]")


@dataclass
class TrainerConfig:
    """The options of Lightning's Trainer that this package supports.

    Args:
        max_epochs: Epochs to train.
        accelerator: auto, cpu, cuda or mps; gpu, Lightning's word, is either of the last two.
        devices: Devices per node; auto is one for each process that torchrun or srun started here, alone all there are.
        num_nodes: Nodes; with devices auto, torchrun's or srun's.
        precision: 32-true, bf16-mixed or 16-mixed.
        accumulate_grad_batches: Batches per optimiser step.
        gradient_clip_val: Largest gradient norm; null for no clipping.
        sync_batchnorm: Share batch-norm statistics between processes.
        channels_last: Lay weights out as torch.channels_last_3d, which suits tensor cores.
        compile: Run the network through torch.compile: slower to start, faster afterwards on a GPU.
        activation_checkpointing: Recompute each residual and context block in the backward pass instead of storing
            what it needs: less memory for about a third more computation.
        check_val_every_n_epoch: Epochs between validations.
        save_every_n_steps: Steps between saved last checkpoints; null saves only before each validation and at the end
            of each epoch.
        log_every_n_steps: Steps between logged training values.
        progress_bar: Show the progress bar.
        wandb_project: Also log to this Weights & Biases project (needs wandb installed).
    """

    max_epochs: int = 196
    accelerator: Literal["auto", "cpu", "cuda", "mps", "gpu"] = "auto"
    devices: int | Literal["auto"] = "auto"
    num_nodes: int = 1
    precision: Precision = "32-true"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    sync_batchnorm: bool = False
    channels_last: bool = False
    compile: bool = False
    activation_checkpointing: bool = False
    check_val_every_n_epoch: int = 1
    save_every_n_steps: int | None = None
    log_every_n_steps: int = 10
    progress_bar: bool = True
    wandb_project: str | None = None

    def __post_init__(self) -> None:
        names = ("max_epochs", "num_nodes", "accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps")
        _at_least("trainer.", 1, self, *names, "save_every_n_steps")
        _at_least("trainer.", 0, self, "gradient_clip_val")
        if self.devices != "auto":
            _at_least("trainer.", 1, self, "devices")


@dataclass
class ViewsConfig:
    """Views per video.

    Args:
        num_clips: Clips along time.
        num_crops: Crops per clip: 1 (centre) or 3 (left, centre, right; or top, middle, bottom).
        views_per_forward: Views per forward pass of the network.
    """

    num_clips: int = 1
    num_crops: Literal[1, 3] = 1
    views_per_forward: int = 10

    def __post_init__(self) -> None:
        _at_least("", 1, self, "num_clips", "views_per_forward")
        if self.num_crops not in (1, 3):
            raise InputError(f"num_crops is {self.num_crops}; allowed: 1 (centre), 3 (left, centre, right)")


@dataclass
class EvaluationConfig(ViewsConfig):
    """Views per video, and how they are scored.

    Args:
        device: auto, cpu, cuda (or cuda:N) or mps.
        precision: Floating-point precision of the network.
        num_workers: Decoding processes. null: one per available core, at most 8.
        clip_scores: Store the scores of every clip, not only of every video.
        frame_order: Order of the frames within a clip. reversed, shuffled and repeated (the middle frame in every
            position) test what the network knows about motion.
        decoder: Video reader. decord: decord where it is exact, PyAV elsewhere. av: PyAV. auto: the faster of the exact
            ones.
    """

    num_clips: int = 10
    num_crops: Literal[1, 3] = 3
    device: str = "auto"
    precision: Precision = "32-true"
    num_workers: int | None = None
    clip_scores: bool = True
    frame_order: FrameOrder = "natural"
    decoder: Decoder = "decord"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_decoder("", self.decoder)
        _at_least("", 0, self, "num_workers")


@dataclass
class WeightsConfig:
    """What training starts from.

    Args:
        source: Weights to start from: a file of any known origin, the folder of a run, or a published name such as
            kinetics400; null starts from random ones. A resumed run does not load them again.
        allow_missing: Tensors or modules of the network (or patterns with *) that may stay as they are where the source
            lacks them; the classifier and new context blocks always may.
        drop_blocks: Leave context blocks of the source for which the network has no place.
    """

    source: str | None = None
    allow_missing: tuple[str, ...] = ()
    drop_blocks: bool = False


@dataclass
class TrainConfig:
    """A whole training run.

    Args:
        output_dir: Folder of the run: checkpoints, logs, resolved config, reports.
        seed: Seed of initial weights, order, sampling and augmentation.
        model: The network.
        weights: What training starts from.
        preprocessing: How frames become clips.
        data: Which videos.
        augment: Random views of training clips.
        optim: Optimiser and schedule.
        trainer: Devices, precision, epochs.
        validation: Views per video of the validation during training.
        evaluation: Views per video of the evaluation after training (--final-test).
    """

    output_dir: str = "runs/train"
    seed: int = 0
    model: ModelSpec = field(default_factory=ModelSpec)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    validation: ViewsConfig = field(default_factory=ViewsConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        _at_least("", 0, self, "seed")
