"""A miniature of a published dataset, built only from its row of the catalogue."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from derain.data.sources.layouts import Layout
from derain.data.sources.patterns import Pattern

SCENES = 3
RAINS = 2
WIDTH, HEIGHT = 12, 8


@dataclass(frozen=True)
class Miniature:
    """The folder that was built, and its pairs."""

    source: Path
    pairs: dict[str, str | None]
    """Clean names by rainy names, relative to the folder."""


def build(layout: Layout, source: Path) -> Miniature:
    """Three clean images, two rainy ones for each if the names allow it, and clutter."""
    prefix = f"{layout.folder}/" if layout.folder else ""
    pairs = {prefix + rain: clean and prefix + clean for rain, clean in _names(layout)}
    for rain, clean in pairs.items():
        if layout.clean_half:
            _image(source / rain, rain, wide=True)
            continue
        _image(source / rain, rain)
        if clean:
            _image(source / clean, clean)
    if layout.clean_half:
        pairs = {rain: None if layout.clean_half == "none" else rain for rain in pairs}
    if layout.listing:
        inside = {rain.removeprefix(prefix): clean for rain, clean in pairs.items()}
        lines = [
            f"./{rain} /{(clean or '').removeprefix(prefix)}" for rain, clean in inside.items()
        ]
        (source / prefix / layout.listing).write_text("\n".join(lines))  # no newline at the end
    for clutter in ("Thumbs.db", ".hidden.png", "deep/er/down/rainstreak-1.png", "readme.txt"):
        path = source / prefix / clutter
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"clutter")
    return Miniature(source, pairs)


def _names(layout: Layout) -> Iterator[tuple[str, str | None]]:
    rain = layout.rain_pattern
    for scene in range(SCENES):
        clean = layout.clean_patterns[scene % len(layout.clean)] if layout.clean else None
        for number in range(RAINS):
            values = _values(layout, rain, clean, scene, number)
            yield rain.fill(values), clean.fill(values) if clean else None


def _values(
    layout: Layout, rain: Pattern, clean: Pattern | None, scene: int, number: int
) -> Mapping[str, object]:
    """Fields of both names come from the scene, the others from the rainy image."""
    digits = {name for name in rain.fields if f"{{{name}:d}}" in rain.text}
    values: dict[str, object] = {}
    for name in rain.fields:
        shared = clean is None or name in clean.fields
        count = scene if shared else number
        first = layout.only[name].start if name in layout.only else 5
        values[name] = first + count if name in digits else f"{name[0]}{count}.x"
    return values


def _image(path: Path, seed: str, *, wide: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(seed.encode()))
    shape = (HEIGHT, WIDTH * (2 if wide else 1), 3)
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
