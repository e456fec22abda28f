"""Pixels of a dataset without a cache."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from derain.data.loading.cache_builder import SIDES, member_bytes
from derain.data.loading.tars.members import Members
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.errors import DataError
from derain.storage.files import open_regular

log = logging.getLogger(__name__)


class TarPixels:
    """Pixels decoded from the tars at every access: slow, but without a cache on disk."""

    def __init__(self, prepared: Prepared, records: Path | None = None) -> None:
        """Of a dataset that is no part; `records` is the file of its `Members`."""
        self._arguments = prepared.folder, records
        self._folder, self._count = prepared.folder, len(prepared)
        self._members = Members(prepared, records)
        self.left_out: dict[int, str] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the dataset itself."""
        return _reopened_tars, self._arguments

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, sample: int) -> np.ndarray:
        """Raises DataError if no sample can be decoded, and for a shard that is damaged."""
        if not 0 <= sample < len(self):
            raise IndexError(sample)
        for step in range(len(self)):
            at = (sample + step) % len(self)
            if at not in self.left_out:
                members = self._read(self._members[at])
                try:
                    return np.stack([self._members.decode(*member) for member in members])
                except DataError as error:
                    log.warning("cache: left out a pair of %s: %s", self._folder, error)
                    self.left_out[at] = str(error)
        raise DataError(f"{self._folder}: no pair can be decoded: {self.left_out[sample]}")

    def _read(self, row: Mapping[str, Any]) -> list[tuple[bytes, Mapping[str, Any], str]]:
        with open_regular(self._folder / row["shard"]) as tar:
            return [(member_bytes(cast(BinaryIO, tar), row, side), row, side) for side in SIDES]


def _reopened_tars(folder: Path, records: Path | None) -> TarPixels:
    return TarPixels(open_prepared(folder), records)
