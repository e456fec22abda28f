"""Which dataset a cache is of: a note beside the cache, whose own name is only a digest."""

import contextlib
import json
from pathlib import Path

from derain.storage.atomic import write_text


def note_path(cache: Path) -> Path:
    """The file beside a cache that names the folders of its dataset."""
    return cache.with_suffix(".dataset.json")


def note_dataset(cache: Path, folder: Path) -> None:
    """Add a folder of the dataset to the note; another user's cache keeps the note that it has."""
    folders = datasets_of(cache)
    if str(folder) not in folders:
        with contextlib.suppress(OSError):
            text = json.dumps({"folders": [*folders, str(folder)]}) + "\n"
            write_text(note_path(cache), text, durable=False)


def datasets_of(cache: Path) -> list[str]:
    """The folders from which a cache was built or used; empty for a cache of earlier versions."""
    note = note_path(cache)
    try:
        folders = json.loads(note.read_text(encoding="utf-8"))["folders"] if note.is_file() else []
        return [it for it in folders if isinstance(folders, list) and isinstance(it, str)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
