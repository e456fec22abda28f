"""NIQE and BRISQUE: the published formulas, written out again, and images without structure."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve
from scipy.optimize import brentq
from scipy.signal import convolve2d
from scipy.special import gamma
from skimage.color import rgb2gray

from derain.data.synthetic.synthesis import bundled_photographs
from derain.errors import DataError, UsageError
from derain.evaluation.no_reference import METRICS, NoReference
from derain.evaluation.no_reference.brisque import PARAMETERS as BRISQUE
from derain.evaluation.no_reference.niqe import PARAMETERS as NIQE


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    path = sorted(bundled_photographs().glob("*.[jp][pn]g"))[0]
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))[:300, :401]


def window() -> np.ndarray:
    axis = np.exp(-(np.arange(-3.0, 4.0) ** 2) / (2 * (7 / 6) ** 2))
    return np.outer(axis, axis) / axis.sum() ** 2


def asymmetric_fit(values: np.ndarray) -> tuple[float, float, float]:
    """Shape, left and right deviation, the shape as the root of the moments' equation."""
    left = math.sqrt((values[values < 0] ** 2).mean())
    right = math.sqrt((values[values > 0] ** 2).mean())
    ratio, skew = np.abs(values).mean() ** 2 / (values**2).mean(), left / right
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = brentq(
        lambda a: gamma(2 / a) ** 2 / (gamma(1 / a) * gamma(3 / a)) - ratio, 0.2, 10, xtol=1e-12
    )
    return shape, left, right


def niqe_features(block: np.ndarray) -> list[float]:
    shape, left, right = asymmetric_fit(block)
    scale = math.sqrt(gamma(1 / shape) / gamma(3 / shape))
    features = [shape, scale * (left + right) / 2]
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = asymmetric_fit(block * np.roll(block, (down, across), (0, 1)))
        scale = math.sqrt(gamma(1 / shape) / gamma(3 / shape))
        mean = scale * (right - left) * gamma(2 / shape) / gamma(1 / shape)
        features += [shape, mean, scale * left, scale * right]
    return features


def test_niqe_equals_the_published_formula(photograph: np.ndarray) -> None:
    """A block at a time, with a direct window and with Pillow's cubic reduction."""
    weights = [65.481, 128.553, 24.966]
    luma = np.rint(16 + photograph.astype(float) @ weights / 255)[:288, :384]
    small = Image.fromarray(np.pad(luma, 8, "symmetric").astype(np.float32)).resize(
        (200, 152), Image.Resampling.BICUBIC
    )
    scales = []
    for values, side in ((luma, 96), (np.asarray(small, float)[4:-4, 4:-4], 48)):
        mean = convolve(values, window(), mode="nearest")
        deviation = np.sqrt(np.abs(convolve(values**2, window(), mode="nearest") - mean**2))
        mscn = (values - mean) / (deviation + 1)
        blocks = [
            mscn[top : top + side, left : left + side]
            for top in range(0, len(mscn), side)
            for left in range(0, mscn.shape[1], side)
        ]
        scales.append(np.array([niqe_features(block) for block in blocks]))
    features = np.concatenate(scales, axis=1)
    with np.load(NIQE) as model:
        difference = model["mean"] - features.mean(axis=0)
        covariance = (model["covariance"] + np.cov(features.T)) / 2
    expected = math.sqrt(difference @ np.linalg.inv(covariance) @ difference)
    # The release takes shapes from a table with steps of 0.001.
    assert NoReference(["niqe_live"])(photograph)["niqe_live"] == pytest.approx(expected, abs=0.01)


def brisque_features(grey: np.ndarray) -> list[float]:
    mean = convolve2d(grey, window(), "same")
    deviation = np.sqrt(np.abs(convolve2d(grey**2, window(), "same") - mean**2))
    mscn = (grey - mean) / (deviation + 1 / 255)
    shape, left, right = asymmetric_fit(mscn)
    features = [shape, (left**2 + right**2) / 2]
    height, width = mscn.shape
    for down, across in ((0, 1), (1, 0), (1, 1), (-1, 1)):
        one = mscn[max(0, -down) : height - max(0, down), : width - across]
        other = mscn[max(0, down) : height - max(0, -down), across:]
        shape, left, right = asymmetric_fit(one * other)
        mean_of = (right - left) * gamma(2 / shape) / math.sqrt(gamma(1 / shape) * gamma(3 / shape))
        features += [shape, mean_of, left**2, right**2]
    return features


def test_brisque_equals_the_published_formula(photograph: np.ndarray) -> None:
    grey = rgb2gray(photograph)
    cubic = np.array([-3, 19, 19, -3]) / 32
    rows = np.stack([grey[np.clip(np.arange(0, 300, 2) + at, 0, 299)] for at in range(-1, 3)])
    half = np.tensordot(cubic, rows, 1)
    columns = [half[:, np.clip(np.arange(0, 400, 2) + at, 0, 400)] for at in range(-1, 3)]
    features = brisque_features(grey) + brisque_features(np.tensordot(cubic, columns, 1))
    with np.load(BRISQUE) as model:
        low, high = model["lowest"], model["highest"]
        scaled = -1 + 2 / (high - low) * (np.array(features) - low)
        kernel = np.exp(-model["gamma"] * ((model["vectors"] - scaled) ** 2).sum(axis=1))
        expected = float(kernel @ model["weights"] - model["rho"])
    measured = NoReference(["brisque_live"])(photograph)["brisque_live"]
    assert measured == pytest.approx(expected, abs=0.1)


def test_noise_and_blur_are_worse(photograph: np.ndarray) -> None:
    measure = NoReference()
    clean = measure(photograph)
    noise = np.random.default_rng(0).normal(0, 25, photograph.shape)
    noisy = np.clip(photograph + noise, 0, 255).astype(np.uint8)
    found = measure(noisy)
    assert set(found) == set(METRICS) == set(measure.identities())
    assert all(found[name] > clean[name] + 1 for name in METRICS)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((200, 300, 3), np.uint8),
        np.full((200, 300, 3), 255, np.uint8),
        np.full((200, 300, 3), 90, np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        np.random.default_rng(0).integers(0, 256, (13, 13, 3), np.uint8),
        np.zeros((200, 300), np.uint8),
        np.zeros((200, 300, 3), np.float32),
    ],
)
@pytest.mark.parametrize("name", METRICS)
def test_what_cannot_be_measured_is_refused(name: str, image: np.ndarray) -> None:
    """As DataError, which an evaluation lists as left out."""
    with pytest.raises(DataError):
        NoReference([name])(image)


def test_blocks_without_structure_are_left_out_of_niqe(photograph: np.ndarray) -> None:
    """As in the release, where their features are undefined; two blocks with structure suffice."""
    black = np.zeros_like(photograph)
    black[:80, :80] = photograph[:80, :80]
    black[200:280, 300:380] = photograph[200:280, 300:380]
    assert math.isfinite(NoReference(["niqe_live"])(black)["niqe_live"])
    black[200:] = 0
    with pytest.raises(DataError, match="at least 2"):
        NoReference(["niqe_live"])(black)


def test_an_unknown_metric_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="niqe_live, brisque_live"):
        NoReference(["niqe"])
