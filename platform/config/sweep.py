"""The section `sweep`: the search space, the search, and a table to compare the results with."""

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from derain.config.section import Section


def _some_values(value: Any) -> Any:
    if value is None or (isinstance(value, dict | list) and value):
        return value
    raise ValueError(f"expected a list of values, or names with values, found {value!r}")


def _two_ends(value: Any) -> Any:
    if value is None or (isinstance(value, list | tuple) and len(value) == 2):
        return value
    raise ValueError(f"expected [low, high], found {value!r}")


Values = Annotated[dict[str, Any] | list[Any], Field(min_length=1)]
"""A list of values, or a mapping from names to values."""
Listed = Annotated[Values | None, BeforeValidator(_some_values)]
Range = Annotated[tuple[float, float] | None, BeforeValidator(_two_ends)]


class Dimension(Section):
    """The values of one config key in a sweep: one of the five kinds, and an optional condition."""

    grid: Listed = None
    """Each of these values."""
    choice: Listed = None
    """One of these values, drawn at random."""
    uniform: Range = None
    """[low, high]: a number drawn from this range."""
    loguniform: Range = None
    """[low, high]: a number whose logarithm is drawn evenly; low must be above 0."""
    integers: Annotated[tuple[int, int] | None, BeforeValidator(_two_ends)] = None
    """[low, high]: an integer drawn from this range, both ends included."""
    when: dict[str, Any] | None = None
    """A condition: other keys of the space, each with the value or values that it must have (by
    name, if they have names). Otherwise this key keeps the value in the config."""

    @model_validator(mode="before")
    @classmethod
    def _has_kinds(cls, value: Any) -> Any:
        """A value itself, or a list of values, is no dimension: it does not say how it is used."""
        if isinstance(value, dict | cls):
            return value
        listed = value if isinstance(value, list) and value else [value]
        raise ValueError(
            f"expected one of {', '.join(KINDS)}, such as {{grid: {json.dumps(listed)}}}, found "
            f"{value!r}"
        )

    @model_validator(mode="after")
    def _one_kind(self) -> "Dimension":
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of {', '.join(KINDS)}, found {given or 'none'}")
        if self.ends is not None and not self.ends[0] < self.ends[1]:
            raise ValueError(f"{given[0]}: expected low < high, found {list(self.ends)}")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform: low must be above 0, found {self.loguniform[0]}")
        listed = self.grid or self.choice or {}
        if len(self.named()) < len(listed):
            raise ValueError(f"{given[0]} lists a value twice: {json.dumps(listed)}")
        return self

    @property
    def ends(self) -> tuple[float, float] | None:
        """Low and high end of a range; None for listed values."""
        return self.uniform or self.loguniform or self.integers

    def named(self) -> dict[str, Any]:
        """Listed values by name; without names, by their JSON text."""
        listed = self.grid or self.choice or {}
        if isinstance(listed, dict):
            return listed
        return {json.dumps(value): value for value in listed}


KINDS = ("grid", "choice", "uniform", "loguniform", "integers")


class Reference(Section):
    """A published table that the report shows beside the measured metrics."""

    source: str
    """Where the table was published."""
    trained_on: str | None = None
    """The training set of its networks, as `prepare` names it: `rain13k/train`."""
    measured_on: str | None = None
    """The dataset of its values, as `prepare` names it: `rain13k/rain100h`."""
    protocol: str | None = None
    """The protocol of its values. Differences to them are shown only where all three are known and
    are those of the sweep."""
    psnr_y: dict[str, float]
    """PSNR-Y in dB by trial name."""
    ssim_y: dict[str, float]
    """SSIM-Y in [0, 1] by trial name."""


class HalvingConfig(Section):
    """ASHA: trials are compared by validation at certain steps (rungs), and the worse ones stop."""

    first_steps: int | None = Field(None, gt=0)
    """Step of the first rung; null: train.steps / keep_one_in^2."""
    keep_one_in: int = Field(4, gt=1)
    """One in this many trials continues; the next rung is this many times as far."""


class PopulationConfig(Section):
    """PBT: per interval the worst trials copy the weights of the best and vary their values."""

    every_steps: int | None = Field(None, gt=0)
    """Length of an interval in steps; null: a tenth of train.steps."""
    replaced_share: float = Field(0.25, gt=0, le=0.5)
    """Share of the population that is replaced; an equal share is copied from."""
    redrawn_chance: float = Field(0.25, ge=0, le=1)
    """Probability that a value is redrawn; otherwise a number is multiplied by 0.8 or 1.25."""


class SweepConfig(Section):
    """Many runs that differ in some config values."""

    space: dict[str, Dimension] = Field(min_length=1)
    """Values by config key; `model.ldfps_sigma.0` is the first element of a list."""
    search: Literal["grid", "random", "tpe", "asha", "pbt"] = "grid"
    """Search algorithm; docs/guides/sweeps.md says when to choose which."""
    samples: int | None = Field(None, gt=0)
    """Number of random draws from the space; null for `grid`, which draws nothing."""
    metric: Literal["psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"] = "psnr_y"
    """Metric on the validation images that ranks the trials; larger is better. Of RGB for protocols
    named `rgb_...`, of Y for all others."""
    test_all: bool = False
    """Score every finished trial on the test images, not only the best. For a table of all trials;
    the choice stays with validation."""
    costs: tuple[Literal["parameters", "flops", "seconds"], ...] = ()
    """Further objectives, smaller is better: number of trained parameters, floating-point
    operations per image of 256 x 256 px, seconds of training."""
    limits: dict[Literal["parameters", "flops", "seconds"], float] = Field(default_factory=dict)
    """Maximum costs: a trial that exceeds one cannot be the best."""
    repeats: int = Field(1, gt=0)
    """Runs per trial, each with a different seed."""
    retries: int = Field(1, ge=0)
    """How many times a trial is run again after its process died or raised an unexpected error."""
    concurrent: int | None = Field(None, gt=0)
    """Trials at the same time; null: as many as cores or GPUs allow."""
    cohort: Literal["auto", "off"] | Annotated[int, Field(gt=0)] = "auto"
    """Trials that train side by side in one process and share the computation of frozen modules;
    `auto`: up to four if that saves enough, which is measured first. docs/explanation/cohorts.md
    says which trials can."""
    gpu_fraction: float = Field(1.0, gt=0, le=1)
    """Share of a GPU, and of its memory, per trial of one worker: 0.25 runs four on one GPU."""
    asha: HalvingConfig = HalvingConfig()
    """Options of `search: asha`."""
    pbt: PopulationConfig = PopulationConfig()
    """Options of `search: pbt`."""
    reference: Reference | None = None
    """Published results to compare with."""

    @model_validator(mode="after")
    def _search_matches_space(self) -> "SweepConfig":
        drawn = [key for key, dimension in self.space.items() if dimension.grid is None]
        listed = [key for key in self.space if key not in drawn]
        if self.search == "grid" and drawn:
            raise ValueError(
                f"search: grid draws nothing; list the values of space.{drawn[0]} as a grid"
            )
        if self.search in ("tpe", "pbt") and listed:
            raise ValueError(f"search: {self.search} draws values; make space.{listed[0]} a choice")
        if bool(drawn) != (self.samples is not None):
            raise ValueError(
                "give sweep.samples, the number of draws"
                if drawn
                else "sweep.samples needs a key whose values are drawn"
            )
        if self.search == "pbt" and self.repeats > 1:
            raise ValueError("search: pbt has no repeats: its trials are not independent")
        return self
