"""The typed, frozen config objects, and the only place where YAML enters.

A config file is plain YAML: `extends:` names a file to start from, `profiles:` holds named
overrides and `profile:` the one that applies when the command line names none.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from derain.errors import ConfigError

Tree = dict[str, Any]
KeyPath = tuple[str, ...]


def _anchored(path: str) -> str:
    """A local path made absolute, since workers have another working directory."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _anchored_if_file(value: str) -> str:
    """The same for a value that is a path or a plain name."""
    return _anchored(value) if "/" in value or Path(value).suffix else value


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


LocalPath = Annotated[str, AfterValidator(_anchored)]
NameOrPath = Annotated[str, AfterValidator(_anchored_if_file)]
Prepared = Annotated[tuple[LocalPath, ...], BeforeValidator(_one_or_many)]


class Section(BaseModel):
    """A part of the config: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
    )


class FCLIPUNetConfig(Section):
    """Options of `derain.models.fclip_unet.FCLIPUNet`; its docstring says what each one does."""

    name: Literal["fclip_unet"] = "fclip_unet"
    encoder: Literal["clip_rn50", "clip_vit_b32", "clip_vit_b16", "imagenet_resnet50"] = "clip_rn50"
    """The encoders of Table 6."""
    encoder_weights: NameOrPath | None = None
    """Null takes the published ones (open_clip's `openai`, torchvision's `IMAGENET1K_V1`); else
    another tag, the path of a local file, or `random` (demos and tests)."""
    encoder_layers: tuple[int, ...] | None = None
    """Blocks of each stage of a ResNet, or one number for a ViT; null takes the published ones."""
    encoder_width: int | None = Field(None, gt=0)
    """Channels of the stem, or of a ViT's tokens; null takes the published ones."""
    encoder_bn_mode: Literal["frozen", "clip_denoising"] = "frozen"
    encoder_seed: int = 0
    """Only for `encoder_weights: random`."""
    decoder_widths: tuple[int, int, int, int, int] = (512, 256, 128, 64, 64)
    decoder_depths: tuple[int, int, int, int, int] = (3, 3, 3, 3, 3)
    up: Literal["updw", "bilinear"] = "updw"
    ldfps_sigma: tuple[float, float, float, float] | None = (0.01, 0.03, 0.06, 0.1)
    """Perturbation strength of the skips F1 to F4; null switches LDFPS off."""
    ldfps_kind: Literal["multiplicative", "additive", "statistics"] = "multiplicative"
    output: Literal["direct", "residual"] = "direct"
    layer_scale: float = Field(1e-6, ge=0)
    drop_path: float = Field(0.0, ge=0, lt=1)


