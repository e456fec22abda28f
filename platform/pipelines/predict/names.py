"""The names of results: one for each image, in the structure of the folders they come from."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from derain.data.sources.inputs import InputImage
from derain.storage.names import fitting

Ending = Callable[[PurePosixPath], str]
"""The ending of the result of an image file of a name."""


def unique_names(images: Sequence[InputImage], ending: Ending) -> dict[str, InputImage]:
    """A name below the output folder for each image, such as `a.png` for `a.jpg`.

    Where several images would get one name, theirs also have the folder that the user named or
    the old ending, and in the end a number.
    """
    chosen = [0] * len(images)
    while True:
        names = [
            _candidate(image, level, ending) for image, level in zip(images, chosen, strict=True)
        ]
        counts = Counter(names)
        again = [at for at, name in enumerate(names) if counts[name] > 1]
        if not again:
            return dict(zip(names, images, strict=True))
        for number, at in enumerate(again):
            last = chosen[at] >= _NUMBERED
            chosen[at] = _NUMBERED + number + 1 if last else chosen[at] + 1


_NUMBERED = 3


def _candidate(image: InputImage, level: int, ending: Ending) -> str:
    """The name of a result; each level is longer than the one before."""
    name = PurePosixPath(image.name)
    folder = image.folder if level in (1, 3) or level > _NUMBERED else ""
    whole = level >= 2
    number = f"-{level - _NUMBERED}" if level > _NUMBERED else ""
    stem = name.name if whole else name.stem
    file = fitting(f"{stem}{number}{ending(name)}", digest=True)
    return str(PurePosixPath(folder, name.parent, file))
