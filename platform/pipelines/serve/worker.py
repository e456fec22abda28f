"""One network that answers requests: decodes, derains and encodes, each in a thread of its own.

Knows neither Ray nor HTTP. The network computes one image at a time, so that an answer has the
pixels that `predict` writes; images are decoded and encoded meanwhile.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
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


class Worker:
    """Answers with a `Predictor`; many requests at once."""

    def __init__(self, predictor: Predictor, *, max_pixels: int, threads: int = 2) -> None:
        self._predictor = predictor
        self._max_pixels = max_pixels
        self._files = ThreadPoolExecutor(threads, "files")
        self._network = ThreadPoolExecutor(1, "network")

    async def derain(self, data: bytes) -> Derained | Refused:
        """The derained image, or why there is none."""
        loop, marks = asyncio.get_running_loop(), [time.perf_counter()]
        try:
            image = await loop.run_in_executor(self._files, self._decode, data)
            marks.append(time.perf_counter())
            result, waited = await loop.run_in_executor(self._network, self._forward, image.srgb)
            marks.append(time.perf_counter())
            encoded = await loop.run_in_executor(self._files, SAME.encode, image, result, data)
        except RefusedError as error:
            return error.refused
        marks.append(time.perf_counter())
        spent = np.diff(marks) * 1000
        named = dict(zip(("decode", "forward", "encode"), map(float, spent), strict=True))
        named["forward"] = waited
        named["queue"] = float(spent[1]) - waited
        media = MEDIA_TYPES[image.header.format]
        return Derained(encoded, media, self._facts(image), named)

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

    def _forward(self, srgb: np.ndarray) -> tuple[np.ndarray, float]:
        start = time.perf_counter()
        try:
            result = self._predictor.derain(srgb)
        except DerainError as error:
            status = 422 if isinstance(error, DataError) else 500
            raise RefusedError(status, "not_derained", str(error)) from None
        return result, (time.perf_counter() - start) * 1000

    def _facts(self, image: OddImage) -> dict[str, Any]:
        height, width = image.levels.shape[:2]
        return {
            "width": width,
            "height": height,
            "format": image.header.format,
            "converted": list(image.conversions()),
        }
