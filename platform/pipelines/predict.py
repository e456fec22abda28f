"""`predict`: images in, clean images out."""

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
    """Derain images and folders of images; writes PNG files with the same stems into `out`.

    Returns the written files. If anything fails, no file is written, so the same call can be
    repeated. Raises DataError for a missing or unreadable image and if the folders hold no image,
    OccupiedError if a file would be overwritten. The other arguments are those of `load_predictor`.
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
    for image in targets.values():  # damaged images are reported before hours of work
        read_image(image)
    _write(predictor, targets, out)
    return [str(target) for target in targets]


def _write(predictor: Predictor, targets: Mapping[Path, Path], out: Path) -> None:
    """Derain all images into a temporary folder, then move the files to their names."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".partial-") as unfinished:
        for target, image in targets.items():
            derained = predictor.derain(read_image(image))
            Path(unfinished, target.name).write_bytes(encode_png(derained))
        for target in targets:
            Path(unfinished, target.name).rename(target)


def _images(inputs: Sequence[Path]) -> Iterator[Path]:
    for path in inputs:
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if is_image(file))
        elif path.is_file():
            yield path
        else:
            raise DataError(f"{path}: no such image or folder.")
