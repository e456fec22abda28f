"""The images that another program wrote, as a method that is scored like a network."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from derain.data.prepared.manifest import MANIFEST, Prepared
from derain.errors import DataError, UsageError
from derain.evaluation.results_folder import ResultsFolder, find_folders, open_results
from derain.storage.files import locate


class ResultsMethod:
    """A folder of results, with one for each dataset if there are several; see `results_folder`."""

    device = "cpu"

    def __init__(self, name: str, folder: str | Path, datasets: Mapping[str, Prepared]) -> None:
        """Pair the files by name; reads no pixels. Raises DataError, see `open_results`."""
        self.name = name
        self.folder = Path(folder).absolute()  # Ray's workers have another working directory
        self.opened: dict[str, ResultsFolder] = {
            dataset: open_results(name, found, datasets[dataset])
            for dataset, found in find_folders(self.folder, datasets).items()
        }

    def identity(self, dataset: str) -> dict[str, Any]:
        """The digest of the names, sizes and times of its files."""
        digest = hashlib.sha256()
        files = self.opened[dataset].files if dataset in self.opened else {}
        for key, path in files.items():
            found = path.stat()
            digest.update(f"{key} {path} {found.st_size} {found.st_mtime_ns}\n".encode())
        return {"results": str(self.folder), "files": digest.hexdigest()}

    def levels(self, dataset: str, key: str, rain: np.ndarray) -> np.ndarray:
        """The derained image of a pair, see `ResultsFolder.levels`."""
        if dataset not in self.opened:
            raise DataError(f"{self.folder}: has no folder of results on {dataset}")
        height, width, _ = rain.shape
        return self.opened[dataset].levels(key, height, width)

    def described(self) -> dict[str, Any]:
        """What is known of the folder, for the result: `extra` files and `notes`, by dataset."""
        opened = self.opened.items()
        remarks = dict.fromkeys(remark for _, found in opened for remark in found.remarks)
        return {
            "name": self.name,
            "folder": str(self.folder),
            "paired_by": {dataset: found.paired_by for dataset, found in opened},
            "extra": {dataset: list(found.extra) for dataset, found in opened if found.extra},
            "notes": {dataset: list(found.notes) for dataset, found in opened if found.notes},
            "remarks": list(remarks),
        }


def parse_results(texts: list[str]) -> dict[str, Path]:
    """The folders of --results by the names of their methods: NAME=FOLDER, or FOLDER alone.

    Raises UsageError for an empty name or folder, and for a name that is given twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, mark, folder = text.partition("=")
        if not mark or Path(text).is_dir():
            name, folder = Path(text).name, text
        if not name or not folder:
            raise UsageError(f"--results {text!r}: expected NAME=FOLDER.")
        if name in found:
            raise UsageError(f"--results {text!r}: {name} is given twice. Use another name.")
        found[name] = Path(folder)
    return found


def parse_training(texts: list[str]) -> dict[str, list[dict[str, Any]]]:
    """What was stated with --trained-on, by the names of methods: NAME=DATASET/SPLIT.

    Raises UsageError for anything else.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for text in texts:
        name, _, training = text.rpartition("=")
        dataset, _, split = training.rpartition("/")
        if not (name and dataset and split):
            raise UsageError(
                f"--trained-on {text!r}: expected NAME=DATASET/SPLIT, such as net=rain13k/train."
            )
        found.setdefault(name, []).append({"dataset": dataset, "split": split, "stated": True})
    return found


def parse_arguments(arguments: list[str], *, with_results: bool) -> tuple[list[str], list[str]]:
    """The models and the prepared datasets of `evaluate`.

    Models are what comes before the first prepared dataset; only with --results may there be none.
    Raises UsageError if there is no dataset, or no model without --results.
    """
    found = [(locate(text) / MANIFEST).is_file() for text in arguments]
    # Without any dataset the last argument is a path that is none, and is said to be.
    count = found.index(True) if any(found) else max(1, len(arguments) - 1)
    models, prepared = arguments[:count], arguments[count:]
    if (models or with_results) and prepared:
        return models, prepared
    missing = "a prepared dataset" if with_results or not any(found) else "a MODEL"
    raise UsageError(
        f"{arguments[0]}: {missing} is missing. Give `derainctl evaluate MODEL... PREPARED...`, "
        "or `derainctl evaluate PREPARED... --results NAME=FOLDER`."
    )
