"""What was found of one split in a source: its pairs, and all that is not in a pair."""

from collections.abc import Iterator
from dataclasses import dataclass

from derain.data.images.kinds import ending
from derain.data.sources.entries import OTHER_FILES, Ignored
from derain.data.sources.layouts import Dataset, Layout
from derain.data.sources.matching import Unpaired
from derain.data.sources.pairs import Pair

OTHER_SPLITS = "Images of other splits, which were left out"
"""How the note on images of other splits begins."""

QUIET = (OTHER_FILES, OTHER_SPLITS)
"""How the notes begin that are no reason for concern."""


@dataclass(frozen=True)
class FoundPairs:
    """What a source contains of one split."""

    dataset: Dataset
    split: str
    layout: Layout
    pairs: list[Pair]
    unpaired: list[Unpaired]
    total: int
    """Number of pairs in the whole source, before a share was taken and leaks were left out."""
    leaked: list[Pair]
    """The pairs that were left out because another dataset has their clean images."""
    unrecognised: list[str]
    """Images that fit neither the layout nor the layout of another split."""
    other_splits: list[str]
    """Images of other splits."""
    ignored: tuple[Ignored, ...]
    """What else was left out though it may be an image, and labels of no image."""
    partial_labels: tuple[str, ...]
    """A note for each label that some images lack."""
    quiet: tuple[str, ...]
    """Notes on files that are no images."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What users of the dataset should know, such as a count that differs from the published.

        The manifest stores these texts: other words give a prepared dataset another identity.
        """
        others = [Ignored(OTHER_SPLITS, tuple(self.other_splits))] if self.other_splits else []
        return (
            *self._count_note(),
            *self._leak_note(),
            *self._format_notes(),
            *map(str, self.left_out),
            *self.partial_labels,
            *map(str, others),
            *self.quiet,
        )

    @property
    def left_out(self) -> tuple[Ignored, ...]:
        """All that `--strict` does not accept, but for quarantined images and partial labels."""
        if not self.unrecognised:
            return self.ignored
        what = f"Images without a place in the layout {self.layout}, which were left out"
        return (Ignored(what, tuple(self.unrecognised)), *self.ignored)

    def _leak_note(self) -> Iterator[str]:
        if self.leaked:
            yield (
                f"{len(self.leaked):,} pairs were left out: another dataset has their clean images."
            )

    def _count_note(self) -> Iterator[str]:
        published = self.dataset.splits.get(self.split, ())
        if published and self.total not in published:
            stated = " or ".join(f"{count:,}" for count in published)
            yield (
                f"{self.dataset.title}, {self.split}: {self.total:,} pairs were found, "
                f"{stated} are published."
            )

    def _format_notes(self) -> Iterator[str]:
        if self.layout.clean_half:
            return  # halves of side-by-side images are all written as PNG
        sides = {
            "rainy": {ending(pair.rain) for pair in self.pairs},
            "clean": {ending(pair.clean) for pair in self.pairs if pair.clean},
        }
        for side, endings in sides.items():
            if len(endings) > 1:
                yield (
                    f"The {side} images mix {' and '.join(sorted(endings))}, as the source does: "
                    'Hugging Face load_dataset("webdataset") wants one format a column.'
                )
