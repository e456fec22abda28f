"""`predict`: images in, clean images out."""

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from derain.data.images.convert import read_odd
from derain.data.images.left_out import LeftOut, warn
from derain.data.prepared.remarks import Remarks, joined, notes
from derain.data.sources.inputs import InputImage, find_inputs
from derain.errors import OccupiedError, UsageError
from derain.inference.exported import is_exported
from derain.inference.predictor import Predictor, Tile
from derain.models import fingerprint
from derain.pipelines.load_model import load_predictor
from derain.pipelines.predict import video
from derain.pipelines.predict.encode import Form
from derain.pipelines.predict.names import unique_names
from derain.pipelines.predict.record import (
    Record,
    Writer,
    file_sha256,
    is_recorded,
    request_digest,
)
from derain.pipelines.predict.work import COMPARED, Outcome, Work, turns_here
from derain.pipelines.progress import progress
from derain.storage.output_paths import check_folder

if TYPE_CHECKING:
    from derain.pipelines.predict.workers import Task

log = logging.getLogger(__name__)


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
    workers: int | None = 1,
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

    With one of `workers` files are derained in this process, with more on Ray, see `workers`; None
    takes as many as fit.

    Raises DataError for paths that do not exist or hold no image, OccupiedError if a file would be
    overwritten, unless `overwrite` is given. The other arguments are those of `load_predictor`.
    """
    check_folder(out)
    found = find_inputs(inputs)
    targets = unique_names(
        found.images, lambda name: video.ending(name) if video.is_video(name) else form.ending(name)
    )
    _check_names(targets, compare=compare)
    if not overwrite and not is_recorded(out):
        _refuse(out / name for name in targets if (out / name).exists())
    warn("predict", found.left_out)
    for note in found.notes:
        log.warning("predict: %s", note)
    here = workers == 1
    own_device = device if here or is_exported(model) else "cpu"
    predictor = load_predictor(model, own_device, trust=trust, stride=stride, tile=tile)
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    weights = _weights(model, predictor)
    request = _request(weights, tile, form, compare=compare)
    skipped = set() if overwrite else _finished(Record(out, request), out, targets)
    if skipped:
        log.info("predict: %d of %d images were done before", len(skipped), len(targets))
    left = {name: image.path for name, image in targets.items() if name not in skipped}
    if here:
        turns = turns_here(predictor, len(targets))
        work = Work(predictor, out, Writer(out, request), form, compare, turns)
        outcomes = _derain_here(work, left)
    else:
        from derain.pipelines.predict.workers import Task  # imports Ray, which takes a second

        exported = is_exported(model)
        task = Task(
            model=str(Path(model).absolute()) if exported else model,
            network=None if exported else predictor.network,
            weights=weights,
            trust=trust,
            stride=stride,
            tile=tile,
            out=out.absolute(),
            request=request,
            form=form,
            compare=compare,
        )
        outcomes = _derain_on_workers(task, left, workers, device)
    result = _joined(targets, out, skipped, {outcome.name: outcome for outcome in outcomes})
    result.left_out.extend(found.left_out)
    result.notes[:0] = found.notes
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


def _derain_here(work: Work, targets: Mapping[str, Path]) -> Iterator[Outcome]:
    """Derain the images, and then the videos."""
    videos = {name: path for name, path in targets.items() if video.is_video(path)}
    images = {name: path for name, path in targets.items() if name not in videos}
    with progress(len(images), "predict") as advance:
        for outcome in work.derain_images(images):
            advance()
            yield outcome
    for name, path in videos.items():
        with progress(video.frames_of(path), f"predict {path.name}", "frames") as advance:
            yield work.derain_video(name, path, advance)


def _derain_on_workers(
    task: "Task", targets: Mapping[str, Path], workers: int | None, device: str
) -> Iterator[Outcome]:
    """Derain on Ray, which is not started for nothing."""
    from derain.pipelines.predict.workers import derain_on_workers

    if not targets:
        return
    seen_by_nodes = {name: path.absolute() for name, path in targets.items()}
    with progress(len(targets), "predict", "files") as advance:
        for outcome in derain_on_workers(task, seen_by_nodes, workers, device):
            advance()
            yield outcome


def _joined(
    targets: Mapping[str, InputImage],
    out: Path,
    skipped: Collection[str],
    outcomes: Mapping[str, Outcome],
) -> Predicted:
    """What became of all files, in the order of the targets; what is unusual is logged."""
    result = Predicted()
    converted: Remarks = {}
    for name, image in targets.items():
        if name in skipped:
            result.skipped.append(str(out / name))
        elif (reason := outcomes[name].reason) is not None:
            result.failed.append(LeftOut(str(image.path), reason))
            continue
        else:
            result.written.append(str(out / name))
            converted = joined((converted, _remarks(outcomes[name].changes, image.path)))
        result.pictures.append(str(out / name))
    warn("predict", result.failed)
    result.notes.extend(notes(converted))
    for note in result.notes:
        log.info("predict: %s", note)
    return result


def _remarks(changes: Iterable[str], path: Path) -> Remarks:
    return {f"Files that were converted, {it}": (1, str(path)) for it in changes}


def _finished(record: Record, out: Path, targets: Mapping[str, InputImage]) -> set[str]:
    """The targets that are results of this request already.

    Raises OccupiedError for a file that is none.
    """
    existing = {name: image for name, image in targets.items() if (out / name).exists()}
    done = {name for name, image in existing.items() if record.has(name, image.path)}
    _refuse(out / name for name in existing if name not in done)
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


def _weights(model: str, predictor: Predictor) -> str:
    """The digest of a network, or of the file that it was exported to."""
    path = Path(model)
    return file_sha256(path) if path.is_file() else fingerprint(predictor.network)


def _request(weights: str, tile: Tile, form: Form, *, compare: bool) -> str:
    """The digest of what the pixels of the results depend on, besides the images."""
    return request_digest(
        {
            "weights": weights,
            "tile": tile,
            "format": form.format,
            "quality": form.quality,
            "compare": compare,
        }
    )


def _with_seconds(result: Predicted, seconds: float) -> Predicted:
    return Predicted(**{**vars(result), "seconds": round(seconds, 3)})
