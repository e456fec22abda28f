"""`export`: a model -> a file for other tools, or a model folder. `import`: weights -> a folder."""

from pathlib import Path
from typing import Any

from derain.config import network_config
from derain.errors import UsageError, WeightsError
from derain.inference import exported
from derain.inference.predictor import save_model_folder
from derain.models import build
from derain.models.published_weights import load_published
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

    Raises UsageError for another format or a network that cannot be exported in this one,
    OccupiedError if `out` already exists.
    """
    if format not in FORMATS:
        raise UsageError(f"--format is one of {', '.join(FORMATS)}, found {format!r}.")
    if format == "folder":
        check_folder(Path(out))
        loaded = load_network(model, trust=trust)
        return save_model_folder(loaded.network, out, loaded.name, loaded.options)
    check_file(Path(out))
    network = load_network(model, trust=trust).network
    return exported.export(network, out, format, size_px)  # type: ignore[arg-type]


def import_weights(
    path: str | Path,
    out: str | Path,
    name: str | None = None,
    options: dict[str, Any] | None = None,
) -> tuple[Path, str]:
    """A file of weights -> a model folder, and a description of the weights.

    Known published files are recognised; for others, `name` and `options` are those of the network
    that they belong to. Nothing in the file is executed.

    Raises WeightsError for a missing file, one without weights, or weights of another network.
    """
    check_folder(Path(out))
    try:
        if name is None:
            network, what = load_published(path)
            description = f"{what.source}, trained on {what.trained_on}"
            return save_model_folder(network, out, what.network, what.options), description
        all_options = network_config(name, options or {})
        network = build(name, **all_options)
        load_strictly(network, read_state_dict(path), path)
        return save_model_folder(network, out, name, all_options), name
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(str(error)) from error
