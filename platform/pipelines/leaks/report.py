"""The report of `leaks`: the images side by side, for a person to judge.

<folder>/leaks.json   what `--json` prints; `prepare --without` reads it
<folder>/report.md    the matches, with their images
<folder>/report.html  the same, for a browser
<folder>/images/      training image left, test image right
"""

import html
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from derain.data.prepared.manifest import Prepared, open_prepared
from derain.errors import DataError, OccupiedError
from derain.pipelines.leaks.clean_images import CleanImage, clean_images, read_pixels
from derain.pipelines.leaks.compare import Leaks, Match
from derain.storage.output_paths import check_folder

SHOWN = 200
"""Maximum number of matches with images; those that differ most come first, as they need a look."""
HEIGHT_PX = 200

_STYLE = (
    "body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; "
    "padding: 0 1rem; } img { max-width: 100%; } figure { margin: 1rem 0; }"
)


def refuse_occupied(folder: Path) -> None:
    """Raise OccupiedError unless the folder is new or empty."""
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()):
        raise OccupiedError(f"{folder}: not an empty folder. Choose a new one for the report.")


def write_report(found: Leaks, folder: Path) -> None:
    """Write the report. Raises OccupiedError unless the folder is new or empty."""
    refuse_occupied(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    document = json.dumps(asdict(found), indent=2) + "\n"
    (folder / "leaks.json").write_text(document, encoding="utf-8")
    shown = sorted(found.matches, key=lambda match: -match.distance)[:SHOWN]
    files = _write_images(found, shown, folder)
    captions = [_caption(match) for match in shown]
    lines = summary(found)
    (folder / "report.md").write_text(_markdown(lines, captions, files), encoding="utf-8")
    (folder / "report.html").write_text(_html(lines, captions, files), encoding="utf-8")


def read_leaked(path: Path) -> dict[str, str]:
    """The leaked images that a leaks.json names: SHA-256 by file name in the training set's source.

    Raises DataError for a file that is not the output of `derainctl leaks --json`.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {match["train_clean"]: match["train_clean_sha256"] for match in tree["matches"]}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{path}: not the output of `derainctl leaks --json`.") from None


def summary(found: Leaks) -> list[str]:
    """The result in a few lines."""
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
    lines += [
        f"{len(images)} clean images of {name} cannot be read and were left out"
        for name, images in found.left_out.items()
        if images
    ]
    return [*lines, f"same scene: at most {found.distance} of 256 bits differ"]


def _write_images(found: Leaks, shown: list[Match], folder: Path) -> list[str]:
    """Write one image per match; returns their names below the folder."""
    train, train_images = _images_by_key(found.train)
    test, test_images = _images_by_key(found.test)
    files = []
    for number, match in enumerate(shown):
        name = f"images/{number:04d}.jpg"
        left = read_pixels(train, train_images[match.train])
        right = read_pixels(test, test_images[match.test])
        _side_by_side(left, right).save(folder / name, quality=85)
        files.append(name)
    return files


def _images_by_key(folder: str) -> tuple[Prepared, dict[str, CleanImage]]:
    prepared = open_prepared(folder)
    return prepared, {image.key: image for image in clean_images(prepared)}


def _side_by_side(left: np.ndarray, right: np.ndarray) -> Image.Image:
    images = [Image.fromarray(pixels) for pixels in (left, right)]
    sized = [im.resize((max(1, im.width * HEIGHT_PX // im.height), HEIGHT_PX)) for im in images]
    canvas = Image.new("RGB", (sized[0].width + 8 + sized[1].width, HEIGHT_PX), "white")
    canvas.paste(sized[0], (0, 0))
    canvas.paste(sized[1], (sized[0].width + 8, 0))
    return canvas


def _caption(match: Match) -> str:
    same = "equal pixels" if match.exact else f"{match.distance} bits differ"
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
