"""Networks that remove rain from images: use, train, search and measure them from Python.

    import derain

    remove_rain = derain.load("models:/fclip-unet@champion")
    derained = remove_rain(image)

The names in `__all__` are public and stay as they are: docs/reference/python.md. Everything else
may change from version to version. The rooms are in `platform/`, called `derain/` where this is
installed: Python has a `platform` of its own.
"""

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from derain.config import Config, load_config
    from derain.pipelines.derainer import Derainer
    from derain.pipelines.evaluate.verb import evaluate
    from derain.pipelines.load_model import load
    from derain.pipelines.prepare.verb import prepare
    from derain.pipelines.train.verb import train
    from derain.tune.sweep import sweep

__all__ = [
    "Config",
    "Derainer",
    "evaluate",
    "load",
    "load_config",
    "prepare",
    "sweep",
    "train",
]


class _Rooms(list[str]):
    """The folder of the rooms. While MLflow loads a registered model, the code that came with the
    model goes before it: MLflow has put its folder, beside MLmodel, on sys.path."""

    def __iter__(self) -> Iterator[str]:
        code = (Path(entry) for entry in sys.path if (Path(entry).parent / "MLmodel").is_file())
        yield from (str(folder / "derain") for folder in code if (folder / "derain").is_dir())
        yield from super().__iter__()


_HERE = Path(__file__).resolve()
_ROOMS = _HERE.with_name("platform")
__path__ = _Rooms([str(_ROOMS if _ROOMS.is_dir() else _HERE.with_name("derain"))])
__version__ = version("derain-platform")

_MODULES = {
    "Config": "config",
    "Derainer": "pipelines.derainer",
    "evaluate": "pipelines.evaluate.verb",
    "load": "pipelines.load_model",
    "load_config": "config",
    "prepare": "pipelines.prepare.verb",
    "sweep": "tune.sweep",
    "train": "pipelines.train.verb",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used: torch, Ray and MLflow take seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module 'derain' has no attribute {name!r}")
    value = getattr(import_module(f"derain.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
