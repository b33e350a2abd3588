"""The dataclasses into which every YAML file and command line is parsed. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from dnl_video.errors import InputError
from dnl_video.spec import ModelSpec, Preprocessing, check_fields

Decoder = Literal["decord", "av", "auto"]
FrameOrder = Literal["natural", "reversed", "shuffled", "repeated"]
Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


@dataclass
class DataConfig:
    """The videos, and how they are loaded.

    Args:
        train_manifest: Training videos: Kinetics CSV, `path label` list or class folder.
        val_manifest: Validation videos: Kinetics CSV, `path label` list or class folder. null: no validation; the last
            checkpoint is the result.
        train_root: Folder for relative paths and ids in train_manifest. null: the folder of the manifest.
        val_root: Folder for relative paths and ids in val_manifest. null: the folder of the manifest.
        class_list: Class names in the order of the outputs: a file with one name per line, or kinetics400, kinetics600
            or kinetics700. null: the names in the training manifest, in alphabetical order.
        batch_size: Clips per process and step (batch_size / augment.repeats videos).
        num_workers: Loader processes per training process. null: one per available core, at most 8.
        limit_videos: Use only this many videos of each manifest, evenly spaced (for dry runs).
        max_failed_share: Stop if more than this share of the training videos is missing or cannot be decoded.
        timeout_s: Stop if a loader gives no batch for this many seconds.
        decoder: Video reader. decord: decord if it reads the file exactly, otherwise PyAV. av: PyAV. auto: the fastest
            exact one.
        balance: For classes of unequal size. weights: the training loss of a class is weighted by its inverse frequency
            (mean 1 over the training videos). sampler: an epoch draws every class equally often.
    """

    train_manifest: str = ""
    val_manifest: str | None = ""
    train_root: str | None = None
    val_root: str | None = None
    class_list: str | None = None
    batch_size: int = 8
    num_workers: int | None = None
    limit_videos: int | None = None
    max_failed_share: float = 0.02
    timeout_s: float = 300.0
    decoder: Decoder = "decord"
    balance: Literal["none", "weights", "sampler"] = "none"

    RANGES: ClassVar[dict[str, str]] = {
        "[1, 4096]": "batch_size",
        "[0, 512]": "num_workers",
        "[1, 100000000]": "limit_videos",
        "[0, 1]": "max_failed_share",
        "[1, 1000000]": "timeout_s",
    }

    def __post_init__(self) -> None:
        check_fields(self, "data.")


@dataclass
class AugmentConfig:
    """Augmentation of training clips, the same for every frame of a clip. By default only crop and flip are on.

    Args:
        short_side: Range in pixels from which the short side is drawn, both ends included.
        crop_size: Side in pixels of the random square crop.
        flip: Probability of a horizontal flip. Set it to 0 if mirroring changes every label.
        flip_except: Names of classes that are never flipped.
        crop_area: Range of the crop's share of the frame area; replaces short_side. null: use short_side.
        crop_aspect: Range of the crop's width / height for crop_area.
        randaugment_ops: RandAugment: operations per clip. 0: off.
        randaugment_magnitude: RandAugment: magnitude of all operations, 0 to 30.
        color_jitter: Largest changes of brightness, contrast, saturation (shares) and hue (share of the circle, at most
            0.5).
        erasing: Probability of random erasing: one box in all frames is filled with the mean colour.
        erasing_area: Range of the erased share of the crop.
        mixup: Alpha of mixup's Beta distribution. 0: off.
        cutmix: Alpha of CutMix's Beta distribution. 0: off. With mixup, each batch gets one of the two at random.
        mix_prob: Probability that a batch is mixed.
        repeats: Clips per decoded video (repeated augmentation). data.batch_size counts clips, and an epoch uses every
            video this many times.
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

    RANGES: ClassVar[dict[str, str]] = {
        "[1, 4096]": "short_side crop_size",
        "[0, 1]": "flip erasing mix_prob",
        "[0.001, 1]": "crop_area erasing_area",
        "[0.1, 10]": "crop_aspect",
        "[0, 20]": "randaugment_ops",
        "[0, 30]": "randaugment_magnitude",
        "[0, 10]": "color_jitter",
        "0 or [0.001, 1000]": "mixup cutmix",
        "[1, 64]": "repeats",
    }

    def __post_init__(self) -> None:
        check_fields(self, "augment.")
        low, high = self.short_side
        if not self.crop_size <= low <= high:
            raise InputError(
                f"augment.short_side is {list(self.short_side)} with crop_size {self.crop_size}; "
                "give [low, high] with crop_size <= low <= high"
            )
        for name in ("crop_area", "crop_aspect", "erasing_area"):
            pair = getattr(self, name)
            if pair is not None and pair[0] > pair[1]:
                raise InputError(f"augment.{name} is {list(pair)}; give [low, high] with low <= high")
        if self.color_jitter[3] > 0.5:
            raise InputError(f"augment.color_jitter is {list(self.color_jitter)}; give a hue (the last) in [0, 0.5]")


