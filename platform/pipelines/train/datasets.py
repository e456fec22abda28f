"""The prepared datasets of a run: those that its config names, or synthetic ones."""

import hashlib
import itertools
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from derain.config import Config
from derain.config.data import DataConfig, SyntheticConfig
from derain.data.prepared.manifest import MANIFEST, Prepared, open_prepared
from derain.data.prepared.roles import ROLES, open_role, splits_training
from derain.data.synthetic.synthesis import Part, synthesize
from derain.errors import ConfigError, DataError
from derain.pipelines.prepare.options import PrepareOptions
from derain.pipelines.prepare.verb import prepare

log = logging.getLogger(__name__)


def check_data(config: Config) -> None:
    """Raise ConfigError if the config names no data, DataError if a dataset cannot be used."""
    data = config.data
    for folder in (*data.train, *data.validation, *data.test):
        prepared = open_prepared(folder)
        prepared.require_clean()
        if not len(prepared):
            raise DataError(f"{folder}: has no pairs, as all images of its source were left out.")
    if not data.train and data.synthetic is None:
        raise ConfigError(
            f"{config.name}, profile {config.profile or 'none'}: data.train names no prepared "
            "dataset. Make one with `derainctl prepare paired SOURCE OUT` and give "
            "--set data.train=OUT; and one of the test pairs, for --set data.test=OUT2. A part of "
            "the training pairs is split off for validation unless data.validation names others."
        )


def check_roles(data: DataConfig) -> None:
    """Raise ConfigError if validation would choose on test images without `choose_on_test`.

    Warns of clean images that two roles share, and says what is split off for validation.
    """
    roles = {role: open_role(data, role) for role in ROLES}
    if splits_training(data):
        pairs = sum(map(len, roles["validation"]))
        log.info(
            "data: %d of %d training pairs are split off for validation (data.validation_share "
            "%g of the clean images)", pairs, pairs + sum(map(len, roles["train"])),
            data.validation_share,
        )  # fmt: skip
    if data.choose_on_test:
        log.warning(
            "data: choose_on_test: checkpoints and trials are chosen on the test images, so their "
            "metrics are too good; every result says so"
        )
        return
    digests = {role: {each.sha256() for each in datasets} for role, datasets in roles.items()}
    if digests["validation"] & digests["test"]:
        raise ConfigError(
            "data.validation and data.test name the same prepared dataset. Validation chooses the "
            "checkpoint, and metrics on images that have chosen are too good. Leave "
            "data.validation out to split it off the training images, or ask for this with "
            "data.choose_on_test: true."
        )
    for one, other in itertools.combinations(ROLES, 2):
        _warn_of_shared(one, roles[one], other, roles[other])


def _warn_of_shared(
    one: str, datasets: Sequence[Prepared], other: str, others: Sequence[Prepared]
) -> None:
    """Log how many clean images of a role are also in another, byte for byte."""
    left, right = _clean_images(datasets), _clean_images(others)
    if shared := len(left & right):
        log.warning(
            "data: %d of the %d clean images of data.%s are in data.%s too; `derainctl leaks` "
            "finds them, also those that are not equal to the byte", shared, len(right), other, one,
        )  # fmt: skip


def _clean_images(datasets: Sequence[Prepared]) -> set[str]:
    """The sha256 of the files of all clean images."""
    columns = (dataset.arrow("clean_sha256") for dataset in datasets)
    return set().union(*(column.unique().to_pylist() for column in columns))


def with_data(config: Config) -> Config:
    """The config with existing datasets; if it names none, synthetic ones are rendered.

    Raises what `check_data` raises.
    """
    check_data(config)
    data = config.data
    if data.synthetic is None or data.train:
        return config
    folders = _synthetic(data.synthetic, Path(config.output_dir) / "data")
    if data.choose_on_test:
        del folders["data.validation"]
    return config.replaced(folders, "data.synthetic")


def _synthetic(synthetic: SyntheticConfig, place: Path) -> dict[str, list[str]]:
    """Prepared datasets of rendered rain by config key; finished ones are reused."""
    digest = hashlib.sha256(synthetic.model_dump_json().encode()).hexdigest()[:12]
    folder = place / f"synthetic-{digest}"
    parts: dict[Part, int] = {
        "train": synthetic.train_pairs,
        "validation": synthetic.validation_pairs,
        "test": synthetic.test_pairs,
    }
    return {
        f"data.{part}": [_synthetic_part(synthetic, folder, part, count)]
        for part, count in parts.items()
    }


def _synthetic_part(synthetic: SyntheticConfig, folder: Path, part: Part, count: int) -> str:
    out = folder / part
    if (out / MANIFEST).is_file():
        log.info("data: reusing %s (%d pairs)", out, open_prepared(out).manifest.pairs)
        return str(out)
    log.info("data: rendering %d pairs of %s rain into %s", count, synthetic.density, out)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "paired"
        synthesize(
            Path(synthetic.clean) if synthetic.clean else None,
            source,
            count=count,
            seed=synthetic.seed,
            density=synthetic.density,
            size_px=synthetic.size_px,
            part=part,
        )
        prepare("paired", source, out, PrepareOptions(split=part, strict=True))
    return str(out)