class CLIPRPNConfig(Section):
    """Options of `derain.models.clip_rpn.CLIPRPN`; its docstring says what each one does."""

    name: Literal["clip_rpn"] = "clip_rpn"
    encoder_weights: NameOrPath = "openai"
    """An open_clip tag of ViT-B/32, the path of a local file, or `random` (demos and tests)."""
    encoder_dim: int = Field(512, gt=0)
    encoder_width: int = Field(768, gt=0)
    encoder_layers: int = Field(12, gt=0)
    encoder_text_width: int = Field(512, gt=0)
    encoder_text_layers: int = Field(12, gt=0)
    encoder_seed: int = 0
    """Only for `encoder_weights: random`."""
    prompts: tuple[str, ...] = Field(
        ("a photo with light rain", "a photo with moderate rain", "a photo with heavy rain"),
        min_length=1,
    )
    """One expert a prompt."""
    similarity: Literal["cosine", "dot"] = "cosine"
    temperature: float = Field(100.0, gt=0)
    routing: Literal["hard", "soft", "single", "random"] = "hard"
    """Only `hard` and `soft` need CLIP's weights. (`oracle` needs routes from outside.)"""
    widths: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of an expert at H, H/2, ...; two to five levels."""
    depths: tuple[int, ...] = (2, 4, 4, 6)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    block: Literal["transformer", "naf"] = "transformer"
    ffn_expansion: float = Field(2.66, gt=0)
    mgca: tuple[Literal["window", "channel", "none"], ...] = ("window", "window", "window")
    """Mask-guided cross-attention at scales 1, 1/2, ..."""
    mgca_window: int = Field(8, gt=0)
    """Side of a window in pixels of its scale."""
    mgca_bidirectional: bool = False
    mask_threshold: float = Field(0.03, gt=0, lt=1)
    """A pixel is rain where a channel differs by more, of 1."""
    mask_weight: float = Field(0.1, ge=0)
    """Weight of the mask loss; 0 switches it off."""


class RDMCConfig(Section):
    """Options of `derain.models.rdmc.RDMC`; its docstring says what each one does."""

    name: Literal["rdmc"] = "rdmc"
    recursions: int = Field(3, gt=0)
    widths: tuple[int, ...] = Field((32, 64, 128, 256, 256), min_length=2)
    """Channels of one stream at H, H/2, H/4, ..."""
    dilations: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    paths: Literal["all"] | tuple[str, ...] = "all"
    """Cross-level paths such as `enc4_dec3`, `all`, or an empty list."""
    gate: Literal["learned", "dynamic"] = "learned"
    norm: Literal["batch", "group", "none"] = "batch"
    up: Literal["mixed", "bilinear"] = "mixed"


class PReNetConfig(Section):
    """Options of `derain.models.prenet.PReNet`; its docstring says what each one does."""

    name: Literal["prenet"] = "prenet"
    recursions: int = Field(6, gt=0)
    width: int = Field(32, gt=0)
    shared_blocks: bool = False
    """True is PReNet_r."""


class NAFNetConfig(Section):
    """Options of `derain.models.nafnet.NAFNet`; its docstring says what each one does."""

    name: Literal["nafnet"] = "nafnet"
    width: int = Field(32, gt=0)
    encoder_blocks: tuple[int, ...] = Field((1, 1, 1, 28), min_length=1)
    middle_blocks: int = Field(1, ge=0)
    decoder_blocks: tuple[int, ...] = Field((1, 1, 1, 1), min_length=1)


class RestormerConfig(Section):
    """Options of `derain.models.restormer.Restormer`; its docstring says what each one does."""

    name: Literal["restormer"] = "restormer"
    width: int = Field(48, gt=0)
    blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
    refinement_blocks: int = Field(4, ge=0)
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    expansion: float = Field(2.66, gt=0)


class MPRNetConfig(Section):
    """Options of `derain.models.mprnet.MPRNet`; its docstring says what each one does."""

    name: Literal["mprnet"] = "mprnet"
    width: int = Field(40, gt=0)
    unet_growth: int = Field(20, ge=0)
    full_growth: int = Field(16, ge=0)
    blocks: int = Field(8, ge=0)
    reduction: int = Field(4, gt=0)
    stage_weight: float = Field(1.0, ge=0)
    """Weight of the losses of stages 1 and 2; 0 trains on the last picture alone."""


class PluginConfig(Section):
    """A network of the user's: the class that `name` names, its options as further keys."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:Class`, which every worker can import; the class takes the options as keywords."""


def _kind(model: Any) -> str | None:
    """Which of the sections below a `model` is."""
    name = model.get("name") if isinstance(model, dict) else getattr(model, "name", None)
    return "module:Class" if isinstance(name, str) and ":" in name else name


ModelConfig = Annotated[
    Annotated[FCLIPUNetConfig, Tag("fclip_unet")]
    | Annotated[CLIPRPNConfig, Tag("clip_rpn")]
    | Annotated[RDMCConfig, Tag("rdmc")]
    | Annotated[PReNetConfig, Tag("prenet")]
    | Annotated[NAFNetConfig, Tag("nafnet")]
    | Annotated[RestormerConfig, Tag("restormer")]
    | Annotated[MPRNetConfig, Tag("mprnet")]
    | Annotated[PluginConfig, Tag("module:Class")],
    Discriminator(_kind),
]


class SyntheticConfig(Section):
    """Rain rendered on photographs, for runs that have no dataset."""

    train_pairs: int = Field(gt=0)
    eval_pairs: int = Field(gt=0)
    density: Literal["light", "moderate", "heavy", "mixed"] = "mixed"
    seed: int = 0
    size_px: int = Field(256, ge=32)
    """Side of the square pictures."""
    clean: LocalPath | None = None
    """Folder of clean photographs; null takes the bundled ones."""


