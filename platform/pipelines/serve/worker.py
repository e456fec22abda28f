"""One network that answers requests: decodes, derains and encodes, each in a thread of its own.

Knows neither Ray nor HTTP. While the network computes, other images are decoded and encoded. By
default it computes one image at a time, so that an answer has the pixels that `predict` writes;
with `batch` it takes up to that many of one size that wait.
"""

import asyncio
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from derain.data.images.convert import OddImage, read_odd
from derain.data.images.facts import ImageSizeError
from derain.data.images.headers import FORMATS, read_header
from derain.data.images.kinds import HEAD_BYTES, kind_of
from derain.errors import DataError, DerainError
from derain.inference.predictor import Predictor
from derain.pipelines.predict.encode import MEDIA_TYPES, SAME
from derain.pipelines.serve.answers import Derained, Refused, RefusedError

NAME = "The image"
"""How messages call what was sent."""
ACCEPTED = "PNG, JPEG, WebP, TIFF or BMP"


@dataclass(frozen=True)
class Computed:
    """What the network made of an image."""

    srgb: np.ndarray
    route: int | None
    milliseconds: float
    """Of the pass, which other images may have shared."""


@dataclass(frozen=True)
class _Waiting:
    """A decoded image that waits for the network."""

    srgb: np.ndarray
    computed: "Future[Computed]" = field(default_factory=Future)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What images of one batch have in common."""
        return self.srgb.shape, self.srgb.dtype


class Worker:
    """Answers with a `Predictor`; many requests at once."""

    def __init__(
        self, predictor: Predictor, *, max_pixels: int, batch: int = 1, threads: int = 2
    ) -> None:
        self._predictor = predictor
        self._max_pixels = max_pixels
        self._batch = batch
        self._prompts = getattr(predictor.network, "prompts", ())
        self._files = ThreadPoolExecutor(threads, "files")
        self._network = ThreadPoolExecutor(1, "network")
        self._waiting: list[_Waiting] = []
        self._lock = threading.Lock()

    async def derain(self, data: bytes) -> Derained | Refused:
        """The derained image, or why there is none."""
        loop, marks = asyncio.get_running_loop(), [time.perf_counter()]
        try:
            image = await loop.run_in_executor(self._files, self._decode, data)
            marks.append(time.perf_counter())
            made = await self._derained(image.srgb)
            marks.append(time.perf_counter())
            encoded = await loop.run_in_executor(self._files, SAME.encode, image, made.srgb, data)
        except RefusedError as error:
            return error.refused
        marks.append(time.perf_counter())
        spent = np.diff(marks) * 1000
        named = dict(zip(("decode", "forward", "encode"), map(float, spent), strict=True))
        named["forward"] = made.milliseconds
        named["queue"] = float(spent[1]) - made.milliseconds
        media = MEDIA_TYPES[image.header.format]
        return Derained(encoded, media, self._facts(image, made.route), named)

    def _decode(self, data: bytes) -> OddImage:
        """Raises RefusedError; pixels are counted before any is decoded."""
        kind = kind_of(data[:HEAD_BYTES])
        if kind is None or kind.upper() not in FORMATS:
            found = f"it is {kind}" if kind else "it is no image that is known here"
            raise RefusedError(415, "not_an_image", f"Expected {ACCEPTED}; {found}.")
        try:
            header = read_header(data, NAME)
            if header.width * header.height > self._max_pixels:
                raise RefusedError(413, "too_many_pixels", self._too_large(*header.size))
            image = read_odd(data, NAME)
            _ = image.srgb  # converted here, off the network's thread
        except ImageSizeError as error:
            raise RefusedError(413, "too_many_pixels", str(error)) from None
        except DataError as error:
            raise RefusedError(422, "damaged", str(error)) from None
        return image

    def _too_large(self, width: int, height: int) -> str:
        return (
            f"{NAME} has {width} x {height} pixels; at most {self._max_pixels:,} are accepted. "
            "Send a smaller one."
        )

    async def _derained(self, srgb: np.ndarray) -> Computed:
        """Raises RefusedError."""
        waiting = _Waiting(srgb)
        with self._lock:
            self._waiting.append(waiting)
        self._network.submit(self._compute)
        try:
            return await asyncio.wrap_future(waiting.computed)
        except DerainError as error:
            status = 422 if isinstance(error, DataError) else 500
            raise RefusedError(status, "not_derained", str(error)) from None

    def _compute(self) -> None:
        """One pass for the oldest waiting image and others of its size, in the network's thread.

        As many calls are made as there are images: those whose image a call before took along find
        none, or a later one.
        """
        batch = self._next_batch()
        if batch and not self._pass(batch):
            for one in batch:  # the fault of one image is not that of the others
                self._pass([one])

    def _pass(self, batch: list[_Waiting]) -> bool:
        """One pass. False, and nothing told to those who wait, if several images failed."""
        start = time.perf_counter()
        try:
            routes = [self._predictor.route(one.srgb) for one in batch]
            results = self._predictor.derain_alike([one.srgb for one in batch], routes)
        except Exception as error:
            if len(batch) > 1:
                return False
            batch[0].computed.set_exception(error)
            return True
        spent = (time.perf_counter() - start) * 1000
        for one, result, route in zip(batch, results, routes, strict=True):
            one.computed.set_result(Computed(result, route, spent))
        return True

    def _next_batch(self) -> list[_Waiting]:
        with self._lock:
            self._waiting = [one for one in self._waiting if not one.computed.cancelled()]
            alike = [one for one in self._waiting if one.kind == self._waiting[0].kind]
            batch = [
                one for one in alike[: self._batch] if one.computed.set_running_or_notify_cancel()
            ]
            taken = set(map(id, batch))
            self._waiting = [one for one in self._waiting if id(one) not in taken]
        return batch

    def _facts(self, image: OddImage, route: int | None) -> dict[str, Any]:
        height, width = image.levels.shape[:2]
        facts = {
            "width": width,
            "height": height,
            "format": image.header.format,
            "converted": list(image.conversions()),
        }
        if route is None:
            return facts
        return facts | {"route": route, "prompt": self._prompts[route] if self._prompts else None}
