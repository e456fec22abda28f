"""Which images a network takes, said in the same words by all of them."""

from torch import Tensor


def check_sides(network: str, x: Tensor, stride: int) -> None:
    """Raise ValueError unless height and width of NCHW images are multiples of `stride`."""
    height, width = x.shape[-2:]
    if height % stride or width % stride:
        raise ValueError(
            f"{network} expects height and width to be multiples of {stride}, got "
            f"{height}x{width} (height x width). Pad the image first, as the predictor does."
        )