class DataConfig(Section):
    """Which prepared datasets are trained on and evaluated on."""

    train: Prepared = ()
    """Prepared datasets, one path or several."""
    mix: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Weight of each training dataset in an epoch; null takes every sample once. An epoch stays as
    long as the datasets together; each goes round through its samples at its own pace."""
    shuffle: bool = True
    """False keeps the order of the prepared datasets, to look at a run picture by picture."""
    stratify: str | None = None
    """A label of the samples, such as `density`: every batch gets its share of each value."""
    augment: Literal["none", "flip", "dihedral"] = "dihedral"
    """Mirror left and right, or all 8 symmetries of the square; rain that falls sideways is hard
    to learn in few steps, so short runs take `flip`."""
    seed: int | None = Field(None, ge=0)
    """Of the order, the crops and the flips; null takes the run's `seed`. With one of their own,
    runs of several seeds see the same batches, and can train in one cohort."""
    eval: Prepared = ()
    """Prepared datasets that are held out, one path or several."""
    synthetic: SyntheticConfig | None = None
    """Made and prepared where `train` and `eval` name nothing."""
    cache_dir: LocalPath | None = None
    """Decoded pixels live here; null takes DERAIN_CACHE_DIR, else the user's cache folder."""
    cache_gib: float = Field(50.0, ge=0)
    """Budget of the cache folder; 0 decodes from the tars every time."""
    loader_processes: int = Field(0, ge=0)
    """Processes a worker that cut batches ahead of the step; 0 cuts between the steps. The batches
    are the same. Worth it on a GPU, and where the pictures are not in the cache."""

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
    weight_decay: float = Field(1e-4, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
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
    """torch.compile: minutes once, then faster steps; the figures differ in the last digits."""
    micro_batch_size: int | Literal["auto"] | None = Field(None)
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
        if isinstance(self.micro_batch_size, int) and self.micro_batch_size < 1:
            raise ValueError("micro_batch_size is 1 or more, auto or null")
        if self.micro_batch_size == "auto" and self.parallel == "fsdp2":
            raise ValueError("micro_batch_size: auto goes with parallel: ddp; give a number")
        if self.eval_every_steps is None and self.patience_evals is not None:
            raise ValueError("patience_evals needs eval_every_steps")
        if self.eval_every_steps is None and self.use_checkpoint == "best":
            raise ValueError("use_checkpoint: best needs eval_every_steps")
        return self


class ScheduleConfig(Section):
    """Options of `derain.models.schedules.Schedule`, which `loss.pixel: power` follows."""

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
    """Whose features the contrastive prior compares clean, restored and rainy pictures in."""
    contrastive_weights: tuple[float, ...] = Field(
        (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0), min_length=1, max_length=5
    )
    """One a layer: relu1_1, relu2_1, ... of VGG, F1, F2, ... of the encoder."""
    contrastive_ratio: Literal["per_layer", "of_sums"] = "per_layer"
    contrastive_floor: float = Field(0.1, ge=0)
    """Least distance to the rainy picture, as a share of that between clean and rainy."""

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
    """How pictures are scored."""

    protocol: Literal["rain13k", "five_set", "prenet"] = "rain13k"


Values = Annotated[dict[str, Any] | list[Any], Field(min_length=1)]
"""A list, or a name for each value."""


class Dimension(Section):
    """The values that one config key takes in a sweep: one of the five kinds, and when."""

    grid: Values | None = None
    """Every one of these values."""
    choice: Values | None = None
    """One of these values, drawn."""
    uniform: tuple[float, float] | None = None
    """A number drawn from low to high."""
    loguniform: tuple[float, float] | None = None
    """The same with an even chance for every factor; low is above 0."""
    integers: tuple[int, int] | None = None
    """A whole number drawn from low to high, both included."""
    when: dict[str, Any] | None = None
    """Other keys of the space, each with the value or the list of values (by name where they have
    one) that it must have; elsewhere this key keeps the config's own value."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Dimension":
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of {', '.join(KINDS)}, found {given or 'none'}")
        if self.ends is not None and not self.ends[0] < self.ends[1]:
            raise ValueError(f"{given[0]} goes from low to high, found {list(self.ends)}")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform needs a low end above 0, found {self.loguniform[0]}")
        return self

    @property
    def ends(self) -> tuple[float, float] | None:
        """Low and high of a range; None for listed values."""
        return self.uniform or self.loguniform or self.integers

    def named(self) -> dict[str, Any]:
        """Listed values by name: a list's values are named by how they are written."""
        listed = self.grid or self.choice or {}
        if isinstance(listed, dict):
            return listed
        return {json.dumps(value): value for value in listed}


KINDS = ("grid", "choice", "uniform", "loguniform", "integers")


class Reference(Section):
    """A published table that the report prints beside the measured figures."""

    source: str
    psnr_y: dict[str, float]
    """Trial name to dB."""
    ssim_y: dict[str, float]


class HalvingConfig(Section):
    """ASHA: trials are compared on data.eval at rungs, and the worse ones stop there."""

    first_steps: int | None = Field(None, gt=0)
    """Where the first rung is; null takes train.steps / keep_one_in^2."""
    keep_one_in: int = Field(4, gt=1)
    """The best of so many go on; the next rung is so many times as far."""


class PopulationConfig(Section):
    """PBT: at every interval the worst copy the weights of the best and vary their values."""

    every_steps: int | None = Field(None, gt=0)
    """Length of an interval; null takes a tenth of train.steps."""
    replaced_share: float = Field(0.25, gt=0, le=0.5)
    """Share of the population that is replaced, and that is copied from."""
    redrawn_chance: float = Field(0.25, ge=0, le=1)
    """Chance that a value is drawn anew; else a number is multiplied by 0.8 or 1.25."""


class SweepConfig(Section):
    """Many runs that differ in some values."""

    space: dict[str, Dimension] = Field(min_length=1)
    """Config key to the values that it takes; `model.ldfps_sigma.0` is the first of a list."""
    search: Literal["grid", "random", "tpe", "asha", "pbt"] = "grid"
    """docs/sweeps.md says when to choose which."""
    samples: int | None = Field(None, gt=0)
    """How often the dimensions that are drawn are drawn; for `grid`, which draws none, null."""
    metric: Literal["psnr_y", "ssim_y"] = "psnr_y"
    """What the ranking goes by, on data.eval; larger is better."""
    costs: tuple[Literal["parameters", "flops", "seconds"], ...] = ()
    """Further objectives, smaller is better: trained parameters, floating-point operations for a
    picture of 256 x 256 px, seconds of training."""
    limits: dict[Literal["parameters", "flops", "seconds"], float] = {}
    """A trial that costs more cannot be the best."""
    repeats: int = Field(1, gt=0)
    """Runs of every trial, each with a seed of its own."""
    retries: int = Field(1, ge=0)
    """How often a trial is run again whose process died or that raised what no trial should."""
    concurrent: int | None = Field(None, gt=0)
    """Trials at once; null takes as many as there are cores or GPUs for."""
    cohort: Literal["auto", "off"] | Annotated[int, Field(gt=0)] = "auto"
    """Trials that train side by side in one process, on one pass through what is frozen; `auto`
    takes up to four where there is something frozen. docs/cohorts.md says which trials can."""
    gpu_fraction: float = Field(1.0, gt=0, le=1)
    """Share of a GPU that a trial takes: 0.25 puts four on one."""
    asha: HalvingConfig = HalvingConfig()
    pbt: PopulationConfig = PopulationConfig()
    reference: Reference | None = None

    @model_validator(mode="after")
    def _search_fits(self) -> "SweepConfig":
        drawn = [key for key, dimension in self.space.items() if dimension.grid is None]
        listed = [key for key in self.space if key not in drawn]
        if self.search == "grid" and drawn:
            raise ValueError(f"search: grid draws nothing, but space.{drawn[0]} is to be drawn")
        if self.search in ("tpe", "pbt") and listed:
            raise ValueError(f"search: {self.search} draws: make space.{listed[0]} a choice")
        if bool(drawn) != (self.samples is not None):
            wanted = "give sweep.samples" if drawn else "sweep.samples needs something to draw"
            raise ValueError(wanted)
        if self.search == "pbt" and self.repeats > 1:
            raise ValueError("search: pbt has no repeats: its trials are not independent")
        return self


class RegisterConfig(Section):
    """Where the best run goes."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")


class Config(Section):
    """One run, or one sweep of runs."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./=,-]*$")
    """The run lives in <output_dir>/<name>."""
    output_dir: LocalPath = "runs"
    seed: int = Field(0, ge=0)
    profile: str | None = None
    """The profile that applied."""
    model: ModelConfig
    data: DataConfig = DataConfig()
    train: TrainConfig
    loss: LossConfig = LossConfig()
    eval: EvalConfig = EvalConfig()
    sweep: SweepConfig | None = None
    register_: RegisterConfig | None = Field(None, alias="register")

    model_config = ConfigDict(serialize_by_alias=True)

    @property
    def folder(self) -> Path:
        """Where this run or sweep lives."""
        return Path(self.output_dir) / self.name

    @property
    def data_seed(self) -> int:
        """The seed of the batches."""
        return self.seed if self.data.seed is None else self.data.seed

    def digest(self) -> str:
        """sha256 of the resolved values, whatever file they came from."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The resolved config; `load_config` reads it back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def replaced(self, values: Mapping[str, Any], origin: str) -> "Config":
        """This config with dotted keys set to other values, checked like a file's.

        Raises ConfigError that names `origin` when a key or a value is not valid.
        """
        source = _Source(self.model_dump(mode="json"))
        for key, value in values.items():
            source.set(key, value, origin)
        return source.validated(origin)


@dataclass
class _Source:
    """A config tree and where each of its keys was written ("file:line" or "--set ...")."""

    tree: Tree
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def merge(self, other: "_Source") -> None:
        _merge(self.tree, other.tree)
        self.origins.update(other.origins)

    def set(self, key: str, value: Any, origin: str) -> None:
        path = tuple(key.split("."))
        tree: Any = self.tree
        for at, part in enumerate(path):
            place = _place(tree, part, f"{origin}: `{key}`")
            if at + 1 == len(path):
                tree[place] = value
            elif not isinstance(tree, list) and not isinstance(tree.get(part), dict | list):
                tree[place] = {}
            tree = tree[place]
        self.origins[path] = origin

    def origin(self, path: KeyPath, default: str) -> str:
        """The origin of the longest part of `path` that was written somewhere."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        return default

    def validated(self, default_origin: str) -> Config:
        try:
            return Config.model_validate(self.tree)
        except ValidationError as error:
            lines = [self._describe(item, default_origin) for item in error.errors()]
            raise ConfigError("\n".join(lines)) from None

    def _describe(self, item: Any, default_origin: str) -> str:
        path = _keys_of(item["loc"])
        key = ".".join(path) or "config"
        where = self.origin(path, default_origin)
        if item["type"] == "extra_forbidden":
            return f"{where}: unknown key `{key}`.{_nearest(key)}"
        if item["type"] == "union_tag_invalid":
            return f"{where}: `{key}.name`: expected one of {item['ctx']['expected_tags']}."
        if item["type"] == "union_tag_not_found":
            key, item = f"{key}.name", {**item, "type": "missing"}
        if item["type"] == "missing":
            return f"{where}: `{key}` is missing; give it in the file or with --set {key}=..."
        wanted = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        if item["type"] == "value_error":
            return f"{where}: `{key}`: {wanted}."
        return f"{where}: `{key}`: expected {wanted}, found {item['input']!r}."


