"""Labels of images from labels.json: looked up by path or by name, and all of it accounted for."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from derain.data.sources.entries import LABELS, Ignored
from derain.data.sources.names import fold, printable, stem
from derain.errors import DataError
from derain.storage import files

UNKNOWN = ""
"""The value of a label that an image lacks and others have. Not null: Hugging Face takes the type
of a column from the first samples, and refuses text in one that began with nulls."""


@dataclass
class Labels:
    """The entries of one labels.json, by four spellings of their names."""

    file: str
    """Its name, relative to the source."""
    entries: Mapping[str, Mapping[str, str]]
    """Labels by name as written, without a leading `./`."""
    used: set[str] = field(default_factory=set)
    """The entries that were looked up."""

    def __post_init__(self) -> None:
        self._tables: list[dict[str, list[str]]] = [{}, {}, {}, {}]
        for name in self.entries:
            for table, key in zip(self._tables, _spellings(name), strict=True):
                table.setdefault(key, []).append(name)

    def of(self, name: str) -> Mapping[str, str]:
        """The labels of an image, by its path below the folder of labels.json.

        The path counts before the name alone, the very same spelling before one without ending,
        and that before one in other case. Raises DataError if two entries contradict each other.
        """
        for text in (name, name.rpartition("/")[2]):
            whole, short, folded, folded_short = self._tables
            for table, key in (
                *((whole, text), (whole, stem(text)), (short, stem(text))),
                *((folded, fold(text)), (folded, fold(stem(text)))),
                (folded_short, fold(stem(text))),
            ):
                if names := table.get(key):
                    self.used.update(names)
                    return self._agreed(text, names)
        return {}

    def _agreed(self, name: str, names: Sequence[str]) -> Mapping[str, str]:
        first = self.entries[names[0]]
        for other in names[1:]:
            if self.entries[other] != first:
                raise DataError(
                    f"{self.file}: conflicting labels for {stem(name)}: {dict(first)} and "
                    f"{dict(self.entries[other])}."
                )
        return first

    def unmatched(self, images: Collection[str]) -> Iterator[Ignored]:
        """The entries that no image of the source has the name of, as something to report."""
        rest = [name for name in self.entries if name not in self.used]
        if not rest:
            return
        known = {key for it in images for key in _all_spellings(it)}
        folder = self.file.rpartition("/")[0]
        known.update(
            key
            for it in images
            if folder and it.startswith(f"{folder}/")
            for key in _all_spellings(it[len(folder) + 1 :])
        )
        unknown = [name for name in rest if known.isdisjoint(_spellings(name))]
        if unknown:
            what = f"Entries of {printable(self.file)} that are the name of no image"
            yield Ignored(what, tuple(unknown))


def read_labels(source: Path, folder: str) -> Labels | None:
    """The labels.json of a folder of the source, None without such a file.

    Raises DataError for a file of another format.
    """
    name = f"{folder}/{LABELS}" if folder else LABELS
    path = source / name
    if not path.is_file():
        return None
    try:
        tree = json.loads(files.read_bytes(source, name))
        entries = {
            key.removeprefix("./"): {label: _text(value) for label, value in of.items()}
            for key, of in tree.items()
        }
    except (ValueError, AttributeError, RecursionError):
        raise DataError(f"{path}: expected {{file name: {{label: value}}}}.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None
    return Labels(name, entries)


def complete(labels: Sequence[Mapping[str, str]]) -> tuple[list[dict[str, str]], list[str]]:
    """The labels of all images with the same keys for each, and a note for every partial label."""
    keys = list(dict.fromkeys(key for it in labels for key in it))
    notes = []
    for key in keys:
        count = sum(bool(it.get(key)) for it in labels)
        if count < len(labels):
            notes.append(
                f"{count:,} of {len(labels):,} images have the label {key}; it is empty for the "
                "others."
            )
    return [{key: it.get(key, UNKNOWN) for key in keys} for it in labels], notes


def _text(value: object) -> str:
    return UNKNOWN if value is None else str(value)


def _spellings(name: str) -> tuple[str, str, str, str]:
    return name, stem(name), fold(name), fold(stem(name))


def _all_spellings(path: str) -> Iterable[str]:
    return (*_spellings(path), *_spellings(path.rpartition("/")[2]))