@dataclass
class OptimConfig:
    """Optimiser and learning-rate schedule.

    Args:
        lr: Learning rate for `lr_batch` clips per step. The rate used is lr * (clips per step of all processes) /
            lr_batch.
        lr_batch: Clips per step to which `lr` refers. null: use `lr` unchanged.
        optimizer: sgd (Nesterov momentum) or adamw.
        momentum: Momentum of sgd.
        weight_decay: Weight decay.
        norm_weight_decay: Weight decay of normalisation layers.
        bias_weight_decay: Weight decay of biases. null: weight_decay, as in PySlowFast.
        query_key_weight_decay: Weight decay of query and key convolutions in the context blocks. null: weight_decay.
            The DNL authors' segmentation recipe without scale uses 0.
        context_lr_factor: Learning-rate factor of the context blocks, for new blocks in a trained network.
        frozen_stages: Stages whose weights and statistics stay fixed, counted from the input: 1 the stem, 2 also res2,
            ... 5 also res5.
        freeze_batch_norm: Batch norms of the backbone keep their statistics, scale and shift; those of the context
            blocks are trained.
        schedule: cosine (to 0) or step, updated every step.
        milestones: Epochs at which the step schedule multiplies the rate by gamma.
        gamma: Factor at a milestone.
        warmup_epochs: Epochs of linear warm-up; fractions are allowed.
        warmup_start_lr: Learning rate for `lr_batch` clips at the start of the warm-up.
        label_smoothing: Label smoothing of the cross entropy.
        precise_bn_batches: Training batches for precise batch-norm statistics before each validation. 0: off.
        ema_decay: EMA decay; the EMA weights are used for validation and evaluation. null: off.
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

    RANGES: ClassVar[dict[str, str]] = {
        "[1e-12, 1000]": "lr",
        "[1, 1000000]": "lr_batch",
        "[0, 1)": "momentum label_smoothing ema_decay",
        "[0, 100]": "weight_decay norm_weight_decay bias_weight_decay query_key_weight_decay",
        "[0, 1000]": "context_lr_factor warmup_start_lr",
        "[0, 5]": "frozen_stages",
        "(0, 100000]": "milestones",
        "(0, 1]": "gamma",
        "[0, 100000]": "warmup_epochs precise_bn_batches",
    }

    def __post_init__(self) -> None:
        check_fields(self, "optim.")
        if self.schedule == "step" and not self.milestones:
            raise InputError("optim.schedule is step without optim.milestones; give the epochs, for example [44, 88]")


@dataclass
class TrainerConfig:
    """The supported options of Lightning's Trainer.

    Args:
        max_epochs: Epochs to train.
        accelerator: auto, cpu, cuda or mps. gpu (Lightning's word): cuda or mps.
        devices: Devices per node. auto: one per process that torchrun or srun started on this node; without a launcher,
            all devices.
        num_nodes: Nodes. With devices auto, torchrun or srun decides.
        precision: Floating-point precision: 32-true, bf16-mixed or 16-mixed.
        accumulate_grad_batches: Batches per optimiser step.
        gradient_clip_val: Largest gradient norm. null: no clipping.
        sync_batchnorm: Share batch-norm statistics between processes.
        channels_last: Store weights as torch.channels_last_3d, which suits tensor cores.
        compile: Run the network through torch.compile: slower to start, faster afterwards on a GPU.
        activation_checkpointing: Recompute each residual and context block in the backward pass: less memory for about
            a third more computation.
        check_val_every_n_epoch: Epochs between validations.
        patience: Validations without a better top-1 (of equal ones: a lower loss) before the run stops. null: never.
        save_every_n_steps: Steps between saves of the last checkpoint. null: save only before each validation and at
            the end of each epoch.
        log_every_n_steps: Steps between logged training values.
        progress_bar: Show the progress bar.
        wandb_project: Also log to this Weights & Biases project (needs wandb).
        mlflow_experiment: Also log to this MLflow experiment (needs mlflow), at MLFLOW_TRACKING_URI or in mlflow.db of
            the current folder.
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
    patience: int | None = None
    save_every_n_steps: int | None = None
    log_every_n_steps: int = 10
    progress_bar: bool = True
    wandb_project: str | None = None
    mlflow_experiment: str | None = None

    RANGES: ClassVar[dict[str, str]] = {
        "[1, 100000]": "max_epochs accumulate_grad_batches check_val_every_n_epoch patience",
        "[1, 1024]": "devices",
        "[1, 10000]": "num_nodes",
        "0 or [1e-6, 1000000]": "gradient_clip_val",
        "[1, 1000000]": "save_every_n_steps log_every_n_steps",
    }

    def __post_init__(self) -> None:
        check_fields(self, "trainer.")


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

    RANGES: ClassVar[dict[str, str]] = {"[1, 10000]": "num_clips views_per_forward"}

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass
class EvaluationConfig(ViewsConfig):
    """Views per video, and how they are scored.

    Args:
        device: auto, cpu, cuda (or cuda:N) or mps.
        precision: Floating-point precision of the network.
        num_workers: Decoding processes. null: one per available core, at most 8.
        clip_scores: Store the scores of every clip, not only of every video.
        frame_order: Order of the frames within a clip. reversed, shuffled and repeated (the middle frame in every
            position) test whether the network uses motion.
        decoder: Video reader. decord: decord if it reads the file exactly, otherwise PyAV. av: PyAV. auto: the fastest
            exact one.
    """

    num_clips: int = 10
    num_crops: Literal[1, 3] = 3
    device: str = "auto"
    precision: Precision = "32-true"
    num_workers: int | None = None
    clip_scores: bool = True
    frame_order: FrameOrder = "natural"
    decoder: Decoder = "decord"

    RANGES: ClassVar[dict[str, str]] = {**ViewsConfig.RANGES, "[0, 512]": "num_workers"}


@dataclass
class WeightsConfig:
    """Weights from which training starts.

    Args:
        source: A file of any supported origin, the folder of a run, or a published name such as kinetics400. null:
            random weights. A resumed run does not load them again.
        allow_missing: Tensors or modules of the network (or patterns with *) that keep their initial values if the
            source lacks them. Classifier and new context blocks are always allowed.
        drop_blocks: Ignore context blocks of the source that the network does not have.
    """

    source: str | None = None
    allow_missing: tuple[str, ...] = ()
    drop_blocks: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "weights.")


@dataclass
class TrainConfig:
    """A training run.

    Args:
        output_dir: Folder of the run: checkpoints, logs, the complete recipe, reports.
        seed: Seed of initial weights, sample order, frame sampling and augmentation.
        model: The network.
        weights: Weights from which training starts.
        preprocessing: From frames to clips.
        data: The videos.
        augment: Augmentation of training clips.
        optim: Optimiser and learning-rate schedule.
        trainer: Devices, precision, epochs.
        validation: Views per video in the validation during training.
        evaluation: Views per video in the evaluation after training (--final-test).
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

    RANGES: ClassVar[dict[str, str]] = {"[0, 4294967295]": "seed"}  # Lightning's limit

    def __post_init__(self) -> None:
        check_fields(self)
