"""`init`: a config of one's own to start from, with everything that it needs, in a new folder."""

import json
import re
from pathlib import Path

from derain.config import reference, shipped
from derain.errors import OccupiedError, UsageError
from derain.storage.atomic import write_text

SCHEMA = "schema.json"


def write_starter(name: str, folder: Path) -> list[Path]:
    """Copy a shipped config and those it extends into a folder, with the schema for editors.

    `name` is that of a shipped config, or `module:Class`, a network of one's own: its config has
    the profiles of the others, without options. Returns the files; the first is the config.

    Raises UsageError for another name, OccupiedError if a file exists; then nothing is written.
    """
    texts = _own(name) if ":" in name else _shipped(name)
    texts[SCHEMA] = json.dumps(reference.file_schema(), indent=1) + "\n"
    files = {folder / file: text for file, text in texts.items()}
    for path in files:
        if path.exists() and path.read_text(encoding="utf-8") != files[path]:
            raise OccupiedError(f"{path} exists; nothing was written. Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        write_text(path, text)
    return list(files)


def _shipped(name: str) -> dict[str, str]:
    """The texts of a shipped config and those it extends, by file name, all in one folder."""
    path = shipped.folder() / f"{name}.yaml"
    if name not in shipped.names():
        raise UsageError(
            f"There is no config {name!r} to start from. Give one of {', '.join(shipped.names())}, "
            "or module:Class for a network of your own."
        )
    texts: dict[str, str] = {}
    while True:
        text = path.read_text(encoding="utf-8")
        base = re.search(r"^extends: *(\S+)", text, re.MULTILINE)
        flat = text.replace("$schema=../", "$schema=")
        if base is None:
            texts[path.name] = flat
            return texts
        above = (path.parent / base[1]).resolve()
        texts[path.name] = flat.replace(base[0], f"extends: {above.name}")
        path = above


def _own(name: str) -> dict[str, str]:
    """A config for a class, which has NAFNet's profiles with another network."""
    module, _, class_name = name.partition(":")
    text = (shipped.folder() / "nafnet.yaml").read_text(encoding="utf-8")
    text = re.sub(r"    model: &tiny\n(?:      .*\n)+", "", text)
    text = text.replace("    model: *tiny\n", "")
    head = f"# {class_name} of {module}.py, a network of your own."
    text = re.sub(r"(?m)^# NAFNet:.*$", head, text)
    text = re.sub(r"(?m)^    # Its public code.*\n    # PSNR loss\.\n", "", text)
    network = f"model:\n  name: {name}  # its options go below\n"
    text = text.replace("model:\n  name: nafnet\n", network)
    run = class_name.lower()
    return {f"{run}.yaml": text.replace("name: nafnet", f"name: {run}")}
