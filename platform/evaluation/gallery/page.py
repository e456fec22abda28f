"""Writes a gallery: one HTML file that fetches nothing, in which images can be compared."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from derain.evaluation.gallery.images import GalleryImage

SHOWN = 100
"""The most images of a page, unless its writer says otherwise."""
LIMIT_BYTES = 64_000_000
"""The size that the images of a page share."""


def write_gallery(
    path: Path,
    title: str,
    images: Iterable[GalleryImage],
    *,
    count: int = SHOWN,
    limit_bytes: int = LIMIT_BYTES,
    notes: Sequence[str] = (),
) -> int:
    """Write the page; returns how many images it has.

    `images` is read one at a time, so that memory holds one. Each may take 1 / `count` of
    `limit_bytes`, `count` being the most that will come. `notes` are sentences below the title,
    such as the protocol of the metrics and which images of how many are shown.
    """
    raise NotImplementedError
