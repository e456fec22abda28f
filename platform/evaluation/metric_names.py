"""The names of PSNR and SSIM in results: `psnr_y`, `ssim_y` of the luma, `psnr_rgb`, `ssim_rgb`.

A name says what was measured, so that the metric of an RGB protocol never passes for one of Y: on
rainy images it is 1 to 1.5 dB lower. Imports nothing, so that the command line starts quickly.
"""

from collections.abc import Iterable

CHANNELS = {"y": "Y", "rgb": "RGB"}


def psnr_name(metrics: Iterable[str]) -> str:
    """The name of the PSNR among the metrics of one protocol."""
    return next(name for name in metrics if name.startswith("psnr_"))


def ssim_name(metrics: Iterable[str]) -> str:
    """The name of the SSIM among the metrics of one protocol."""
    return next(name for name in metrics if name.startswith("ssim_"))


def title(name: str) -> str:
    """A metric as a column's head: `psnr_y` is PSNR-Y."""
    kind, _, channels = name.partition("_")
    return f"{kind.upper()}-{CHANNELS[channels]}"
