"""Whether the training images of a version are among those that it was measured on.

A comparison hashes every clean image of both datasets, so its result is kept in the folder of
caches, by the digests of the two datasets.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from derain.config.data import DataConfig
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.data.prepared.roles import open_role
from derain.errors import DataError, DerainError, StorageError
from derain.pipelines.leaks.clean_images import HashedDataset, hash_dataset
from derain.pipelines.leaks.compare import DISTANCE, find_matches
from derain.storage.atomic import write_text
from derain.storage.files import is_remote, locate
from derain.storage.node import cache_folder
from derain.tracking.lineage import Lineage, RecordedDataset

log = logging.getLogger(__name__)

FOLDER = "leaks"
"""Below the folder of caches."""


@dataclass(frozen=True)
class LeakCheck:
    """Clean images of the measured datasets that are also among the training images."""

    leaked: int | None
    """How many of them; None if that was not checked."""
    images: int | None = None
    """How many there are."""
    reason: str = ""
    """Why it was not checked."""

    def __str__(self) -> str:
        """`none`, `12 of 100 images` or `not checked: ...`."""
        if self.leaked is None:
            return f"not checked: {self.reason}"
        return f"{self.leaked} of {self.images} images" if self.leaked else "none"


class LeakChecks:
    """Comparisons of training with measured datasets; each dataset is hashed once at most."""

    def __init__(self, folder: str | Path | None = None) -> None:
        """`folder` is that of caches, see `cache_folder`."""
        self._folder = cache_folder(folder) / FOLDER
        self._hashed: dict[str, HashedDataset] = {}
        self._unusable: dict[str, str] = {}

    def of(self, lineage: Lineage, measured_on: Iterable[RecordedDataset]) -> LeakCheck:
        """Compare all training datasets of a version with the datasets that it was measured on."""
        training, measured_on = lineage.role("train"), list(measured_on)
        if not training or not measured_on:
            return LeakCheck(None, reason="its run has recorded no datasets, or was deleted")
        leaked = images = 0
        try:
            for test in measured_on:
                keys: set[str] = set()
                for train in training:
                    found, total = self._compare(lineage, train, test)
                    keys |= found
                leaked, images = leaked + len(keys), images + total
        except (DerainError, OSError) as error:
            return LeakCheck(None, reason=" ".join(str(error).split()))
        return LeakCheck(leaked, images)

    def _compare(
        self, lineage: Lineage, train: RecordedDataset, test: RecordedDataset
    ) -> tuple[set[str], int]:
        """The keys of the test images that are among the training images, and the number of all."""
        path = self._folder / f"{train.sha256}-{test.sha256}-{DISTANCE}.json"
        if (kept := _kept(path)) is not None:
            return kept
        hashed = self._hash(lineage, train), self._hash(lineage, test)
        leaked = sorted({match.test for match in find_matches(*hashed, DISTANCE)})
        images = len(hashed[1].images)
        content = {
            "train": asdict(train),
            "test": asdict(test),
            "leaked": leaked,
            "images": images,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content, indent=2) + "\n", durable=False)
        return set(leaked), images

    def _hash(self, lineage: Lineage, recorded: RecordedDataset) -> HashedDataset:
        """The hashes of a dataset. Raises DataError, again for one that could not be found."""
        if recorded.sha256 in self._unusable:
            raise DataError(self._unusable[recorded.sha256])
        try:
            if recorded.sha256 not in self._hashed:
                self._hashed[recorded.sha256] = hash_dataset(_find(lineage, recorded))
        except (DataError, StorageError) as error:
            self._unusable[recorded.sha256] = str(error)
            raise
        return self._hashed[recorded.sha256]


def _kept(path: Path) -> tuple[set[str], int] | None:
    """What an earlier call has found; None if nothing, or if its file is damaged."""
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return set(kept["leaked"]), int(kept["images"])
    except (ValueError, KeyError, TypeError, RecursionError):
        log.warning("%s is damaged; the datasets are compared again", path)
        return None


def _find(lineage: Lineage, recorded: RecordedDataset) -> Prepared:
    """The dataset of this digest, where it was when the run read it.

    Raises DataError if it is not there, or at an address from which it would have to be downloaded.
    """
    if is_remote(locate(recorded.folder)):
        raise DataError(f"{recorded.folder} is not on this machine; compare with `derainctl leaks`")
    whole = open_prepared(recorded.folder)
    if whole.sha256() == recorded.sha256:
        return whole
    for part in _parts(lineage, recorded):
        if part.sha256() == recorded.sha256:
            return part
    raise DataError(f"{recorded.folder} is another dataset now than {recorded.sha256[:8]}")


def _parts(lineage: Lineage, recorded: RecordedDataset) -> list[Prepared]:
    """The parts of this role, if the run has split its training images."""
    share = lineage.validation_share
    if share is None or recorded.role == "test":
        return []
    folders = tuple(dataset.folder for dataset in lineage.role("train"))
    data = DataConfig.model_validate({"train": folders, "validation_share": share})
    return open_role(data, recorded.role)
