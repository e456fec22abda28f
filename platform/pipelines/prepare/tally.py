"""What the rows of the index tell of the whole dataset while they pass, shard by shard."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Tally:
    """Counts what a reader must know; holds 16 bytes a pair.

    The pairs of a clean image are neighbours, and those of a sample are in one table.
    """

    def __init__(self) -> None:
        self._rainy: list[np.ndarray] = []
        self._clean: list[np.ndarray] = []
        self._last_clean: str | None = None
        self._unchanged = 0
        self._example = ""
        self._sizes: set[int] = set()

    def passing(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The same tables, each the rows of a shard."""
        for rows in tables:
            if len(rows):
                self._note(rows)
            yield rows

    def repeated(self) -> set[int]:
        """How the digests of rainy images begin that are there more than once, or nearly so."""
        values, counts = np.unique(np.concatenate(self._rainy), return_counts=True)
        return set(values[counts > 1].tolist())

    def notes(self) -> Iterator[str]:
        """What is unusual."""
        if self._unchanged:
            yield (
                "Pairs whose rainy image is the clean one, byte for byte: "
                f"{self._unchanged:,}, such as {self._example}."
            )
        yield from self._copies()
        if len(self._sizes) > 1:
            yield (
                f"A clean image has {min(self._sizes)} to {max(self._sizes)} rainy ones, all in "
                'one sample: Hugging Face load_dataset("webdataset") wants as many fields in each.'
            )

    def _copies(self) -> Iterator[str]:
        counts = np.unique(np.concatenate(self._clean), return_counts=True)[1]
        several = counts[counts > 1]
        if len(several):
            yield (
                f"{several.sum():,} clean images are {len(several):,}, each under several names: "
                "--share goes by names and may part them. `derainctl leaks` compares the pixels."
            )

    def _note(self, rows: pa.Table) -> None:
        self._rainy.append(beginnings(rows["rain_sha256"]))
        names = rows["clean_source"].to_pylist()
        others = zip(names, [self._last_clean, *names], strict=False)
        first = pa.array([name is not None and name != before for name, before in others])
        self._clean.append(beginnings(rows["clean_sha256"].filter(first)))
        self._last_clean = names[-1]
        same = rows["rain_source"].filter(pc.equal(rows["rain_sha256"], rows["clean_sha256"]))
        self._example = self._example or next(iter(same.to_pylist()), "")
        self._unchanged += len(same)
        self._sizes.update(np.unique(rows["json_offset"], return_counts=True)[1].tolist())


def beginnings(digests: pa.ChunkedArray) -> np.ndarray:
    """The first 64 bits of each sha256: (rows,) uint64."""
    return np.array([int(text[:16], 16) for text in digests.to_pylist()], np.uint64)
