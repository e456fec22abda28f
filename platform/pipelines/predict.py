"""Images in, clean images out, with a registered model or a checkpoint."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from derain.data.images.decode import SUFFIXES, encode_png, is_image, read_image
from derain.errors import DataError, OccupiedError
from derain.inference.predictor import Predictor
from derain.pipelines.load_model import load_predictor
from derain.storage.output_paths import check_folder

_KINDS = ", ".join(sorted(SUFFIXES))


def predict(
    model: str,
    inputs: Sequence[Path],
    out: Path,
    *,
    device: str = "auto",
    trust: bool = False,
    stride: int | None = None,
) -> list[str]:
    """Derain images and folders of images into `out`, as PNG of the same stem.

    Returns the files that were written: all of them, or none where it fails, so that the same
    call can be given again. Raises DataError for a missing or unreadable image and for folders
    without any, OccupiedError when a file would be overwritten.
    """
    check_folder(out)
    targets = {}
    for image in _images(inputs):
        target = out / f"{image.stem}.png"
        if target in targets or target.exists():
            raise OccupiedError(f"{target}: would be overwritten. Choose another --out.")
        targets[target] = image
    if not targets:
        raise DataError(f"No image in {', '.join(map(str, inputs))}; expected {_KINDS}.")
    predictor = load_predictor(model, device, trust=trust, stride=stride)
    for image in targets.values():  # a damaged one is told before hours of work
        read_image(image)
    _write(predictor, targets, out)
    return [str(target) for target in targets]


def _write(predictor: Predictor, targets: Mapping[Path, Path], out: Path) -> None:
    """Derain every image, and give the files their names once all are there."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".partial-") as unfinished:
        for target, image in targets.items():
            derained = predictor.derain(read_image(image))
            Path(unfinished, target.name).write_bytes(encode_png(derained))
        for target in targets:
            Path(unfinished, target.name).rename(target)


def _images(inputs: Sequence[Path]) -> Iterator[Path]:
    for given in inputs:
        if given.is_dir():
            yield from sorted(path for path in given.iterdir() if is_image(path))
        elif given.is_file():
            yield given
        else:
            raise DataError(f"{given}: no such image or folder.")
