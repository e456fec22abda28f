"""The report of `leaks`: the images side by side, for a person to judge.

<folder>/leaks.json   what `--json` prints; `prepare --without` reads it
<folder>/report.md    with the images beside it
<folder>/report.html  the same, to be opened in a browser
<folder>/images/    training image left, test image right
"""

import html
from pathlib import Path

import numpy as np
from PIL import Image

from derain.data.prepared.manifest import open_prepared
from derain.errors import OccupiedError
from derain.pipelines.leaks.verb import Leaks, Match, as_json, clean_images, read
from derain.storage.output_paths import check_folder

SHOWN = 200
"""Matches with images; the ones that differ most come first, for they are the ones to judge."""
HEIGHT_PX = 200

_STYLE = (
    "body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; "
    "padding: 0 1rem; } img { max-width: 100%; } figure { margin: 1rem 0; }"
)


def refuse_occupied(folder: Path) -> None:
    """Raise OccupiedError for what is not a new or an empty folder."""
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()):
        raise OccupiedError(f"{folder}: not an empty folder. Choose a new one for the report.")


def write_report(found: Leaks, folder: Path) -> None:
    """Write it into a folder that is new or empty. Raises OccupiedError for another one."""
    refuse_occupied(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "leaks.json").write_text(as_json(found), encoding="utf-8")
    shown = sorted(found.matches, key=lambda match: -match.distance)[:SHOWN]
    files = _write_images(found, shown, folder)
    captions = [_caption(match) for match in shown]
    lines = summary(found)
    (folder / "report.md").write_text(_markdown(lines, captions, files), encoding="utf-8")
    (folder / "report.html").write_text(_html(lines, captions, files), encoding="utf-8")


def summary(found: Leaks) -> list[str]:
    """What was found, in a few lines."""
    lines = [
        f"train {found.train}: {found.train_pairs} pairs, {found.train_pictures} clean images",
        f"test {found.test}: {found.test_pairs} pairs, {found.test_pictures} clean images",
        f"{found.leaked_test_pictures} of the test images are in the training set, "
        f"in {found.leaked_train_pairs} of its pairs",
    ]
    lines += [
        f"{len(twice)} pairs of clean images within {name} show the same scene"
        for name, twice in found.duplicates.items()
        if twice
    ]
    return [*lines, f"same scene: at most {found.distance} of 256 bits differ"]


def _write_images(found: Leaks, shown: list[Match], folder: Path) -> list[str]:
    sides = []
    for name in (found.train, found.test):
        prepared = open_prepared(name)
        sides.append((prepared, {image.key: image for image in clean_images(prepared)}))
    (train, ours), (test, theirs) = sides
    files = []
    for number, match in enumerate(shown):
        name = f"images/{number:04d}.jpg"
        pair = read(train, ours[match.train]), read(test, theirs[match.test])
        _side_by_side(*pair).save(folder / name, quality=85)
        files.append(name)
    return files


def _side_by_side(left: np.ndarray, right: np.ndarray) -> Image.Image:
    images = [Image.fromarray(pixels) for pixels in (left, right)]
    sized = [im.resize((max(1, im.width * HEIGHT_PX // im.height), HEIGHT_PX)) for im in images]
    canvas = Image.new("RGB", (sized[0].width + 8 + sized[1].width, HEIGHT_PX), "white")
    canvas.paste(sized[0], (0, 0))
    canvas.paste(sized[1], (sized[0].width + 8, 0))
    return canvas


def _caption(match: Match) -> str:
    same = "the same pixels" if match.exact else f"{match.distance} bits differ"
    return f"{match.train_clean} | {match.test_clean}: {same}"


def _markdown(lines: list[str], captions: list[str], files: list[str]) -> str:
    shown = [f"\n{caption}\n\n![]({file})" for caption, file in zip(captions, files, strict=True)]
    return "\n".join(["# Leaks", "", *(f"- {line}" for line in lines), *shown]) + "\n"


def _html(lines: list[str], captions: list[str], files: list[str]) -> str:
    listed = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    figures = "".join(
        f'<figure><img src="{file}" alt=""><figcaption>{html.escape(caption)}</figcaption></figure>'
        for caption, file in zip(captions, files, strict=True)
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Leaks</title>'
        f"<style>{_STYLE}</style><h1>Leaks</h1><ul>{listed}</ul>{figures}</html>\n"
    )
