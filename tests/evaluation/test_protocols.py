"""The metrics agree with skimage, with a direct 2-D implementation, and have known properties."""

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate
from scipy.signal import convolve2d
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from threadpoolctl import threadpool_limits

from derain.config import EvalConfig
from derain.errors import DataError
from derain.evaluation.protocols import PROTOCOLS, identity, least_px, metric_names, score


def natural_pair(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth random image, and the same image with bright diagonal streaks."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(20, 220, (height // 8 + 2, width // 8 + 2, 3))
    clean = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width]
    clean = clean + rng.normal(0, 4, clean.shape)
    rows, columns = np.mgrid[:height, :width]
    streaks = 70.0 * ((rows + 3 * columns) % 23 < 2)
    rainy = clean + streaks[..., None]
    return tuple(np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in (rainy, clean))


def luma(image: np.ndarray) -> np.ndarray:
    """BT.601 luma as skimage computes it, with its own weights, not rounded."""
    return rgb2ycbcr(image)[..., 0]


def direct_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """The formulas of Wang 2004 written out: a 2-D window and five convolutions."""
    axis = np.arange(-5, 6)
    window = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(values: np.ndarray) -> np.ndarray:
        return convolve2d(values, window, mode="valid")

    mu1, mu2 = mean(first), mean(second)
    var1, var2 = mean(first**2) - mu1**2, mean(second**2) - mu2**2
    cov = mean(first * second) - mu1 * mu2
    c1, c2 = 6.5025, 58.5225
    ssim = (2 * mu1 * mu2 + c1) * (2 * cov + c2) / ((mu1**2 + mu2**2 + c1) * (var1 + var2 + c2))
    return float(ssim.mean())


def direct_psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 20 * math.log10(255 / math.sqrt(((first - second) ** 2).mean()))


def channels(image: np.ndarray) -> list[np.ndarray]:
    return [image[..., channel].astype(np.float64) for channel in range(3)]


def skimage_rgb(rainy: np.ndarray, clean: np.ndarray) -> tuple[float, float]:
    """scikit-image with its default window, on the uint8 images themselves."""
    ssim = structural_similarity(rainy, clean, channel_axis=2)
    return peak_signal_noise_ratio(clean, rainy), ssim


def direct(protocol: str, rainy: np.ndarray, clean: np.ndarray) -> tuple[float, float]:
    """PSNR and SSIM as each protocol's authors compute them, for images that are not reduced."""
    if protocol == "rgb_skimage":
        return skimage_rgb(rainy, clean)
    if protocol == "rgb_toolbox":
        planes = list(zip(channels(rainy), channels(clean), strict=True))
        ssim = np.mean([direct_ssim(one, other) for one, other in planes])
        return direct_psnr(np.stack(channels(rainy)), np.stack(channels(clean))), float(ssim)
    one, other = luma(rainy), luma(clean)
    if protocol == "rain13k":
        one, other = np.rint(one), np.rint(other)
    if protocol == "hqrain":
        one, other = one[4:-4, 4:-4], other[4:-4, 4:-4]
    return direct_psnr(one, other), direct_ssim(one, other)


# An odd size, the smallest that all can measure, and one wider than a tile of the computation.
@pytest.mark.parametrize("size", [(97, 131), (19, 19), (21, 1100)])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_equals_a_direct_computation(protocol: str, size: tuple[int, int]) -> None:
    rainy, clean = natural_pair(*size)
    expected = direct(protocol, rainy, clean)
    assert list(score(rainy, clean, protocol).values()) == pytest.approx(expected, abs=1e-9)


