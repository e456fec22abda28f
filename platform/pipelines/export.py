"""A model -> one file of another tool, or a plain model folder."""

from pathlib import Path
from typing import Any

from derain.config import network_config
from derain.errors import UsageError, WeightsError
from derain.inference import exported
from derain.inference.predictor import save_model_folder
from derain.models import build
from derain.models.published import load_published
from derain.models.weights import load_strictly, read_state_dict
from derain.pipelines.load_model import load_network
from derain.storage.output_paths import check_file, check_folder

FORMATS = ("folder", *exported.SUFFIXES)


def export(
    model: str,
    out: str | Path,
    format: str,
    *,
    size_px: tuple[int, int] | None = None,
    trust: bool = False,
) -> Path:
    """Write a checkpoint, a registered model or a model folder as `format`, one of `FORMATS`.

    Raises UsageError for another format or a network that cannot be exported so, OccupiedError
    where `out` is there already.
    """
    if format not in FORMATS:
        raise UsageError(f"--format is one of {', '.join(FORMATS)}, found {format!r}.")
    (check_folder if format == "folder" else check_file)(Path(out))
    network, name, options = load_network(model, trust)
    if format == "folder":
        return save_model_folder(network, out, name, options)
    return exported.export(network, out, format, size_px)  # type: ignore[arg-type]


def import_weights(
    path: str | Path,
    out: str | Path,
    name: str | None = None,
    options: dict[str, Any] | None = None,
) -> tuple[Path, str]:
    """A file of weights -> a model folder, and what it is.

    Published files that are known need no name; for others, `name` and `options` say which network
    they belong to. Nothing in the file is executed.

    Raises WeightsError where the file is missing, something else, or of another network.
    """
    check_folder(Path(out))
    try:
        if name is None:
            network, what = load_published(path)
            told = f"{what.source}, trained on {what.trained_on}"
            return save_model_folder(network, out, what.network, what.options), told
        chosen = network_config(name, options or {})
        network = build(name, **chosen)
        load_strictly(network, read_state_dict(path), path)
        return save_model_folder(network, out, name, chosen), name
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(str(error)) from error
