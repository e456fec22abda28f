"""`predict`: images in, clean images out."""

import hashlib
import io
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from derain.data.images.convert import OddImage, read_odd
from derain.data.images.decode import read_file
from derain.data.images.left_out import LeftOut, because, warn
from derain.data.prepared.remarks import Remarks, joined, notes
from derain.data.sources.inputs import InputImage, find_inputs
from derain.errors import DerainError, OccupiedError, UsageError
from derain.inference.predictor import Predictor, Tile
from derain.models import fingerprint
from derain.pipelines.load_model import load_predictor
from derain.pipelines.predict import video
from derain.pipelines.predict.encode import Form
from derain.pipelines.predict.names import unique_names
from derain.pipelines.predict.record import RECORD, Record, file_sha256, sha256
from derain.pipelines.progress import progress
from derain.storage.atomic import new_file
from derain.storage.output_paths import check_folder

log = logging.getLogger(__name__)

COMPARED = "compare"
"""The folder of the images side by side, in the folder of the results."""
AHEAD = 2
"""Images that are decoded before the network needs them, and encoded after it."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Predicted:
    """What `predict` wrote, as `--json` prints it."""

    pictures: list[str] = field(default_factory=list)
    """The results: those written now, and those of an earlier call that was stopped."""
    written: list[str] = field(default_factory=list)
    """The files that were written now."""
    skipped: list[str] = field(default_factory=list)
    """Results of an earlier call with the same model, options and images."""
    failed: list[LeftOut] = field(default_factory=list)
    """Images that could not be derained."""
    left_out: list[LeftOut] = field(default_factory=list)
    """Entries of folders that are called like images but are no files."""
    notes: list[str] = field(default_factory=list)
    """What else in the folders was not used, and what was converted."""
    seconds: float = 0.0
    """Without loading the model."""


def predict(
    model: str,
    inputs: Sequence[Path],
    out: Path,
    *,
    device: str = "auto",
    trust: bool = False,
    stride: int | None = None,
    tile: Tile = "auto",
    form: Form = Form(),  # noqa: B008
    compare: bool = False,
    overwrite: bool = False,
) -> Predicted:
    """Derain images, folders of images and videos; writes a file for each into `out`.

    Folders are searched with all folders below them, whose structure `out` gets. Images of any kind
    that `images.convert` reads are derained as 8-bit or 16-bit sRGB, and the results are in the
    form of the images, as far as the format `form` holds it: bits, alpha, grey, colour profile;
    they are upright. Videos are named one by one; see `video`. A damaged file costs only itself.
    With `compare`, `out/compare` gets each image and its result side by side. A call that was
    stopped goes on where it was, see `record`.

    Raises DataError for paths that do not exist or hold no image, OccupiedError if a file would be
    overwritten, unless `overwrite` is given. The other arguments are those of `load_predictor`.
    """
    check_folder(out)
    found = find_inputs(inputs)
    targets = unique_names(
        found.images, lambda name: video.ending(name) if video.is_video(name) else form.ending(name)
    )
    _check_names(targets, compare=compare)
    if not overwrite and not (out / RECORD).exists():
        _refuse(out / name for name in targets if (out / name).exists())
    warn("predict", found.left_out)
    for note in found.notes:
        log.warning("predict: %s", note)
    predictor = load_predictor(model, device, trust=trust, stride=stride, tile=tile)
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    request = _request(model, predictor, tile, form, compare=compare)
    work = _Work(predictor, out, Record(out, request), form, compare)
    skipped = set() if overwrite else _finished(work, targets)
    left = {name: image for name, image in targets.items() if name not in skipped}
    result = Predicted(
        skipped=[str(out / name) for name in targets if name in skipped],
        left_out=found.left_out,
        notes=found.notes,
    )
    if skipped:
        log.info("predict: %d of %d images were done before", len(skipped), len(targets))
    converted = _derain(work, _part(left, videos=False), result)
    for name, image in _part(left, videos=True).items():
        converted = joined((converted, _derain_video(work, name, image.path, result)))
    warn("predict", result.failed)
    result.notes.extend(notes(converted))
    for note in notes(converted):
        log.info("predict: %s", note)
    done = {*result.written, *result.skipped}
    result.pictures.extend(str(out / name) for name in targets if str(out / name) in done)
    return _with_seconds(result, time.monotonic() - began)


def predict_bytes(
    model: str,
    given: bytes,
    *,
    device: str = "auto",
    trust: bool = False,
    stride: int | None = None,
    tile: Tile = "auto",
    form: Form = Form(),  # noqa: B008
) -> bytes:
    """Derain one image file in memory; raises DataError if it is none."""
    image = read_odd(given, "The image")
    predictor = load_predictor(model, device, trust=trust, stride=stride, tile=tile)
    return form.encode(image, predictor.derain(image.srgb), given)


@dataclass(frozen=True)
class _Work:
    """What is done with each image: decoded, derained, written."""

    predictor: Predictor
    out: Path
    record: Record
    form: Form
    compare: bool

    def decode(self, image: InputImage) -> tuple[OddImage, bytes]:
        """Raises DerainError if the image is damaged."""
        given = read_file(image.path)
        decoded = read_odd(given, str(image.path))
        _ = decoded.srgb  # converted here, not on the network's thread
        return decoded, given

    def write(self, name: str, image: OddImage, given: bytes, derained: np.ndarray) -> None:
        """The comparison first: a result that exists has its own."""
        if self.compare:
            self._write_comparison(name, image, derained)
        encoded = self.form.encode(image, derained, given)
        target = self.out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_file(target, durable=False) as file:
            file.write(encoded)
            self.record.add(name, sha256(given), sha256(encoded))

    def write_video(self, name: str, path: Path) -> tuple[str, ...]:
        """Returns what was converted. Raises DerainError if the video is damaged."""
        target = self.out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            new_file(target, durable=False) as file,
            progress(video.frames_of(path), f"predict {path.name}", "frames") as advance,
        ):
            changes = video.derain_video(self.predictor.derain, path, file, advance)
            file.seek(0)
            made = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            self.record.add(name, file_sha256(path), made)
        return changes

    def _write_comparison(self, name: str, image: OddImage, derained: np.ndarray) -> None:
        sides = [_in_8_bits(side) for side in (image.srgb, derained)]
        target = self.out / COMPARED / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(np.concatenate(sides, axis=1)).save(buffer, format="PNG")
        with new_file(target, durable=False) as file:
            file.write(buffer.getvalue())


def _derain(work: _Work, targets: dict[str, InputImage], result: Predicted) -> Remarks:
    """Derain the images; decoding and encoding go on beside the network, in the images' order."""
    converted: Remarks = {}
    writing: deque[tuple[InputImage, str, tuple[str, ...], Future[None]]] = deque()

    def finish_one() -> None:
        nonlocal converted
        image, name, changes, written = writing.popleft()
        try:
            written.result()
        except DerainError as error:
            result.failed.append(because(str(image.path), error))
            return
        result.written.append(str(work.out / name))
        converted = joined((converted, _remarks(changes, image.path)))

    with ThreadPoolExecutor(AHEAD, "files") as files, progress(len(targets), "predict") as advance:
        decoded = _ahead(files, work.decode, targets.values())
        for name, image in targets.items():
            try:
                odd, given = next(decoded).result()
                derained = work.predictor.derain(odd.srgb)
            except DerainError as error:
                result.failed.append(because(str(image.path), error))
            else:
                changes = (*odd.conversions(), *work.form.changes(odd))
                written = files.submit(work.write, name, odd, given, derained)
                writing.append((image, name, changes, written))
            while len(writing) > AHEAD:
                finish_one()
            advance()
        while writing:
            finish_one()
    return converted