def _place(tree: Any, part: str, where: str) -> str | int:
    """The key in a section, or the place in a list, that the part of a dotted key names."""
    if isinstance(tree, dict):
        return part
    if not isinstance(tree, list):
        raise ConfigError(f"{where}: there is nothing below the value {tree!r}.")
    if not part.isdecimal() or int(part) >= len(tree):
        raise ConfigError(f"{where}: expected a place from 0 to {len(tree) - 1}, found {part!r}.")
    return int(part)


def load_config(
    path: str | Path, *, profile: str | None = None, overrides: Sequence[str] = ()
) -> Config:
    """The config of a file, with a profile and `KEY=VALUE` overrides applied, checked as a whole.

    Raises ConfigError that names file, line, key, what was expected and what was found.
    """
    source = _read(Path(path), seen=())
    profiles = source.tree.pop("profiles", None) or {}
    chosen = profile or source.tree.get("profile")
    if chosen is not None and (profiles or profile):
        if chosen not in profiles:
            known = ", ".join(profiles) or "none"
            raise ConfigError(f"{path}: no profile `{chosen}`. Profiles of this file: {known}.")
        source.merge(_Source(profiles[chosen], _lift(source.origins, ("profiles", chosen))))
        source.tree["profile"] = chosen
    for text in overrides:
        source.set(*_parse_override(text), f"--set {text}")
    return source.validated(str(path))


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts as keys and values, as `--set` takes them."""
    return dict(_parse_override(text) for text in overrides)


def network_config(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a network, those that are given checked; what `derain.models.build` takes.

    Raises ConfigError for an unknown network, option or value.
    """
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(ModelConfig)
        return adapter.validate_python({**options, "name": name}).model_dump(exclude={"name"})
    except ValidationError as error:
        raise ConfigError(f"{name}: {error}") from None


