"""What a sweep tries, how it searches, and what it compares with."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from derain.config.section import Section

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
        listed = self.grid or self.choice or {}
        if len(self.named()) < len(listed):
            raise ValueError(f"{given[0]} lists a value twice: {json.dumps(listed)}")
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
    image of 256 x 256 px, seconds of training."""
    limits: dict[Literal["parameters", "flops", "seconds"], float] = Field(default_factory=dict)
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