def _derain_video(work: _Work, name: str, path: Path, result: Predicted) -> Remarks:
    try:
        changes = work.write_video(name, path)
    except DerainError as error:
        result.failed.append(because(str(path), error))
        return {}
    result.written.append(str(work.out / name))
    return _remarks(changes, path)


def _part(targets: dict[str, InputImage], *, videos: bool) -> dict[str, InputImage]:
    return {n: image for n, image in targets.items() if video.is_video(image.path) == videos}


def _remarks(changes: Iterable[str], path: Path) -> Remarks:
    return {f"Files that were converted, {it}": (1, str(path)) for it in changes}


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Future[Result]]:
    """The futures of the work on each item, begun `AHEAD` items before they are asked for."""
    begun: deque[Future[Result]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) > AHEAD:
            yield begun.popleft()
    yield from begun


def _finished(work: _Work, targets: dict[str, InputImage]) -> set[str]:
    """The targets that are results of this request already.

    Raises OccupiedError for a file that is none.
    """
    existing = {name: image for name, image in targets.items() if (work.out / name).exists()}
    done = {name for name, image in existing.items() if work.record.has(name, image.path)}
    _refuse(work.out / name for name in existing if name not in done)
    return done


def _refuse(existing: Iterable[Path]) -> None:
    for target in existing:
        raise OccupiedError(
            f"{target}: would be overwritten. Choose another --out, or give --overwrite. (Results "
            "of the same model, options and images are kept, and a stopped command goes on.)"
        )


def _check_names(targets: Iterable[str], *, compare: bool) -> None:
    taken = [name for name in targets if name.split("/", 1)[0] == COMPARED and "/" in name]
    if compare and taken:
        raise UsageError(
            f"--compare writes to the folder {COMPARED}/, which {taken[0]} would be in. Rename the "
            f"folder {COMPARED} of the images."
        )


def _request(
    model: str, predictor: Predictor, tile: Tile, form: Form, *, compare: bool
) -> dict[str, Any]:
    """What the pixels of the results depend on, besides the images."""
    path = Path(model)
    return {
        "weights": file_sha256(path) if path.is_file() else fingerprint(predictor.network),
        "tile": tile,
        "format": form.format,
        "quality": form.quality,
        "compare": compare,
    }


def _in_8_bits(levels: np.ndarray) -> np.ndarray:
    return levels if levels.dtype == np.uint8 else (levels // 257).astype(np.uint8)


def _with_seconds(result: Predicted, seconds: float) -> Predicted:
    return Predicted(**{**vars(result), "seconds": round(seconds, 3)})
