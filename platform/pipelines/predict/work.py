"""What one process does with files: decodes, derains and writes them, one network for all."""

import contextlib
import hashlib
import io
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from derain.data.images.convert import OddImage, read_odd
from derain.data.images.decode import read_file
from derain.data.images.headers import read_header
from derain.data.images.left_out import because
from derain.errors import DerainError
from derain.inference.predictor import Predictor
from derain.pipelines.predict import video
from derain.pipelines.predict.encode import Form
from derain.pipelines.predict.record import Writer, file_sha256, sha256
from derain.storage.atomic import new_file
from derain.storage.names import fitting

COMPARED = "compare"
"""The folder of the images side by side, in the folder of the results."""
AHEAD = 2
"""Threads that decode and encode beside a network that takes one image at a time."""
SMALL_PX = 2**20
"""Of images of which a CPU takes several at once, each on one core, or its share of the cores."""


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
class Turns:
    """How many images a network takes at a time."""

    at_once: int = 1
    threads: int = field(default_factory=torch.get_num_threads)
    """Of torch, for each of them."""
    alone: int = field(default_factory=torch.get_num_threads)
    """Of torch, for an image that has the machine to itself."""


def turns_here(predictor: Predictor, images: int) -> Turns:
    """For so many images in this process.

    On a GPU one at a time. On a CPU small images (SMALL_PX) share the cores, as many at once as fit
    into the memory: cores that wait for each other in every layer of one image cannot decode or
    encode meanwhile. Other networks than the built-in ones may keep something between their layers,
    so they never take two at once.
    """
    cores = torch.get_num_threads()
    built_in = type(predictor.network).__module__.startswith("derain.models.")
    if not built_in or predictor.device.type != "cpu":
        return Turns()
    at_once = max(1, min(cores, images, predictor.room(SMALL_PX)))
    return Turns(at_once, cores // at_once)


@dataclass(frozen=True)
class Work:
    """A network, and where and how its results are written. Threads may share it."""

    predictor: Predictor
    out: Path
    writer: Writer
    form: Form
    compare: bool
    turns: Turns = field(default_factory=Turns)
    _network: threading.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_network", threading.Semaphore(self.turns.at_once))

    def derain_images(self, targets: Mapping[str, Path], ahead: int = AHEAD) -> Iterator[Outcome]:
        """Derain images, given by the names of their results, in their order.

        Where the network takes one at a time, as many threads as `ahead` says decode and encode
        beside it. A large image waits for those before it where it takes several.
        """
        several = self.turns.at_once > 1
        threads = self.turns.at_once if several else 1 + ahead
        under_way: deque[Future[Outcome]] = deque()
        with _own_threads(), ThreadPoolExecutor(threads, "images") as images:
            for name, path in targets.items():
                alone = several and _is_large(path)
                while under_way and (alone or len(under_way) > threads):
                    yield under_way.popleft().result()
                if alone:
                    yield images.submit(self._image, name, path, self.turns.alone).result()
                else:
                    under_way.append(images.submit(self._image, name, path, self.turns.threads))
            while under_way:
                yield under_way.popleft().result()

    def derain_video(
        self, name: str, path: Path, advance: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Derain a video; `advance` is called after each frame."""
        target = self.out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new_file(target, durable=False) as file:
                derain = partial(self._derain, threads=self.turns.alone)
                changes = video.derain_video(derain, path, file, advance)
                file.seek(0)
                made = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
                self.writer.add(name, file_sha256(path), made)
        except DerainError as error:
            return _failed(name, path, error)
        return Outcome(name, changes)

    def _image(self, name: str, path: Path, threads: int) -> Outcome:
        """Decode, derain and write one; the comparison first: a result that exists has its own."""
        try:
            given = read_file(path)
            image = read_odd(given, str(path))
            derained = self._derain(image.srgb, threads)
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

    def _derain(self, image: np.ndarray, threads: int) -> np.ndarray:
        with self._network:
            torch.set_num_threads(threads)  # of this thread, but MKL's of the process
            return self.predictor.derain(image)

    def _write_comparison(self, name: str, image: OddImage, derained: np.ndarray) -> None:
        sides = [_in_8_bits(side) for side in (image.srgb, derained)]
        beside = self.out / COMPARED / name
        target = beside.with_name(fitting(f"{beside.name}.png", digest=True))
        target.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(np.concatenate(sides, axis=1)).save(buffer, format="PNG")
        with new_file(target, durable=False) as file:
            file.write(buffer.getvalue())


def _failed(name: str, path: Path, error: DerainError) -> Outcome:
    return Outcome(name, reason=because(str(path), error).reason)


@contextlib.contextmanager
def _own_threads() -> Iterator[None]:
    """Give the process the number of threads back that its images have changed."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _is_large(path: Path) -> bool:
    """Whether an image has more than SMALL_PX pixels; a damaged one has not."""
    try:
        return math.prod(read_header(read_file(path), str(path)).size) > SMALL_PX
    except DerainError:
        return False


def _in_8_bits(levels: np.ndarray) -> np.ndarray:
    return levels if levels.dtype == np.uint8 else (levels // 257).astype(np.uint8)
