"""Write a paired folder of synthetic rain: photographs, densities and crops by seed and index."""

import json
import logging
import math
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import UInt8

from derain.data.images import left_out
from derain.data.images.convert import read_odd
from derain.data.images.decode import encode_png, read_file
from derain.data.images.left_out import LeftOut, because
from derain.data.sources.inputs import find_inputs
from derain.data.synthetic.rain import DENSITIES, Density, render
from derain.errors import DataError, OccupiedError, UsageError
from derain.storage.names import fitting

log = logging.getLogger(__name__)

Part = Literal["all", "train", "validation", "test"]

PARTS_IN = 6
"""Of this many photographs, in name order, the third is for validation and the last for test."""
VALIDATION_AT, TEST_AT = 2, 5


@dataclass(frozen=True, kw_only=True)
class SynthesisSummary:
    """Result of `synthesize`."""

    folder: Path
    pairs: int
    scenes: tuple[str, ...]
    """Stems of the photographs that were used."""
    densities: dict[str, int]
    """Number of pairs of each density."""
    left_out: tuple[LeftOut, ...] = ()
    """Photographs that cannot be used; their pairs are missing."""


@dataclass(frozen=True)
class _Task:
    """One pair of a synthesis."""

    index: int
    photograph: Path
    density: Density
    entropy: tuple[int, int]

    @property
    def scene(self) -> str:
        """The photograph's name without its ending; bytes that are not UTF-8 become `_`."""
        stem = os.fsencode(self.photograph.stem).decode("utf-8", "replace")
        return stem.replace("\ufffd", "_")

    @property
    def name(self) -> str:
        return fitting(f"{self.index:06d}-{self.scene}.png")


def bundled_photographs() -> Path:
    """The folder of clean photographs in this package, with LICENCES.md."""
    return Path(str(files("derain.data.synthetic"))) / "photographs"


def synthesize(
    clean_dir: Path | None,
    out: Path,
    *,
    count: int,
    seed: int,
    density: Density | Literal["mixed"],
    size_px: int | None = None,
    part: Part = "all",
) -> SynthesisSummary:
    """Write `count` pairs to `out/rain`, `out/clean` and `out/labels.json`.

    The photographs of `clean_dir` (default: the bundled ones) are used in turn, in name order;
    `mixed` cycles through the densities. With `size_px` rain is rendered on a random crop of that
    size. Random draws for pair `i` depend on (seed, i) only, so a larger count adds pairs and
    changes none. No photograph is in two of `train`,
    `validation` and `test`. Photographs that are not plain 8-bit
    sRGB are converted (see `images.convert`). The pairs of one that is damaged or smaller than
    `size_px` are left out, and the summary lists it. `out` appears complete or not at all.

    Raises OccupiedError if `out` is a file or not empty, DataError if no photograph can be used,
    UsageError for other invalid arguments.
    """
    _check(count, seed, density, size_px, part)
    out = out.resolve()
    _refuse_occupied(out)
    found, no_files = _photographs(clean_dir or bundled_photographs())
    photographs = _photographs_of(found, part)
    tasks = [_task(index, photographs, density, seed) for index in range(count)]
    out.parent.mkdir(parents=True, exist_ok=True)
    hidden = f".{fitting(out.name, 200)}-"
    with tempfile.TemporaryDirectory(prefix=hidden, dir=out.parent) as temporary:
        staged = Path(temporary) / "pairs"
        written, unusable = _write(tasks, staged, size_px)
        staged.rename(out)
    left_out.warn("synthesize", [*no_files, *unusable])
    return SynthesisSummary(
        folder=out,
        pairs=len(written),
        scenes=tuple(sorted({task.scene for task in written})),
        densities=dict(Counter(task.density for task in written)),
        left_out=tuple(unusable),
    )


def _check(count: int, seed: int, density: str, size_px: int | None, part: str) -> None:
    if count < 1:
        raise UsageError(f"The count must be at least 1, found {count}.")
    if seed < 0:
        raise UsageError(f"The seed must be at least 0, found {seed}.")
    if size_px is not None and size_px < 1:
        raise UsageError(f"The crop must be at least 1 px, found {size_px}.")
    if density not in (*DENSITIES, "mixed"):
        raise UsageError(
            f"The density must be one of {', '.join(DENSITIES)}, mixed; found {density!r}."
        )
    if part not in get_args(Part):
        raise UsageError(f"The part must be one of {', '.join(get_args(Part))}; found {part!r}.")