def test_basicsr_y_equals_the_published_formulas_of_basicsr_and_pyiqa() -> None:
    """BasicSR weights BGR; pyiqa multiplies luminance and contrast, and clamps negative contrast,
    which this pair does not have."""
    rainy, clean = natural_pair(64, 90)
    rainy = clean + (rainy - clean) // 4
    bgr_weights = np.array([24.966, 128.553, 65.481])
    one, other = (it[..., ::-1] / 255.0 @ bgr_weights + 16.0 for it in (rainy, clean))
    axis = np.exp(-(np.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))
    window = np.outer(axis, axis) / axis.sum() ** 2

    def mean(values: np.ndarray) -> np.ndarray:
        return convolve2d(values, window, mode="valid")

    mu1, mu2 = mean(one), mean(other)
    contrast = (2 * (mean(one * other) - mu1 * mu2) + 58.5225) / (
        mean(one**2) - mu1**2 + mean(other**2) - mu2**2 + 58.5225
    )
    assert contrast.min() > 0
    luminance = (2 * mu1 * mu2 + 6.5025) / (mu1**2 + mu2**2 + 6.5025)
    psnr = 10 * math.log10(255 * 255 / ((one - other) ** 2).mean())
    expected = {"psnr_y": psnr, "ssim_y": float((luminance * contrast).mean())}
    assert score(rainy, clean, "basicsr_y") == pytest.approx(expected, abs=1e-9)


def test_the_number_of_threads_changes_no_digit() -> None:
    """Workers of an evaluation have one core each; the process that compares with them has all."""
    rainy, clean = natural_pair(200, 700)
    with threadpool_limits(1):
        alone = {name: score(rainy, clean, name) for name in PROTOCOLS}
    assert {name: score(rainy, clean, name) for name in PROTOCOLS} == alone


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("level", [0, 255])
def test_constant_images_have_finite_metrics(protocol: str, level: int) -> None:
    """Black against grey: no variance anywhere, and with black no luminance either."""
    psnr, ssim = metric_names(protocol)
    flat = np.full((40, 50, 3), level, np.uint8)
    grey = np.full((40, 50, 3), 128, np.uint8)
    assert score(flat, flat, protocol) == {psnr: 100.0, ssim: 1.0}
    found = score(flat, grey, protocol)
    assert 0 < found[psnr] < 10
    assert 0 < found[ssim] < 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_pixel_less_than_the_window_and_the_border_is_too_small(protocol: str) -> None:
    least = least_px([protocol])
    image = np.zeros((least, least + 30, 3), np.uint8)
    assert score(image, image, protocol)
    for small in (image[:-1], image[:, : least - 1], image[:1, :1]):
        with pytest.raises(DataError, match=f"at least {least} px"):
            score(small, small, protocol)


