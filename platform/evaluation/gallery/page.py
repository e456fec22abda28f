"""Writes a gallery: one HTML file that fetches nothing, in which images can be compared."""

import base64
import hashlib
import html
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from derain.evaluation.gallery.encoding import Encoded, encode, palette, thumbnail
from derain.evaluation.gallery.images import ERROR_LEVELS, RAINY, GalleryImage, metric_label
from derain.storage.atomic import new_file

SHOWN = 100
"""The most images of a page, unless its writer says otherwise."""
LIMIT_BYTES = 64_000_000
"""The size that the images of a page share."""

_SCRIPTS = ("page.js", "list.js", "image.js", "spot.js", "controls.js")
_IMAGES = "<!-- images -->\n"


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
    `limit_bytes`, `count` being the most that will come; `encode` says what that means for its
    pixels. `notes` are sentences below the title, such as the protocol of the metrics and which of
    how many images are shown. The file is whole or absent.
    """
    before, after = _frame(title, notes).split(_IMAGES)
    number = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, durable=False) as file:
        file.write(before.encode())
        for number, image in enumerate(images, 1):
            for block in _blocks(number, image, limit_bytes // count):
                file.write(block.encode())
        file.write(after.encode())
    return number


def _frame(title: str, notes: Sequence[str]) -> str:
    """The page without images. Its policy allows this style and this script, and no other."""
    style = _asset("page.css") + f"#legend span {{ background: {_gradient()}; }}\n"
    script = "\n".join(_asset(name) for name in _SCRIPTS)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    return Template(_asset("page.html")).substitute(
        policy=policy,
        title=html.escape(title),
        style=style,
        script=script,
        notes="".join(f"<p>{html.escape(note)}</p>" for note in notes),
        most=ERROR_LEVELS - 1,
    )


def _blocks(number: int, image: GalleryImage, share_bytes: int) -> Iterator[str]:
    """The inert blocks of an image: each file as a data: URL, then what the page knows of it."""
    small = thumbnail(image.rain)
    panels = encode(image, share_bytes - len(small.data) * 4 // 3)
    shown = [(name, False, file) for name, file in panels.images.items()]
    shown += [(name, True, file) for name, file in panels.errors.items()]
    described = []
    for at, (name, error, file) in enumerate(shown):
        yield _inert(f"file-{number}-{at}", file)
        described.append({"name": name, "error": error, "block": f"file-{number}-{at}"})
    yield _inert(f"file-{number}", small)
    height, width = image.rain.shape[:2]
    known = {
        "dataset": image.dataset,
        "key": image.key,
        "width": width,
        "height": height,
        "coding": panels.coding,
        "thumbnail": f"file-{number}",
        "panels": described,
        "metrics": _ordered(image),
    }
    yield f'<script type="application/json" class="image">{_json(known)}</script>\n'


def _ordered(image: GalleryImage) -> dict[str, dict[str, float | None]]:
    """The metrics of the input, then of the versions as they are shown; null if not finite."""
    return {
        name: {
            metric_label(metric): value if math.isfinite(value) else None
            for metric, value in image.metrics[name].items()
        }
        for name in (RAINY, *image.outputs)
        if name in image.metrics
    }


def _inert(name: str, file: Encoded) -> str:
    data = base64.b64encode(file.data).decode()
    return f'<script type="text/plain" id="{name}">data:{file.media_type};base64,{data}</script>\n'


def _json(tree: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element that it is in, whatever its texts are."""
    return json.dumps(tree, allow_nan=False).replace("<", "\\u003c")


def _gradient() -> str:
    colours = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in palette()[::7])
    return f"linear-gradient(to right, {colours})"


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _asset(name: str) -> str:
    return (files("derain.evaluation.gallery") / "assets" / name).read_text(encoding="utf-8")
