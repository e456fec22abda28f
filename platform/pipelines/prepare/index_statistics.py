"""What the index rows of a dataset show as a whole, collected shard by shard."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from derain.storage.amounts import counted


class IndexStatistics:
    """Finds what a user should know about a dataset; holds 16 bytes per pair.

    Pairs with the same clean image must be neighbours, and the pairs of a sample must be in one
    table.
    """

    def __init__(self) -> None:
        self._rainy: list[np.ndarray] = []
        self._clean: list[np.ndarray] = []
        self._last_clean: str | None = None
        self._unchanged = 0
        self._example = ""
        self._sizes: set[int] = set()

    def counting(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield the same tables, each the rows of a shard, and count them on the way."""
        for rows in tables:
            if len(rows):
                self._count(rows)
            yield rows

    def repeated(self) -> set[int]:
        """Digest prefixes that several rainy images have: equal images, or a rare coincidence."""
        values, counts = np.unique(np.concatenate(self._rainy), return_counts=True)
        return set(values[counts > 1].tolist())

    def notes(self) -> Iterator[str]:
        """A sentence for everything unusual. The manifest records them: new words, new digest."""
        if self._unchanged:
            yield (
                "Pairs whose rainy image is the clean one, byte for byte: "
                f"{self._unchanged:,}, such as {self._example}."
            )
        yield from self._copies_note()
        if len(self._sizes) > 1:
            yield (
                f"A clean image has {min(self._sizes)} to {max(self._sizes)} rainy ones, all in "
                'one sample: Hugging Face load_dataset("webdataset") wants as many fields in each.'
            )

    def _copies_note(self) -> Iterator[str]:
        counts = np.unique(np.concatenate(self._clean), return_counts=True)[1]
        several = counts[counts > 1]
        if len(several):
            images = counted(len(several), "image")
            yield (
                f"{several.sum():,} clean files hold {images}, equal byte for byte: "
                "--share goes by names and may part them. `derainctl leaks` compares the pixels."
            )

    def _count(self, rows: pa.Table) -> None:
        self._rainy.append(_prefixes(rows["rain_sha256"]))
        names = rows["clean_source"].to_pylist()
        others = zip(names, [self._last_clean, *names], strict=False)
        first = pa.array([name is not None and name != before for name, before in others])
        self._clean.append(_prefixes(rows["clean_sha256"].filter(first)))
        self._last_clean = names[-1]
        same = rows["rain_source"].filter(pc.equal(rows["rain_sha256"], rows["clean_sha256"]))
        self._example = self._example or next(iter(same.to_pylist()), "")
        self._unchanged += len(same)
        self._sizes.update(np.unique(rows["json_offset"], return_counts=True)[1].tolist())


def digest_prefix(digest: str) -> int:
    """The first 64 bits of a hexadecimal SHA-256."""
    return int(digest[:16], 16)


def _prefixes(digests: pa.ChunkedArray) -> np.ndarray:
    """The prefix of every digest: (rows,) uint64."""
    return np.array([digest_prefix(text) for text in digests.to_pylist()], np.uint64)