@pytest.mark.parametrize("size", [(11, 11), (11, 40), (96, 131)])
def test_rain13k_ssim_equals_skimage_and_the_direct_window(size: tuple[int, int]) -> None:
    rainy, clean = natural_pair(*size)
    first, second = np.rint(luma(rainy)), np.rint(luma(clean))
    skimage = structural_similarity(
        first,
        second,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    measured = score(rainy, clean)["ssim_y"]
    assert measured == pytest.approx(skimage, abs=1e-12)
    assert measured == pytest.approx(direct_ssim(first, second), abs=1e-12)


def test_the_two_protocols_differ_by_the_rounding_of_luma() -> None:
    rainy, clean = natural_pair(64, 80)
    exact = direct_psnr(luma(rainy), luma(clean))
    rounded = direct_psnr(np.rint(luma(rainy)), np.rint(luma(clean)))
    assert score(rainy, clean, "rain13k")["psnr_y"] == pytest.approx(rounded, abs=1e-9)
    assert score(rainy, clean, "five_set")["psnr_y"] == pytest.approx(exact, abs=1e-9)
    assert abs(exact - rounded) > 1e-6


@pytest.mark.parametrize(
    ("shorter", "factor"), [(321, 1), (383, 1), (384, 2), (512, 2), (640, 3), (896, 4)]
)
def test_five_set_shrinks_by_the_rounded_quotient(shorter: int, factor: int) -> None:
    rainy, clean = natural_pair(shorter, shorter + 7)
    box = np.full((factor, factor), 1 / factor**2)
    # MATLAB's imfilter puts the centre of an even kernel left of the middle, scipy right of it.
    origin = -1 if factor % 2 == 0 else 0

    def shrunk(image: np.ndarray) -> np.ndarray:
        filtered = correlate(luma(image), box, mode="reflect", origin=origin)
        return filtered[::factor, ::factor]

    expected = direct_ssim(shrunk(rainy), shrunk(clean))
    assert score(rainy, clean, "five_set")["ssim_y"] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_identical_images_have_the_maximum_psnr(protocol: str) -> None:
    image, _ = natural_pair(32, 48)
    psnr, ssim = metric_names(protocol)
    assert score(image, image.copy(), protocol) == {psnr: 100.0, ssim: pytest.approx(1.0)}


def test_known_luma_of_pure_colours() -> None:
    """White is 235, black 16 and pure red 81.481, so the PSNR of each pair is known exactly."""
    black = np.zeros((16, 16, 3), np.uint8)
    white = np.full((16, 16, 3), 255, np.uint8)
    red = black.copy()
    red[..., 0] = 255
    assert score(white, black)["psnr_y"] == pytest.approx(20 * math.log10(255 / 219))
    assert score(red, black)["psnr_y"] == pytest.approx(20 * math.log10(255 / 65))
    assert score(red, black, "five_set")["psnr_y"] == pytest.approx(20 * math.log10(255 / 65.481))


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(19, 40),
    width=st.integers(19, 40),
    seed=st.integers(0, 2**32 - 1),
    protocol=st.sampled_from(sorted(PROTOCOLS)),
)
def test_scores_are_symmetric_bounded_and_invariant_under_mirroring(
    height: int, width: int, seed: int, protocol: str
) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    expected = score(first, second, protocol)
    psnr, ssim = metric_names(protocol)
    assert -1.0 <= expected[ssim] <= 1.0
    assert 0.0 < expected[psnr] <= 100.0
    for other in (score(second, first, protocol), score(first[:, ::-1], second[:, ::-1], protocol)):
        assert other == pytest.approx(expected, abs=1e-9)


def test_swapping_red_and_blue_changes_the_psnr() -> None:
    """BGR passed for RGB is an error that no check of shapes can detect."""
    rainy, clean = natural_pair(64, 64)
    assert score(rainy[..., ::-1], clean)["psnr_y"] < score(rainy, clean)["psnr_y"] - 1.0


@pytest.mark.parametrize(
    ("derained", "clean", "named"),
    [
        (np.zeros((16, 17, 3), np.uint8), np.zeros((17, 16, 3), np.uint8), "17x16 px"),
        (np.zeros((16, 16, 3), np.float32), np.zeros((16, 16, 3), np.uint8), "float32"),
        (np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.uint16), "uint16"),
        (np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8), "(16, 16)"),
        (np.zeros((3, 16, 16), np.uint8), np.zeros((3, 16, 16), np.uint8), "(3, 16, 16)"),
        (np.zeros((10, 16, 3), np.uint8), np.zeros((10, 16, 3), np.uint8), "11 px"),
    ],
)
def test_unusable_images_are_named(derained: np.ndarray, clean: np.ndarray, named: str) -> None:
    with pytest.raises(DataError) as raised:
        score(derained, clean)
    assert named in str(raised.value)


def test_an_unknown_protocol_lists_the_known_ones() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(DataError, match="rain13k, five_set"):
        score(image, image, "rain_13k")


def test_the_config_knows_exactly_these_protocols() -> None:
    """`config` may not import `evaluation`, so it has a list of its own."""
    allowed = get_args(EvalConfig.model_fields["protocol"].annotation)
    assert list(allowed) == list(PROTOCOLS)
    assert [name.startswith("rgb_") for name in allowed] == [
        PROTOCOLS[name].channels == "rgb" for name in allowed
    ]


def test_what_is_stored_beside_a_metric_has_the_version() -> None:
    assert identity("rain13k") == "rain13k v1"
    with pytest.raises(DataError, match="Unknown protocol"):
        identity("rain13k v1")
