"""Pictures in, clean pictures out, with a registered model or a checkpoint."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from derain.data.pictures import encode_png, is_picture, read_picture
from derain.errors import DataError, OccupiedError
from derain.pipelines.evaluate import load_predictor


def predict(
    model: str,
    inputs: Sequence[Path],
    out: Path,
    *,
    device: str = "cpu",
    trust: bool = False,
    stride: int | None = None,
) -> list[str]:
    """Derain pictures and folders of pictures into `out`, as PNG of the same stem.

    Returns the files that were written. Raises DataError for a missing or unreadable picture,
    OccupiedError when a file would be overwritten.
    """
    targets = {}
    for picture in _pictures(inputs):
        target = out / f"{picture.stem}.png"
        if target in targets or target.exists():
            raise OccupiedError(f"{target}: would be overwritten. Choose another --out.")
        targets[target] = picture
    predictor = load_predictor(model, device, trust=trust, stride=stride)
    out.mkdir(parents=True, exist_ok=True)
    for target, picture in targets.items():
        target.write_bytes(encode_png(predictor.derain(read_picture(picture))))
    return [str(target) for target in targets]


def _pictures(inputs: Sequence[Path]) -> Iterator[Path]:
    for given in inputs:
        if given.is_dir():
            yield from sorted(path for path in given.iterdir() if is_picture(path))
        elif given.is_file():
            yield given
        else:
            raise DataError(f"{given}: no such picture or folder.")
