"""Render rain on a clean photograph: layers of streaks at three depths, over a veil of mist."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter

from derain.errors import DataError

Density = Literal["light", "moderate", "heavy"]
Blend = Literal["screen", "additive"]
Range = tuple[float, float]
"""Lower and upper bound of a uniform draw."""

DENSITIES: tuple[Density, ...] = get_args(Density)
ANGLE_DEG: Range = (-35.0, 35.0)
"""Angle from the vertical; positive if a streak's lower end is to the right."""
JITTER_DEG: Range = (0.5, 2.5)
"""Standard deviation of the angles of single streaks around that of the image."""
ADDITIVE_SHARE = 0.3
"""Probability of additive blending instead of screen blending."""
AIRLIGHT: Range = (0.7, 0.9)
"""Grey level of the mist, in [0, 1]."""

_SAMPLES_PER_PX = 2
"""Points per pixel of a streak's length, enough that slanted streaks do not look beaded."""


@dataclass(frozen=True, kw_only=True)
class StreakLayer:
    """The streaks at one distance from the camera, in moderate rain."""

    per_megapixel: Range
    """Streaks per 1,000,000 pixels of image."""
    length_px: Range
    """Length of each streak: the drop's path during the exposure."""
    sigma_px: Range
    """Standard deviation of the streaks' cross-section; drawn once per layer."""
    opacity: Range
    """Peak opacity of each streak, in [0, 1]."""


LAYERS = (
    StreakLayer(
        per_megapixel=(3500.0, 5500.0),
        length_px=(6.0, 14.0),
        sigma_px=(0.5, 0.7),
        opacity=(0.07, 0.22),
    ),
    StreakLayer(
        per_megapixel=(850.0, 1400.0),
        length_px=(14.0, 30.0),
        sigma_px=(0.6, 0.9),
        opacity=(0.14, 0.40),
    ),
    StreakLayer(
        per_megapixel=(100.0, 250.0),
        length_px=(30.0, 60.0),
        sigma_px=(0.9, 1.5),
        opacity=(0.18, 0.54),
    ),
)
"""Far, middle and near: fewer, longer, wider and brighter towards the camera."""


@dataclass(frozen=True, kw_only=True)
class DensitySettings:
    """One density of rain: factors on the ranges of every layer, and its mist."""

    count: float
    """Factor on the number of streaks."""
    length: float
    """Factor on the length of streaks."""
    opacity: float
    """Factor on the opacity of streaks."""
    veil: Range
    """Mean share of the scene's light that mist replaces, in [0, 1]."""

    def layers(self) -> tuple[StreakLayer, ...]:
        """The far, middle and near layer of this density."""
        return tuple(
            replace(
                layer,
                per_megapixel=_scaled(layer.per_megapixel, self.count),
                length_px=_scaled(layer.length_px, self.length),
                opacity=_scaled(layer.opacity, self.opacity),
            )
            for layer in LAYERS
        )


def _scaled(bounds: Range, factor: float) -> Range:
    return bounds[0] * factor, bounds[1] * factor


DENSITY_SETTINGS: dict[Density, DensitySettings] = {
    "light": DensitySettings(count=0.55, length=0.8, opacity=0.9, veil=(0.0, 0.0)),
    "moderate": DensitySettings(count=1.0, length=1.0, opacity=1.0, veil=(0.0, 0.06)),
    "heavy": DensitySettings(count=1.9, length=1.25, opacity=1.1, veil=(0.05, 0.15)),
}


@dataclass(frozen=True, kw_only=True)
class RainRendering:
    """A rainy image and the parameters that were drawn for it."""

    rain: UInt8[np.ndarray, "height width 3"]
    """RGB, HWC."""
    streaks: Float32[np.ndarray, "height width"]
    """Opacity of the streaks, in [0, 1]."""
    density: Density
    label: str
    """The density in the words of the papers: `light rain`, `moderate rain`, `heavy rain`."""
    angle_deg: float
    blend: Blend
    veil: float


