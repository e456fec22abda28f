"""One image of a gallery with the outputs of several networks, and which images are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8

from derain.errors import DataError
from derain.evaluation.metric_names import CHANNELS, title

RAINY = "rainy"
"""The name of the network's input among the metrics of an image."""
CLEAN = "clean"
ERROR_LEVELS = 64
"""An error map tells the errors 0 to 62 apart; its last level is 63 and all above."""


@dataclass(frozen=True)
class GalleryImage:
    """A rainy image, what each version makes of it, and the clean image if there is one.

    All images are HWC, RGB, uint8, and of one size.

    Raises:
        DataError: an image has another size or type, or an output the name of an input.
    """

    dataset: str
    key: str
    rain: np.ndarray
    clean: np.ndarray | None
    outputs: Mapping[str, np.ndarray]
    """By the name of the version, in the order in which they are shown."""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By version (or `RAINY`, for those of the input), then by metric: `psnr_y`, `ssim_y`, or any
    other name, which the page shows as it is."""

    def __post_init__(self) -> None:
        taken = {RAINY, CLEAN} & set(self.outputs)
        if taken:
            raise DataError(f"A version is named {taken.pop()!r}, as the page names an input.")
        for name, pixels in self.images().items():
            if pixels.dtype != np.uint8 or pixels.shape != (*self.rain.shape[:2], 3):
                raise DataError(
                    f"{self.dataset}, {self.key}: the image {name} is {pixels.dtype} of shape "
                    f"{pixels.shape}, expected uint8 of {(*self.rain.shape[:2], 3)}, as the rainy "
                    "image is."
                )

    def images(self) -> dict[str, np.ndarray]:
        """The images by name, in the order in which they are shown: rainy, outputs, clean."""
        clean = {} if self.clean is None else {CLEAN: self.clean}
        return {RAINY: self.rain, **self.outputs, **clean}

    def error_maps(self) -> dict[str, np.ndarray]:
        """See `error_map`, of the rainy image and each output; empty without a clean image."""
        if self.clean is None:
            return {}
        names = (RAINY, *self.outputs)
        return {name: error_map(self.images()[name], self.clean) for name in names}


def metric_label(metric: str) -> str:
    """A metric as a reader sees it: PSNR-Y (dB) for `psnr_y`; other names are left as they are."""
    kind, _, channels = metric.partition("_")
    if kind not in ("psnr", "ssim") or channels not in CHANNELS:
        return metric
    return f"{title(metric)}{' (dB)' if kind == 'psnr' else ''}"


def error_map(
    image: UInt8[np.ndarray, "height width 3"], clean: UInt8[np.ndarray, "height width 3"]
) -> UInt8[np.ndarray, "height width"]:
    """The largest difference of the three channels at each pixel, in levels, at most 63."""
    difference = np.maximum(image, clean) - np.minimum(image, clean)
    return np.minimum(difference.max(axis=2), ERROR_LEVELS - 1).astype(np.uint8)


def choose(values: Sequence[float], count: int) -> list[int]:
    """The indices of at most `count` images of those with these metrics, the highest first.

    The quarter of `count` with the highest values, the quarter with the lowest, and the others at
    even distances in rank between them: a page shows the extremes and what is usual. All images if
    there are no more than `count`.
    """
    order = sorted(range(len(values)), key=lambda at: -values[at])
    if len(order) <= count:
        return order
    ends = count // 4
    between = np.linspace(ends, len(order) - ends - 1, count - 2 * ends).round().astype(int)
    ranks = [*range(ends), *between.tolist(), *range(len(order) - ends, len(order))]
    return [order[rank] for rank in ranks]