def _refuse_occupied(out: Path) -> None:
    if out.is_dir():
        names = sorted(path.name for path in out.iterdir())
        if not names:
            return
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        reason = f"contains {', '.join(names[:3])}{more}"
    elif out.exists():
        reason = "is a file"
    else:
        return
    raise OccupiedError(
        f"{out} {reason}; nothing was written. Choose a new folder or empty this one."
    )


def _photographs(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    """The images of a folder in name order, and entries that are called like images."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected a folder of clean photographs.")
    found = find_inputs([folder], below=False)
    for note in found.notes:
        log.warning("synthesize: %s", note)
    return [image.path for image in found.images], found.left_out


def _photographs_of(photographs: Sequence[Path], part: Part) -> list[Path]:
    if part == "all":
        return list(photographs)
    if len(photographs) < PARTS_IN:
        raise DataError(
            f"{photographs[0].parent} contains {len(photographs)} images. Of every {PARTS_IN} one "
            f"is for validation and one for test, so three parts need at least {PARTS_IN}."
        )
    held_out = {"validation": VALIDATION_AT, "test": TEST_AT}
    return [
        photograph
        for number, photograph in enumerate(photographs)
        if number % PARTS_IN == held_out.get(part)
        or (part == "train" and number % PARTS_IN not in held_out.values())
    ]


def _task(index: int, photographs: Sequence[Path], density: str, seed: int) -> _Task:
    """Photographs and densities in turn, shifted so that each photograph gets each density."""
    shift = index // math.lcm(len(photographs), len(DENSITIES))
    turn = index + shift if density == "mixed" else DENSITIES.index(density)
    photograph = photographs[index % len(photographs)]
    return _Task(index, photograph, DENSITIES[turn % len(DENSITIES)], (seed, index))


def _write(
    tasks: Sequence[_Task], folder: Path, size_px: int | None
) -> tuple[list[_Task], list[LeftOut]]:
    """Write the pairs; returns those that were written, and the photographs that cannot be used.

    Raises DataError if none can be used.
    """
    for name in ("rain", "clean"):
        (folder / name).mkdir(parents=True)
    labels: dict[str, Mapping[str, str | int | float]] = {}
    written: list[_Task] = []
    unusable: dict[Path, DataError] = {}
    for task in tasks:
        if task.photograph in unusable:
            continue
        try:
            labels[task.name] = _write_pair(task, folder, size_px)
        except DataError as error:
            unusable[task.photograph] = error
        else:
            written.append(task)
    if not written:
        raise next(iter(unusable.values()))
    text = json.dumps(labels, indent=1, ensure_ascii=False) + "\n"
    (folder / "labels.json").write_text(text, encoding="utf-8")
    return written, [because(str(path), error) for path, error in unusable.items()]


def _write_pair(task: _Task, folder: Path, size_px: int | None) -> dict[str, str | int | float]:
    """Write one pair; returns its labels."""
    sequence = np.random.SeedSequence(task.entropy)
    seed = int(sequence.generate_state(1)[0])
    rng = np.random.Generator(np.random.PCG64(sequence))
    photograph = read_odd(read_file(task.photograph), str(task.photograph)).plain()
    clean = _random_crop(photograph, size_px, rng, task.photograph)
    rendering = render(clean, task.density, seed)
    (folder / "rain" / task.name).write_bytes(encode_png(rendering.rain))
    (folder / "clean" / task.name).write_bytes(encode_png(clean))
    return {
        "density": rendering.density,
        "label": rendering.label,
        "scene": task.scene,
        "seed": seed,
        "angle_deg": round(rendering.angle_deg, 3),
    }


def _random_crop(
    clean: UInt8[np.ndarray, "height width 3"],
    size_px: int | None,
    rng: np.random.Generator,
    photograph: Path,
) -> UInt8[np.ndarray, "rows columns 3"]:
    if size_px is None:
        return clean
    height, width, _ = clean.shape
    if min(height, width) < size_px:
        raise DataError(
            f"{photograph}: {width} x {height} px, too small for a crop of {size_px} px."
        )
    top, left = (int(rng.integers(size - size_px + 1)) for size in (height, width))
    return np.ascontiguousarray(clean[top : top + size_px, left : left + size_px])
