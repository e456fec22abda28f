"""The images of a prepared dataset as an evaluation reads them, with or without clean ones."""

from collections.abc import Sequence

import numpy as np

from derain.config.data import DataConfig
from derain.data.loading.cache_builder import decode_member, member_bytes
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.manifest import Prepared
from derain.errors import DerainError, UsageError
from derain.evaluation.scoring import too_small
from derain.pipelines.evaluate.measures import has_clean
from derain.storage.files import is_remote


class Images:
    """The images of a dataset by number, and which of them cannot be scored.

    Pairs come from the node's cache. Images without clean ones are decoded from the tars when they
    are asked for: the cache is for pairs.
    """

    def __init__(self, dataset: Prepared, protocols: Sequence[str]) -> None:
        """Raises DerainError if the dataset cannot be read here."""
        self._dataset = dataset
        self._paired = has_clean(dataset)
        if not self._paired and is_remote(dataset.folder):
            raise UsageError(
                f"{dataset.folder}: images without clean ones are read from a local folder only. "
                "Copy the prepared dataset to this machine."
            )
        if self._paired:
            self._small = too_small(dataset, protocols) if protocols else {}
            (self._pixels,) = open_all_pixels([dataset], DataConfig.model_validate({}))

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The rainy and the clean image: uint8, HWC, RGB.

        Raises DerainError for one that cannot be read, or is too small for a protocol.
        """
        if not self._paired:
            return self._rainy(number), None
        if number in self._small:
            raise DerainError(self._small[number])
        rain, clean = self._pixels[number]
        if number in self._pixels.left_out:  # these are another pair
            raise DerainError(self._pixels.left_out[number])
        return rain, clean

    def _rainy(self, number: int) -> np.ndarray:
        (row,) = self._dataset.rows_at([number]).to_pylist()
        with (self._dataset.folder / row["shard"]).open("rb") as tar:
            return decode_member(member_bytes(tar, row, "rain"), row, "rain")