def valid_keys() -> list[str]:
    """Every dotted key that a config may have."""
    return sorted(_fields_below(Config, ()))


def _fields_below(section: type[Section], prefix: KeyPath) -> Iterator[str]:
    for name, info in section.model_fields.items():
        path = (*prefix, info.alias or name)
        yield ".".join(path)
        for inner in _sections_in(info.annotation):
            yield from _fields_below(inner, path)


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        if annotation.__class__.__name__ != "GenericAlias":
            yield from _sections_in(argument)


def _nearest(key: str) -> str:
    found = difflib.get_close_matches(key, valid_keys(), n=1, cutoff=0.5)
    return f" The nearest valid key is `{found[0]}`." if found else ""


def _keys_of(location: Iterable[str | int]) -> KeyPath:
    """The keys of a pydantic location, without the network's name that it puts after `model`."""
    parts = [str(part) for part in location]
    return tuple(parts[:1] + parts[2:] if parts[:1] == ["model"] else parts)


def _parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text}: expected KEY=VALUE, for example --set train.steps=200.")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {text}: the value is not valid YAML.") from None


def _read(path: Path, seen: tuple[Path, ...]) -> _Source:
    """The file's tree, on top of the files that it extends."""
    if path.resolve() in seen:
        raise ConfigError(f"{path}: `extends` goes in a circle.")
    source = _parse(path)
    base = source.tree.pop("extends", None)
    if base is None:
        return source
    below = _read(path.parent / base, (*seen, path.resolve()))
    below.merge(source)
    return below


