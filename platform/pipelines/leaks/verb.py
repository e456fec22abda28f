"""`leaks`: clean images that two prepared datasets share, and duplicates within each."""

from pathlib import Path

from derain.data.prepared.manifest import open_prepared
from derain.pipelines.leaks.clean_images import hash_dataset
from derain.pipelines.leaks.compare import DISTANCE, Leaks, compare


def leaks(train: str | Path, test: str | Path, *, distance: int = DISTANCE) -> Leaks:
    """Compare the clean images of two prepared datasets with each other and with themselves.

    Raises DataError for a dataset that does not exist, has no clean images or is damaged.
    """
    left, right = hash_dataset(open_prepared(train)), hash_dataset(open_prepared(test))
    return compare(left, right, distance)
