"""What a run is made of beside its network: images, steps, losses, scores."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from derain.config.section import LocalFolder, LocalPath, NameOrPath, Prepared, Section, Seed

Share = Annotated[float, Field(ge=0, lt=1)]


class SyntheticConfig(Section):
    """Rain rendered on photographs, for runs that have no dataset."""

    train_pairs: int = Field(gt=0)
    eval_pairs: int = Field(gt=0)
    density: Literal["light", "moderate", "heavy", "mixed"] = "mixed"
    seed: Seed = 0
    size_px: int = Field(256, ge=32)
    """Side of the square images."""
    clean: LocalFolder | None = None
    """Folder of clean photographs; null takes the bundled ones."""


class DataConfig(Section):
    """Which prepared datasets are trained on and evaluated on."""

    train: Prepared = ()
    """Prepared datasets, one path or several."""
    mix: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Weight of each training dataset in an epoch; null takes every sample once. An epoch stays as
    long as the datasets together; each goes round through its samples at its own pace."""
    shuffle: bool = True
    """False keeps the order of the prepared datasets, to look at a run image by image."""
    stratify: str | None = None
    """A label of the samples, such as `density`: every batch gets its share of each value."""
    augment: Literal["none", "flip", "dihedral"] = "dihedral"
    """Mirror left and right, or all 8 symmetries of the square; rain that falls sideways is hard
    to learn in few steps, so short runs take `flip`."""
    seed: Seed | None = None
    """Of the order, the crops and the flips; null takes the run's `seed`. With one of their own,
    runs of several seeds see the same batches, and can train in one cohort."""
    eval: Prepared = ()
    """Prepared datasets that are held out, one path or several."""
    synthetic: SyntheticConfig | None = None
    """Made and prepared where `train` and `eval` name nothing."""
    cache_dir: LocalFolder | None = None
    """Decoded pixels live here; null takes DERAIN_CACHE_DIR, else the user's cache folder."""
    cache_gib: float = Field(50.0, ge=0)
    """Budget of the cache folder; 0 decodes from the tars every time."""
    loader_processes: int = Field(0, ge=0)
    """Processes a worker that cut batches ahead of the step; 0 cuts between the steps. The batches
    are the same. Worth it on a GPU, and where the images are not in the cache."""

    @model_validator(mode="after")
    def _mix_fits(self) -> "DataConfig":
        if self.mix is not None and len(self.mix) != len(self.train):
            raise ValueError(f"mix has {len(self.mix)} weights for {len(self.train)} datasets")
        if bool(self.train) != bool(self.eval):
            missing = "eval" if self.train else "train"
            raise ValueError(f"data.{missing} is missing: give data.train and data.eval together")
        return self


class Stage(Section):
    """Crops and batches from a step on."""

    from_step: int = Field(ge=0)
    crop_px: int = Field(ge=16)
    batch_size: int = Field(gt=0)
    """Pairs a step, over all workers together."""


class TrainConfig(Section):
    """The optimisation of one run."""

    start_from: LocalPath | None = None
    """Checkpoint folder whose trained weights a new run begins with (the average where it keeps
    one); all experts of a CLIP-RPN begin with those of `routing: single`."""
    steps: int = Field(gt=0)
    batch_size: int = Field(16, gt=0)
    """Pairs a step, over all workers together."""
    crop_px: int = Field(128, ge=16)
    progressive: tuple[Stage, ...] = ()
    """Later steps with other crops and batches, in order, as in Restormer's recipe."""
    lr: float = Field(3e-4, gt=0)
    lr_min: float = Field(1e-6, ge=0)
    """Where the cosine ends."""
    warmup_steps: int = Field(0, ge=0)
    constant_share: float = Field(0.0, ge=0, lt=1)
    """Share of `steps` after which the cosine begins; from the warm-up to there the rate is lr."""
    weight_decay: float = Field(1e-4, ge=0)
    betas: tuple[Share, Share] = (0.9, 0.999)
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of the whole gradient."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Null keeps no moving average; otherwise the average is what is evaluated."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA where there is one; `cuda` fails where there is none."""
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    """Keep feature maps as NHWC in memory: faster convolutions on CPU and GPU."""
    num_workers: (
        Annotated[int, Field(gt=0)]
        | tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
    ) = 1
    """Processes that train together, each on one device; [min, max] takes as many as there is room
    for, and goes on with fewer or more when machines go or come."""
    max_failures: int = Field(3, ge=0)
    """How often workers that died are replaced; the run goes on from its newest checkpoint."""
    hang_timeout_s: float = Field(1800.0, gt=0)
    """A worker that makes no step for so long is ended as dead, its stack in the run's folder. A
    validation and the first step, with torch.compile's minutes, have to fit in."""
    cpu_threads: int | None = Field(None, gt=0)
    """Threads of torch in a worker; null shares the cores among the workers."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """Several workers hold the whole network each, or share its weights and optimiser state."""
    compile: bool = False
    """torch.compile: minutes once, and not faster on every device (docs/benchmarks.md); the figures
    differ in the last digits."""
    micro_batch_size: int | Literal["auto"] | None = None
    """Crops at once in a worker, whose gradients add up to the batch's; `auto` takes the most that
    fit in memory, null the whole batch."""
    log_every_steps: int = Field(20, gt=0)
    eval_every_steps: int | None = Field(None, gt=0)
    """Score on data.eval so often; null scores at the end only."""
    patience_evals: int | None = Field(None, gt=0)
    """End after so many evaluations without a better PSNR-Y; null never ends early."""
    use_checkpoint: Literal["last", "best"] = "last"
    """What the run gives away: its last checkpoint, or the best in PSNR-Y on data.eval."""
    checkpoint_every_steps: int = Field(1000, gt=0)
    keep_checkpoints: int = Field(2, gt=0)
    """The newest so many; the best one is kept besides."""
    upload_to: LocalPath | None = None
    """Checkpoints are copied there while training goes on: a folder, s3:// or gs://."""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """A loss that is not finite or leaps: stop, or go on from the last checkpoint with half the
    learning rate."""
    max_rollbacks: int = Field(3, ge=0)
    spike_factor: float | None = Field(None, gt=1)
    """A loss leaps when it exceeds so many times its recent average; null looks at NaN only."""
    ledger: bool = False
    """Write the sample ids of every step to ledger.jsonl."""

    @field_validator("micro_batch_size")
    @classmethod
    def _whole_crops(cls, given: int | str | None) -> int | str | None:
        if isinstance(given, int) and given < 1:
            raise ValueError(f"expected 1 or more, auto or null, found {given}")
        return given

    @model_validator(mode="after")
    def _batch_fits(self) -> "TrainConfig":
        smallest = min(stage.batch_size for stage in self.stages)
        if self.min_workers > self.max_workers:
            raise ValueError(f"num_workers goes from min to max, found {list(self._workers)}")
        if smallest < self.max_workers:
            raise ValueError(f"batch_size {smallest} is less than num_workers {self.max_workers}")
        return self

    @property
    def _workers(self) -> tuple[int, int]:
        if isinstance(self.num_workers, int):
            return self.num_workers, self.num_workers
        return self.num_workers

    @property
    def min_workers(self) -> int:
        """The fewest workers that it trains with."""
        return self._workers[0]

    @property
    def max_workers(self) -> int:
        """The most workers that it trains with."""
        return self._workers[1]

    @model_validator(mode="after")
    def _stages_follow(self) -> "TrainConfig":
        begins = [stage.from_step for stage in self.stages]
        if begins != sorted(set(begins)) or begins[-1] >= self.steps:
            raise ValueError(
                f"progressive: the stages begin at steps {begins[1:]}; each has to begin after the "
                f"one before it and before the end, step {self.steps}"
            )
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages in order; the first has the plain keys and begins at step 0."""
        first = Stage(from_step=0, crop_px=self.crop_px, batch_size=self.batch_size)
        return first, *self.progressive

    @model_validator(mode="after")
    def _parts_fit(self) -> "TrainConfig":
        if self.micro_batch_size == "auto" and self.parallel == "fsdp2":
            raise ValueError("micro_batch_size: auto goes with parallel: ddp; give a number")
        if self.eval_every_steps is None and self.patience_evals is not None:
            raise ValueError("patience_evals needs eval_every_steps")
        if self.eval_every_steps is None and self.use_checkpoint == "best":
            raise ValueError("use_checkpoint: best needs eval_every_steps")
        return self


