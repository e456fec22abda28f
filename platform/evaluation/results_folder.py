"""Derained images that any other program wrote, paired by name with the pairs of a dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from derain.data.prepared.manifest import Prepared


@dataclass(frozen=True)
class ResultsFolder:
    """The results of one method on one dataset; small and picklable, pixels are read on demand."""

    name: str
    """Of the method, as its row of a table is called."""
    folder: Path
    files: Mapping[str, Path]
    """The result of a pair, by the pair's key. Keys without a result are in `missing`."""
    missing: Mapping[str, str]
    """Why a pair has no result, by its key: no file of its name, or more than one."""
    extra: tuple[str, ...]
    """Images in the folder that belong to no pair, relative to it, sorted."""
    paired_by: str
    """What their names are: `key`, `rainy path`, `rainy name` or `clean name`."""

    def levels(self, key: str, height: int, width: int) -> np.ndarray:
        """The derained image of a pair: uint8, HWC, RGB, sRGB, of that size in pixels.

        Raises DataError, for that pair to be listed as left out: no result (see `missing`), a file
        that cannot be decoded, or another size than that of the pair.
        """
        raise NotImplementedError


def open_results(
    name: str, folder: str | Path, dataset: Prepared, *, of_several: bool = False
) -> ResultsFolder:
    """Pair the images of a folder with the pairs of a dataset, by their names without endings.

    With `of_several` datasets in one evaluation, `folder` holds a folder for each of them, called
    like the dataset's folder, its split or its dataset. Reads no pixels.

    Raises DataError if there is no such folder, if none of its images has the name of a pair, or if
    its names fit the pairs in two different ways.
    """
    raise NotImplementedError
