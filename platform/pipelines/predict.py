"""`predict`: images in, clean images out."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from derain.data.images.convert import read_odd
from derain.data.images.decode import read_file
from derain.data.images.left_out import LeftOut, because, warn
from derain.data.prepared.remarks import Remarks, joined, notes
from derain.data.sources.inputs import InputImage, find_inputs
from derain.errors import DerainError, OccupiedError
from derain.inference.predictor import Predictor, Tile
from derain.pipelines.load_model import load_predictor
from derain.storage.atomic import new_file
from derain.storage.names import fitting
from derain.storage.output_paths import check_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predicted:
    """What `predict` wrote, as `--json` prints it."""

    pictures: list[str] = field(default_factory=list)
    """The written files."""
    failed: list[LeftOut] = field(default_factory=list)
    """Images that could not be derained."""
    left_out: list[LeftOut] = field(default_factory=list)
    """Entries of folders that are called like images but are no files."""
    notes: list[str] = field(default_factory=list)
    """What else in the folders was not used, and what was converted for the network."""


def predict(
    model: str,
    inputs: Sequence[Path],
    out: Path,
    *,
    device: str = "auto",
    trust: bool = False,
    stride: int | None = None,
    tile: Tile = "auto",
) -> Predicted:
    """Derain images and folders of images; writes a PNG file for each into `out`.

    Folders are searched with all folders below them, whose structure `out` gets. Images of any kind
    that `images.convert` reads are derained as 8-bit or 16-bit sRGB, and the results are in the
    form of the images: bits, alpha, grey, colour profile; they are upright. A damaged image costs
    only itself.

    Raises DataError for paths that do not exist or hold no image, and OccupiedError if a file would
    be overwritten. The other arguments are those of `load_predictor`.
    """
    check_folder(out)
    found = find_inputs(inputs)
    targets = {out / name: image for name, image in _unique_names(found.images).items()}
    for target in targets:
        if target.exists():
            raise OccupiedError(f"{target}: would be overwritten. Choose another --out.")
    warn("predict", found.left_out)
    for note in found.notes:
        log.warning("predict: %s", note)
    predictor = load_predictor(model, device, trust=trust, stride=stride, tile=tile)
    result = Predicted(left_out=found.left_out, notes=found.notes)
    converted: Remarks = {}
    for target, image in targets.items():
        try:
            changes = _derain(predictor, image.path, target)
        except DerainError as error:
            result.failed.append(because(str(image.path), error))
        else:
            result.pictures.append(str(target))
            own = {
                f"Images that were converted for the network, {it}": (1, str(image.path))
                for it in changes
            }
            converted = joined((converted, own))
    warn("predict", result.failed)
    result.notes.extend(notes(converted))
    for note in notes(converted):
        log.info("predict: %s", note)
    return result


def _derain(predictor: Predictor, path: Path, target: Path) -> tuple[str, ...]:
    """Derain one file; returns what was converted for the network.

    Raises DerainError if the image is damaged, or too large for the memory.
    """
    image = read_odd(read_file(path), str(path))
    derained = predictor.derain(image.srgb)
    target.parent.mkdir(parents=True, exist_ok=True)
    with new_file(target, durable=False) as file:
        file.write(image.encode_result(derained))
    return image.conversions()


def _unique_names(images: Sequence[InputImage]) -> dict[str, InputImage]:
    """A name below the output folder for each image, such as `a.png` for `a.jpg`.

    Where several images would get one name, theirs also have the folder that the user named or
    the old ending, and in the end a number.
    """
    chosen = [0] * len(images)
    while True:
        names = [_candidate(image, level) for image, level in zip(images, chosen, strict=True)]
        counts = Counter(names)
        again = [at for at, name in enumerate(names) if counts[name] > 1]
        if not again:
            return dict(zip(names, images, strict=True))
        for number, at in enumerate(again):
            last = chosen[at] >= _NUMBERED
            chosen[at] = _NUMBERED + number + 1 if last else chosen[at] + 1


_NUMBERED = 3


def _candidate(image: InputImage, level: int) -> str:
    """The name of a result; each level is longer than the one before."""
    name = PurePosixPath(image.name)
    folder = image.folder if level in (1, 3) or level > _NUMBERED else ""
    whole = level >= 2
    number = f"-{level - _NUMBERED}" if level > _NUMBERED else ""
    file = fitting(f"{name.name if whole else name.stem}{number}.png", digest=True)
    return str(PurePosixPath(folder, name.parent, file))
