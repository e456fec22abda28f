"""Pictures in, clean pictures out, with a registered model or a checkpoint."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from derain.data.images.decode import SUFFIXES, encode_png, is_picture, read_picture
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
    """Derain pictures and folders of pictures into `out`, as PNG of the same stem.

    Returns the files that were written: all of them, or none where it fails, so that the same
    call can be given again. Raises DataError for a missing or unreadable picture and for folders
    without any, OccupiedError when a file would be overwritten.
    """
    check_folder(out)
    targets = {}
    for picture in _pictures(inputs):
        target = out / f"{picture.stem}.png"
        if target in targets or target.exists():
            raise OccupiedError(f"{target}: would be overwritten. Choose another --out.")
        targets[target] = picture
    if not targets:
        raise DataError(f"No picture in {', '.join(map(str, inputs))}; expected {_KINDS}.")
    predictor = load_predictor(model, device, trust=trust, stride=stride)
    for picture in targets.values():  # a damaged one is told before hours of work
        read_picture(picture)
    _write(predictor, targets, out)
    return [str(target) for target in targets]


def _write(predictor: Predictor, targets: Mapping[Path, Path], out: Path) -> None:
    """Derain every picture, and give the files their names once all are there."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".partial-") as unfinished:
        for target, picture in targets.items():
            derained = predictor.derain(read_picture(picture))
            Path(unfinished, target.name).write_bytes(encode_png(derained))
        for target in targets:
            Path(unfinished, target.name).rename(target)


def _pictures(inputs: Sequence[Path]) -> Iterator[Path]:
    for given in inputs:
        if given.is_dir():
            yield from sorted(path for path in given.iterdir() if is_picture(path))
        elif given.is_file():
            yield given
        else:
            raise DataError(f"{given}: no such picture or folder.")
