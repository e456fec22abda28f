"""The section `data`: prepared datasets, their roles, and how training reads them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from derain.config.section import Choice, LocalFolder, Prepared, Section, Seed


class SyntheticConfig(Section):
    """Rain rendered on photographs, for runs without a dataset."""

    train_pairs: int = Field(gt=0)
    """Number of training pairs."""
    validation_pairs: int = Field(gt=0)
    """Number of validation pairs."""
    test_pairs: int = Field(gt=0)
    """Number of test pairs. The three parts share no photograph."""
    density: Literal["light", "moderate", "heavy", "mixed"] = "mixed"
    """How heavy the rain is."""
    seed: Seed = 0
    """Seed of crops and rain: equal seeds give equal images."""
    size_px: int = Field(256, ge=32)
    """Side of the square images, in pixels."""
    clean: LocalFolder | None = None
    """Folder of clean photographs; null: the bundled ones."""


class Augment(Choice):
    """What is done to each crop."""

    known = ("none", "flip", "dihedral")


class DataConfig(Section):
    """The images: prepared datasets, and how training reads them."""

    train: Prepared = ()
    """Prepared datasets for training: one path or several."""
    mix: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Weight of each training dataset in an epoch; null: every sample once. An epoch is as long as
    all datasets together; each dataset is cycled through at its own rate."""
    shuffle: bool = True
    """False keeps the order of the prepared datasets, to follow a run image by image."""
    stratify: str | None = None
    """A label of the samples, such as `density`: each batch has all values in proportion. Null: no
    stratification."""
    augment: Augment = Augment(name="dihedral")
    """Flip left and right, or apply any of the 8 symmetries of the square. Rain that falls sideways
    is hard to learn in few steps, so `flip` suits short runs. `module:Name`: a class of your own,
    which then does all that is done to a crop; see docs/guides/plugins.md."""
    seed: Seed | None = None
    """Seed of order, crops and flips; null: the run's `seed`. With a seed of its own, runs with
    different seeds get the same batches and can train in one cohort."""
    validation: Prepared = ()
    """Prepared datasets that choose: the best checkpoint, the end of patience, the best trial, the
    champion. Empty: `validation_share` of `train` is split off for this, and is not trained on."""
    validation_share: float = Field(0.05, gt=0, lt=1)
    """Share of the clean images of `train` that is split off if `validation` is empty, with all of
    their pairs. Which ones depends on the digests of the images alone."""
    test: Prepared = ()
    """Prepared datasets that report: scored once, at the end, with the checkpoint that validation
    has chosen. Empty: no test metrics."""
    choose_on_test: bool = False
    """Choose on the test images, as published code of this field often does: `validation` must be
    empty and `test` takes its place. Every result then says so, as such metrics are too good."""
    synthetic: SyntheticConfig | None = None
    """Rendered and prepared if `train` is empty."""
    cache_dir: LocalFolder | None = None
    """Folder of decoded pixels; null: DERAIN_CACHE_DIR if set, else the user's cache folder."""
    cache_gib: float = Field(50.0, ge=0)
    """Maximum size of the cache folder, in GiB. A dataset whose pixels take more is compressed, to
    about a third; if that takes more as well, images are decoded from the shards each time. 0: no
    cache."""
    loader_processes: int = Field(0, ge=0)
    """Processes per worker that prepare batches ahead of time; 0: prepare them between steps. The
    batches are the same. Worthwhile on a GPU, and if the images are not in the cache."""

    @model_validator(mode="after")
    def _datasets_complete(self) -> "DataConfig":
        if self.mix is not None and len(self.mix) != len(self.train):
            raise ValueError(
                f"mix has {len(self.mix)} weights, expected one for each of the "
                f"{len(self.train)} datasets in train"
            )
        given = [key for key in ("validation", "test") if getattr(self, key)]
        if given and not self.train:
            raise ValueError(f"data.{given[0]} is given without data.train: give both")
        if self.choose_on_test and self.validation:
            raise ValueError(
                "choose_on_test takes `test` in place of `validation`: leave `validation` empty"
            )
        if self.choose_on_test and self.train and not self.test:
            raise ValueError("choose_on_test needs data.test")
        return self