class ScheduleConfig(Section):
    """Options of `derain.models.losses.schedules.Schedule`, which `loss.pixel: power` follows."""

    kind: Literal[
        "constant", "power_anneal", "power_anneal_rev", "convex_mix", "progress_adaptive"
    ] = "power_anneal"
    start: float = Field(2.0, gt=0)
    """Exponent of the error when training begins."""
    end: float = Field(1.0, gt=0)
    """Exponent of the error when training ends."""
    normalize: bool = False
    """Make an error of `reference_error` pull alike whatever the exponent, for `clip_norm`."""
    reference_error: float = Field(0.05, gt=0)
    """Difference of two pixel values, of 1."""
    eps: float = Field(1e-3, gt=0)


class LossConfig(Section):
    """L = pixel loss + lambda_p * perceptual loss (FCLIP-UNet) + lambda_c * contrastive (RDMC)."""

    pixel: Literal["l1", "mse", "charbonnier", "charbonnier_edge", "ssim", "mse_ssim", "power"] = (
        "l1"
    )
    """`ssim` is 1 - SSIM, `mse_ssim` 0.1 MSE + 1 - SSIM, `charbonnier_edge` MPRNet's."""
    schedule: ScheduleConfig | None = None
    """For `pixel: power`, and only for it."""
    lambda_p: float = Field(1.0, ge=0)
    perceptual: Literal["none", "vgg16", "vgg19", "encoder"] = "vgg19"
    """Whose features: ImageNet VGG, or the frozen encoder of the network itself."""
    perceptual_weights: NameOrPath | None = None
    """VGG, of both terms: null takes torchvision's download; otherwise a local file, or `random`
    (tests)."""
    lambda_c: float = Field(0.1, ge=0)
    contrastive: Literal["none", "vgg16", "vgg19", "encoder"] = "none"
    """Whose features the contrastive prior compares clean, restored and rainy images in."""
    contrastive_weights: tuple[float, ...] = Field(
        (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0), min_length=1, max_length=5
    )
    """One a layer: relu1_1, relu2_1, ... of VGG, F1, F2, ... of the encoder."""
    contrastive_ratio: Literal["per_layer", "of_sums"] = "per_layer"
    contrastive_floor: float = Field(0.1, ge=0)
    """Least distance to the rainy image, as a share of that between clean and rainy."""

    @model_validator(mode="after")
    def _schedule_fits(self) -> "LossConfig":
        if (self.pixel == "power") != (self.schedule is not None):
            raise ValueError("schedule goes with pixel: power, and pixel: power needs one")
        return self

    @model_validator(mode="after")
    def _features_fit(self) -> "LossConfig":
        both = {self.perceptual if self.lambda_p else "none"}
        both |= {self.contrastive if self.lambda_c else "none"}
        if len(both - {"none"}) > 1:
            raise ValueError("perceptual and contrastive take the same network; name it twice")
        return self


class EvalConfig(Section):
    """How images are scored."""

    protocol: Literal["rain13k", "five_set", "prenet"] = "rain13k"
