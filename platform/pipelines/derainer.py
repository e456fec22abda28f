"""A network for images as Python has them: arrays, tensors, images of PIL; single or in batches."""

from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from derain.data.images.convert import to_8_bits
from derain.errors import DataError
from derain.inference.predictor import Predictor

Images = TypeVar("Images", np.ndarray, Tensor, Image.Image)
EXPECTED = (
    "Expected RGB images: an array (height, width, 3) or (batch, height, width, 3), a tensor "
    "(3, height, width) or (batch, 3, height, width), both uint8 in 0..255 or floats in [0, 1]; "
    "or an image of PIL."
)

_UNREAD = frozenset({"I", "F", "LAB"})
"""Modes of PIL: 32 bits, floats, and colours that Pillow does not convert without a profile."""


class Derainer:
    """Removes the rain from images of any size; see `derain.load`.

    The result has the form of what was given: array, tensor on the same device, or image of PIL;
    the same shape, type and range. Floats are not rounded. The images of a batch go through the
    network one by one, so that a large batch needs the memory of one image.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self._predictor.device

    @property
    def network(self) -> torch.nn.Module:
        """The network: NCHW, RGB, float32 in [0, 1], sides multiples of its `stride`."""
        return self._predictor.network

    def __call__(self, images: Images) -> Images:
        """The derained image or images.

        Arrays are (height, width, 3) or (batch, height, width, 3): uint8, uint16, or floats in
        [0, 1]. Tensors are (3, height, width) or (batch, 3, height, width): uint8, or floats in
        [0, 1]. PIL's images are converted to RGB, of 8 bits; the result keeps transparency.

        Raises DataError for anything else, DerainError if the network fails on an image or needs
        more memory than there is.
        """
        if isinstance(images, np.ndarray):
            return self._arrays(images)
        if isinstance(images, Tensor):
            return self._tensors(images)
        if isinstance(images, Image.Image):
            return self._pil(images)
        raise DataError(f"{EXPECTED} Found {type(images).__name__}.")

    def _arrays(self, images: np.ndarray) -> np.ndarray:
        known = images.dtype.kind == "f" or images.dtype in (np.uint8, np.uint16)
        if not known or images.ndim not in (3, 4) or images.shape[-1] != 3:
            raise DataError(f"{EXPECTED} Found {images.dtype} of the shape {images.shape}.")
        if images.ndim == 4:
            return np.stack([self._array(image) for image in images]) if len(images) else images
        return self._array(images)

    def _array(self, image: np.ndarray) -> np.ndarray:
        if image.dtype.kind != "f":
            return self._predictor.derain(image)
        return self._predictor.derain_unit(image.astype(np.float32)).astype(image.dtype)

    def _tensors(self, images: Tensor) -> Tensor:
        if images.layout != torch.strided or images.is_meta or images.is_nested:
            found = "nested" if images.is_nested else f"on {images.device} as {images.layout}"
            raise DataError(f"{EXPECTED} Found a tensor {found}, whose values cannot be read.")
        if images.ndim not in (3, 4) or images.shape[-3] != 3:
            found = f"{images.dtype} of the shape {tuple(images.shape)}"
            raise DataError(f"{EXPECTED} Found a tensor, {found}.")
        if not (images.is_floating_point() or images.dtype == torch.uint8):
            raise DataError(f"{EXPECTED} Found a tensor, {images.dtype}.")
        # bfloat16 is not known to numpy, so floats go through it as float32.
        host = images.detach().movedim(-3, -1).cpu()
        array = (host.float() if images.is_floating_point() else host).numpy()
        derained = torch.from_numpy(self._arrays(array))
        return derained.movedim(-1, -3).contiguous().to(images.device, images.dtype)

    def _pil(self, image: Image.Image) -> Image.Image:
        plain = _of_8_bits(image)
        derained = Image.fromarray(self._arrays(np.asarray(plain.convert("RGB"))))
        if plain.mode == "RGBA":
            derained.putalpha(plain.getchannel("A"))
        return derained


def _of_8_bits(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where an image has transparency of any kind. Raises DataError."""
    if image.mode in _UNREAD:
        raise DataError(
            f"{EXPECTED} Found an image of PIL of the mode {image.mode}: 32 bits, floats and Lab "
            "are not converted. Scale its values to 0..255, and give an array."
        )
    try:
        if image.mode.startswith("I;16"):
            return Image.fromarray(to_8_bits(np.asarray(image).astype(np.uint16)))
        whole = image.convert("LA") if image.mode == "La" else image
        return whole.convert("RGBA" if whole.has_transparency_data else "RGB")
    except (OSError, ValueError, SyntaxError) as error:  # it is read from its file only now
        raise DataError(f"The image of PIL cannot be read ({error}).") from None
