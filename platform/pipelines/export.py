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
_OF_SUFFIX = {suffix: format for format, suffix in exported.SUFFIXES.items()}
_OF_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors")


def export(
    model: str,
    out: str | Path,
    format: str | None = None,
    *,
    size_px: tuple[int, int] | None = None,
    trust: bool = False,
) -> Path:
    """Write a checkpoint, a registered model or a model folder as `format`, one of `FORMATS`.

    Without a format the suffix of `out` says which: .onnx, .pt2, else a model folder.

    Raises UsageError for another format or a network that cannot be exported in this one,
    OccupiedError if `out` already exists.
    """
    format = format or format_of(out)
    if format not in FORMATS:
        raise UsageError(f"--format is one of {', '.join(FORMATS)}, found {format!r}.")
    if format == "folder":
        check_folder(Path(out))
        loaded = load_network(model, trust=trust)
        return save_model_folder(loaded.network, out, loaded.name, loaded.options)
    check_file(Path(out))
    network = load_network(model, trust=trust).network
    return exported.export(network, out, format, size_px)  # type: ignore[arg-type]


def format_of(out: str | Path) -> str:
    """The format that the ending of a name says. Raises UsageError for that of bare weights."""
    suffix = Path(out).suffix
    if suffix in _OF_WEIGHTS:
        raise UsageError(
            f"{out}: expected a name that ends in {' or '.join(_OF_SUFFIX)}, or that of a folder. "
            "The weights alone are model.safetensors in a model folder."
        )
    return _OF_SUFFIX.get(suffix, "folder")


def import_weights(
    path: str | Path,
    out: str | Path,
    name: str | None = None,
    options: dict[str, Any] | None = None,
    key: str | None = None,
) -> tuple[Path, str]:
    """A file of weights -> a model folder, and a description of the weights.

    Known published files are recognised; for others, `name` and `options` are those of the network
    that they belong to. `key` names the weights in a file with several. Nothing in the file is
    executed.

    Raises WeightsError for a missing file, one without weights, or weights of another network.
    """
    check_folder(Path(out))
    try:
        if name is None:
            network, what = load_published(path, key)
            description = f"{what.source}, trained on {what.trained_on}"
            return save_model_folder(network, out, what.network, what.options), description
        all_options = network_config(name, options or {})
        network = build(name, **all_options)
        load_strictly(network, read_state_dict(path, key), path)
        return save_model_folder(network, out, name, all_options), name
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(str(error)) from error
