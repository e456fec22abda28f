"""What one process does with files: decodes, derains and writes them, one network for all."""

import hashlib
import io
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from derain.data.images.convert import OddImage, read_odd
from derain.data.images.decode import read_file
from derain.data.images.left_out import because
from derain.errors import DerainError
from derain.inference.predictor import Predictor
from derain.pipelines.predict import video
from derain.pipelines.predict.encode import Form
from derain.pipelines.predict.record import Writer, file_sha256, sha256
from derain.storage.atomic import new_file

COMPARED = "compare"
"""The folder of the images side by side, in the folder of the results."""
AHEAD = 2
"""Images that are decoded before the network needs them, and encoded after it."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome:
    """What became of a file."""

    name: str
    """Of its result."""
    changes: tuple[str, ...] = ()
    """What was converted."""
    reason: str | None = None
    """Why it could not be derained; None if its result is written."""


@dataclass(frozen=True)
class Work:
    """A network, and where and how its results are written. Threads may share it."""

    predictor: Predictor
    out: Path
    writer: Writer
    form: Form
    compare: bool
    _network: threading.Lock = field(default_factory=threading.Lock, init=False)

    def derain_images(self, targets: Mapping[str, Path], ahead: int = AHEAD) -> Iterator[Outcome]:
        """Derain images, given by the names of their results, in their order.

        Beside the network as many threads as `ahead` says decode and encode.
        """
        writing: deque[Outcome | Future[Outcome]] = deque()
        with ThreadPoolExecutor(ahead, "files") as files:
            decoded = _ahead(files, self._decode, targets.values(), ahead)
            for (name, path), image in zip(targets.items(), decoded, strict=True):
                try:
                    odd, given = image.result()
                    derained = self._derain(odd.srgb)
                except DerainError as error:
                    writing.append(_failed(name, path, error))
                else:
                    writing.append(files.submit(self._write, name, path, odd, given, derained))
                while len(writing) > ahead:
                    yield _outcome(writing.popleft())
            yield from map(_outcome, writing)

    def derain_video(
        self, name: str, path: Path, advance: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Derain a video; `advance` is called after each frame."""
        target = self.out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new_file(target, durable=False) as file:
                changes = video.derain_video(self._derain, path, file, advance)
                file.seek(0)
                made = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
                self.writer.add(name, file_sha256(path), made)
        except DerainError as error:
            return _failed(name, path, error)
        return Outcome(name, changes)

    def _decode(self, path: Path) -> tuple[OddImage, bytes]:
        """Raises DerainError if the image is damaged."""
        given = read_file(path)
        decoded = read_odd(given, str(path))
        _ = decoded.srgb  # converted here, not on the network's thread
        return decoded, given

    def _derain(self, image: np.ndarray) -> np.ndarray:
        with self._network:
            return self.predictor.derain(image)

    def _write(
        self, name: str, path: Path, image: OddImage, given: bytes, derained: np.ndarray
    ) -> Outcome:
        """The comparison first: a result that exists has its own."""
        try:
            if self.compare:
                self._write_comparison(name, image, derained)
            encoded = self.form.encode(image, derained, given)
            target = self.out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with new_file(target, durable=False) as file:
                file.write(encoded)
                self.writer.add(name, sha256(given), sha256(encoded))
        except DerainError as error:
            return _failed(name, path, error)
        return Outcome(name, (*image.conversions(), *self.form.changes(image)))

    def _write_comparison(self, name: str, image: OddImage, derained: np.ndarray) -> None:
        sides = [_in_8_bits(side) for side in (image.srgb, derained)]
        target = self.out / COMPARED / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(np.concatenate(sides, axis=1)).save(buffer, format="PNG")
        with new_file(target, durable=False) as file:
            file.write(buffer.getvalue())


def _outcome(item: Outcome | Future[Outcome]) -> Outcome:
    return item if isinstance(item, Outcome) else item.result()


def _failed(name: str, path: Path, error: DerainError) -> Outcome:
    return Outcome(name, reason=because(str(path), error).reason)


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Future[Result]]:
    """The futures of the work on each item, begun `ahead` items before they are asked for."""
    begun: deque[Future[Result]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) > ahead:
            yield begun.popleft()
    yield from begun


def _in_8_bits(levels: np.ndarray) -> np.ndarray:
    return levels if levels.dtype == np.uint8 else (levels // 257).astype(np.uint8)