def render(clean: np.ndarray, density: Density, seed: int) -> RainRendering:
    """Render rain on `clean` (uint8, HWC, RGB): a pure function of its arguments.

    Mist first, `M = (1 - v) B + v A`, then the streaks `S`: screened, `1 - (1 - M)(1 - S)`, which
    is HQ-RAIN's `M (1 - S) + beta S` with beta = 1, or added, `min(1, M + S)`, the model of Rain100
    (B clean, v veil, A airlight). A seed gives the same angle and blend at every density. Raises
    DataError for an array of another type or layout.
    """
    if clean.dtype != np.uint8 or clean.ndim != 3 or clean.shape[2] != 3:
        found = f"{clean.dtype} of shape {clean.shape}"
        raise DataError(f"Rain needs a uint8 image of shape (height, width, 3), found {found}.")
    settings = DENSITY_SETTINGS[density]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    angle_deg = float(rng.uniform(*ANGLE_DEG))
    blend: Blend = "additive" if rng.random() < ADDITIVE_SHARE else "screen"
    veil = float(rng.uniform(*settings.veil))
    misty = _add_mist(rng, clean / 255.0, veil, float(rng.uniform(*AIRLIGHT)))
    streaks = _streaks(rng, clean.shape[:2], settings, angle_deg)
    rain = _blend(misty, streaks[:, :, None], blend)
    return RainRendering(
        rain=np.round(255.0 * rain).astype(np.uint8),
        streaks=streaks.astype(np.float32),
        density=density,
        label=f"{density} rain",
        angle_deg=angle_deg,
        blend=blend,
        veil=veil,
    )


def _streaks(
    rng: np.random.Generator, shape: tuple[int, ...], settings: DensitySettings, angle_deg: float
) -> Float[np.ndarray, "height width"]:
    """Combined opacity of all layers, in [0, 1]."""
    jitter_deg = rng.uniform(*JITTER_DEG)
    clear = np.ones(shape)
    for layer in settings.layers():
        clear *= 1.0 - _layer(rng, shape, layer, angle_deg, jitter_deg)
    return 1.0 - clear


def _layer(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    layer: StreakLayer,
    angle_deg: float,
    jitter_deg: float,
) -> Float[np.ndarray, "height width"]:
    """Opacity of one layer, in [0, 1]: lines of light, blurred by the layer's sigma."""
    margin = math.ceil(layer.length_px[1])  # so that streaks reach in from outside the image
    height, width = (size + 2 * margin for size in shape)
    count = round(rng.uniform(*layer.per_megapixel) * height * width / 1e6)
    sigma = rng.uniform(*layer.sigma_px)
    length = rng.uniform(*layer.length_px, count)[:, None]
    opacity = rng.uniform(*layer.opacity, count)[:, None]
    angle = np.radians(rng.normal(angle_deg, jitter_deg, count))[:, None]
    steps = math.ceil(layer.length_px[1] * _SAMPLES_PER_PX)
    along = (np.arange(steps) + 0.5) / steps - 0.5  # from the upper end, -0.5, to the lower, 0.5
    x = rng.uniform(0, width, count)[:, None] + along * length * np.sin(angle)
    y = rng.uniform(0, height, count)[:, None] + along * length * np.cos(angle)
    fade = 1.0 - (2.0 * along) ** 4  # soft ends of the drop's path
    lines = _splat(x, y, opacity * fade * length / steps, (height, width))
    # A blurred line of unit light per pixel peaks at 1 / (sigma sqrt(2 pi)).
    blurred = gaussian_filter(lines, sigma, mode="constant") * sigma * math.sqrt(2 * math.pi)
    return np.clip(blurred, 0.0, 1.0)[margin:-margin, margin:-margin]


def _splat(
    x: Float[np.ndarray, "streaks points"],
    y: Float[np.ndarray, "streaks points"],
    weight: Float[np.ndarray, "streaks points"],
    shape: tuple[int, int],
) -> Float[np.ndarray, "height width"]:
    """Distribute points bilinearly over their four pixels; weight outside the image is lost."""
    height, width = shape
    left, top = np.floor(x), np.floor(y)
    canvas = np.zeros(height * width)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        share = weight * np.abs(1 - dx - (x - left)) * np.abs(1 - dy - (y - top))
        column, row = (left + dx).astype(np.intp), (top + dy).astype(np.intp)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        pixel = row[inside] * width + column[inside]
        canvas += np.bincount(pixel, share[inside], minlength=canvas.size)
    return canvas.reshape(shape)


def _add_mist(
    rng: np.random.Generator, scene: Float[np.ndarray, "height width 3"], veil: float, grey: float
) -> Float[np.ndarray, "height width 3"]:
    """The scene under mist, in smooth patches of 0.5 to 1.5 times `veil`."""
    height, width, _ = scene.shape
    coarse = Image.fromarray(rng.uniform(0.5, 1.5, (4, 5)).astype(np.float32))
    patches = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    share = np.clip(veil * patches, 0.0, 1.0)[:, :, None]
    return (1.0 - share) * scene + share * grey


def _blend(
    scene: Float[np.ndarray, "height width 3"],
    streaks: Float[np.ndarray, "height width 1"],
    blend: Blend,
) -> Float[np.ndarray, "height width 3"]:
    if blend == "additive":
        return np.minimum(1.0, scene + streaks)
    return 1.0 - (1.0 - scene) * (1.0 - streaks)
