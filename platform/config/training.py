"""The section `train`: the optimisation of one run."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from derain.config.section import Choice, LocalPath, Section

Share = Annotated[float, Field(ge=0, lt=1)]


class Stage(Section):
    """Size of crops and batches from a step on."""

    from_step: int = Field(ge=0)
    """The first step of the stage."""
    crop_px: int = Field(ge=16)
    """Side of the square crops, in pixels."""
    batch_size: int = Field(gt=0)
    """Pairs per step, over all workers together."""


class Optimizer(Choice):
    """The optimiser by its name in torch.optim, in lower case, or `module:Name`."""

    known = ("adamw", "adam", "sgd", "nadam", "radam", "lion", "muon")
    known_have_options = True


class LrSchedule(Choice):
    """The learning rate after the warm-up."""

    known = ("cosine",)


class TrainConfig(Section):
    """The optimisation of one run."""

    start_from: LocalPath | None = None
    """Checkpoint folder whose trained weights a new run starts with (the moving average if it has
    one); every expert of a CLIP-RPN can start with the one of `routing: single`."""
    steps: int = Field(gt=0)
    """Number of optimisation steps."""
    batch_size: int = Field(16, gt=0)
    """Pairs per step, over all workers together."""
    crop_px: int = Field(128, ge=16)
    """Side of the square crops, in pixels; a multiple of the network's stride."""
    progressive: tuple[Stage, ...] = ()
    """Stages with other crops and batches in later steps, in order, as in Restormer's recipe."""
    optimizer: Optimizer = Optimizer(name="adamw")
    """An optimiser of torch, as far as the installed one has it, or `module:Name`, a class of your
    own. Its options are beside its name: {name: sgd, momentum: 0.9}; it gets `lr`, and
    `weight_decay` and `betas` if it has them."""
    lr: float = Field(3e-4, gt=0)
    """Learning rate after the warm-up. Default: Restormer's."""
    lr_schedule: LrSchedule = LrSchedule(name="cosine")
    """The learning rate after the warm-up: a cosine from `lr` to `lr_min`, or `module:Name`, a
    class of your own; see docs/guides/plugins.md."""
    lr_min: float = Field(1e-6, ge=0)
    """Learning rate at the end of the cosine. Default: Restormer's."""
    warmup_steps: int = Field(0, ge=0)
    """Steps in which the learning rate grows linearly to `lr`."""
    constant_share: float = Field(0.0, ge=0, lt=1)
    """Share of `steps` at which the cosine starts; from the warm-up to there the rate is `lr`."""
    weight_decay: float = Field(1e-4, ge=0)
    """The optimiser's weight decay, if it has one. Default: Restormer's."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """The optimiser's betas, if it has some. Default: Restormer's."""
    clip_norm: float | None = Field(None, gt=0)
    """Maximum norm of the whole gradient; null: no clipping."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Decay per step of a moving average of the weights, which is then evaluated; null: no
    average."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` uses CUDA if available; `cuda` fails without it."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` runs the forward pass under bfloat16 autocast; the weights stay float32."""
    deterministic: bool = False
    """On CUDA, use only operations that give the same bits every time; slower. On a CPU runs are
    the same to the bit anyway."""
    channels_last: bool = True
    """Keep feature maps as NHWC in memory: faster convolutions on CPU and GPU."""
    num_workers: (
        Annotated[int, Field(gt=0)]
        | tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
    ) = 1
    """Processes that train together, each on one device. [min, max] starts as many as the cluster
    has room for, and continues with fewer or more as machines leave or join."""
    max_failures: int = Field(3, ge=0)
    """How many times dead workers are replaced; the run then continues from its newest
    checkpoint."""
    hang_timeout_s: float = Field(1800.0, gt=0)
    """A worker that completes no step within this time, in seconds, is killed, and its stack is
    written to the run's folder. A validation and the first step, with the minutes that
    torch.compile takes, must fit in."""
    cpu_threads: int | None = Field(None, gt=0)
    """Threads of torch per worker; null: the cores are shared equally among the workers."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """Each worker holds the whole network, or the workers share its weights and optimiser state."""
    compile: bool = False
    """Use torch.compile: it takes minutes once, is not faster on every device
    (docs/measurements/benchmarks.md), and results differ in the last digits."""
    micro_batch_size: int | Literal["auto"] | None = None
    """Crops that a worker processes at a time; the gradients add up to those of the batch. `auto`:
    as many as fit in memory. Null: the whole batch."""
    log_every_steps: int = Field(20, gt=0)
    """Steps between two records of the training metrics."""
    eval_every_steps: int | None = Field(None, gt=0)
    """Steps between two evaluations on the validation images; null: only at the end."""
    patience_evals: int | None = Field(None, gt=0)
    """Stop after this many evaluations without a better PSNR-Y; null: never stop early."""
    use_checkpoint: Literal["last", "best"] = "last"
    """The checkpoint that becomes the run's result: the last one, or the one with the best PSNR-Y
    on the validation images."""
    checkpoint_every_steps: int = Field(1000, gt=0)
    """Steps between two checkpoints."""
    keep_checkpoints: int = Field(2, gt=0)
    """How many of the newest checkpoints are kept; the best one is kept in addition."""
    upload_to: LocalPath | None = None
    """Where checkpoints are copied during training: a folder, s3:// or gs://; null: nowhere."""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """If the loss is not finite or spikes: stop, or continue from the last checkpoint with half
    the learning rate."""
    max_rollbacks: int = Field(3, ge=0)
    """How many times a run may roll back before it stops."""
    spike_factor: float | None = Field(None, gt=1)
    """A loss spikes if it exceeds its recent average by this factor; null: only NaN and infinity
    count."""
    ledger: bool = False
    """Write the sample ids of every step to ledger.jsonl."""

    @field_validator("micro_batch_size")
    @classmethod
    def _positive_micro_batch(cls, size: int | str | None) -> int | str | None:
        if isinstance(size, int) and size < 1:
            raise ValueError(f"expected 1 or more, auto or null, found {size}")
        return size

    @model_validator(mode="after")
    def _batch_covers_workers(self) -> "TrainConfig":
        smallest = min(stage.batch_size for stage in self.stages)
        if self.min_workers > self.max_workers:
            raise ValueError(f"num_workers: expected min <= max, found {list(self._workers)}")
        if smallest < self.max_workers:
            raise ValueError(
                f"batch_size {smallest} is less than num_workers {self.max_workers}; every worker "
                "needs a pair per step"
            )
        return self

    @property
    def _workers(self) -> tuple[int, int]:
        if isinstance(self.num_workers, int):
            return self.num_workers, self.num_workers
        return self.num_workers

    @property
    def min_workers(self) -> int:
        """The smallest number of workers that the run trains with."""
        return self._workers[0]

    @property
    def max_workers(self) -> int:
        """The largest number of workers that the run trains with."""
        return self._workers[1]

    @model_validator(mode="after")
    def _stages_in_order(self) -> "TrainConfig":
        starts = [stage.from_step for stage in self.stages]
        if starts != sorted(set(starts)) or starts[-1] >= self.steps:
            raise ValueError(
                f"progressive: the stages start at steps {starts[1:]}; each must start after the "
                f"previous one and before the end, step {self.steps}"
            )
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages in order; the first one starts at step 0 with the values of this section."""
        first = Stage(from_step=0, crop_px=self.crop_px, batch_size=self.batch_size)
        return first, *self.progressive

    @model_validator(mode="after")
    def _options_compatible(self) -> "TrainConfig":
        if self.micro_batch_size == "auto" and self.parallel == "fsdp2":
            raise ValueError("micro_batch_size: auto needs parallel: ddp; give a number with fsdp2")
        if self.eval_every_steps is None and self.patience_evals is not None:
            raise ValueError("patience_evals needs eval_every_steps")
        if self.eval_every_steps is None and self.use_checkpoint == "best":
            raise ValueError("use_checkpoint: best needs eval_every_steps")
        return self