def _parse(path: Path) -> _Source:
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the config file cannot be read ({error}).") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML. {error}") from None
    source = _Source({})
    tree = _construct(node, (), str(path), source.origins)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(tree).__name__}.")
    source.tree = tree
    return source


def _construct(node: yaml.Node | None, at: KeyPath, file: str, origins: dict[KeyPath, str]) -> Any:
    """Plain Python values of a YAML node; fills `origins` with the line of every key."""
    if node is None:
        return None
    if isinstance(node, yaml.MappingNode):
        tree: Tree = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            origin = f"{file}:{key_node.start_mark.line + 1}"
            if key in tree:
                raise ConfigError(f"{origin}: `{'.'.join((*at, key))}` is given twice.")
            origins[(*at, key)] = origin
            tree[key] = _construct(value_node, (*at, key), file, origins)
        return tree
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, at, file, origins) for item in node.value]
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{file}:{node.start_mark.line + 1}: {error}") from None


def _merge(below: Tree, above: Tree) -> None:
    """Put `above` on top of `below`: sections are merged, a search space is replaced whole."""
    for key, value in above.items():
        if key != "space" and isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = value


def _lift(origins: dict[KeyPath, str], prefix: KeyPath) -> dict[KeyPath, str]:
    """The origins below `prefix`, as if they stood at the top."""
    size = len(prefix)
    return {path[size:]: at for path, at in origins.items() if path[:size] == prefix}
