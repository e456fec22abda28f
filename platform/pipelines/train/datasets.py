"""The prepared datasets of a run: those that its config names, or synthetic ones."""

import hashlib
import logging
import tempfile
from pathlib import Path

from derain.config import Config
from derain.config.data import SyntheticConfig
from derain.data.prepared.manifest import MANIFEST, open_prepared
from derain.data.synthetic.synthesis import Part, synthesize
from derain.errors import ConfigError, DataError
from derain.pipelines.prepare.options import PrepareOptions
from derain.pipelines.prepare.verb import prepare

log = logging.getLogger(__name__)


def check_data(config: Config) -> None:
    """Raise ConfigError if the config names no data, DataError if a dataset cannot be used."""
    data = config.data
    for folder in (*data.train, *data.eval):
        prepared = open_prepared(folder)
        prepared.require_clean()
        if not len(prepared):
            raise DataError(f"{folder}: has no pairs, as all images of its source were left out.")
    if not data.train and data.synthetic is None:
        raise ConfigError(
            f"{config.name}, profile {config.profile or 'none'}: data.train and data.eval name no "
            "prepared dataset. Make them with `derainctl prepare paired SOURCE OUT`, one of the "
            "training pairs and one of the held-out pairs, and give --set data.train=OUT "
            "--set data.eval=OUT2."
        )


def with_data(config: Config) -> Config:
    """The config with existing datasets; if it names none, synthetic ones are rendered.

    Raises what `check_data` raises.
    """
    check_data(config)
    data = config.data
    if data.synthetic is None or data.train:
        return config
    train, held_out = _synthetic(data.synthetic, Path(config.output_dir) / "data")
    return config.replaced({"data.train": [train], "data.eval": [held_out]}, "data.synthetic")


def _synthetic(synthetic: SyntheticConfig, place: Path) -> tuple[str, str]:
    """Prepared training and held-out datasets of rendered rain; finished ones are reused."""
    digest = hashlib.sha256(synthetic.model_dump_json().encode()).hexdigest()[:12]
    folder = place / f"synthetic-{digest}"
    return (
        _synthetic_part(synthetic, folder, "train", synthetic.train_pairs),
        _synthetic_part(synthetic, folder, "held_out", synthetic.eval_pairs),
    )


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
