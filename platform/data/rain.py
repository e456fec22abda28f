"""Rain rendered on clean photographs: layers of streaks in depth, over an optional veil of mist."""

import json
import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter

from derain.data.pictures import encode_png, is_picture, read_picture
from derain.errors import DataError, OccupiedError, UsageError

Density = Literal["light", "moderate", "heavy"]
Part = Literal["all", "train", "held_out"]
Blend = Literal["screen", "additive"]
Range = tuple[float, float]
"""Lower and upper bound of a uniform draw."""

DENSITIES: tuple[Density, ...] = get_args(Density)
HELD_OUT_EVERY = 4
"""Every fourth photograph, in name order, is held out from training."""

ANGLE_DEG: Range = (-35.0, 35.0)
"""Lean from the vertical; positive when a streak's lower end lies to the right."""
JITTER_DEG: Range = (0.5, 2.5)
"""Standard deviation of the single streak's angle around the picture's."""
ADDITIVE_SHARE = 0.3
"""Probability that the streaks are added instead of screened."""
AIRLIGHT: Range = (0.7, 0.9)
"""Grey level of the mist, in [0, 1]."""

_SAMPLES_PER_PX = 2
"""Points that draw one pixel of a streak, so that slanted ones show no beads."""


@dataclass(frozen=True, kw_only=True)
class StreakLayer:
    """The streaks at one distance from the camera, in moderate rain."""

    per_megapixel: Range
    """Streaks per 1,000,000 pixels of picture."""
    length_px: Range
    """Length of each streak: the drop's path during the exposure."""
    sigma_px: Range
    """Standard deviation of the streaks' cross-section; one draw for the layer."""
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
"""Far, middle, near: fewer, longer, wider and brighter towards the camera."""


@dataclass(frozen=True, kw_only=True)
class RainSettings:
    """How one density differs: factors on every layer's ranges, and the mist."""

    count: float
    """Factor on the number of streaks."""
    length: float
    """Factor on their length."""
    opacity: float
    """Factor on their opacity."""
    veil: Range
    """Mean share of the scene's light that mist replaces, in [0, 1]."""

    def layers(self) -> tuple[StreakLayer, ...]:
        """Far, middle and near layer of this density."""
        return tuple(
            replace(
                layer,
                per_megapixel=_times(layer.per_megapixel, self.count),
                length_px=_times(layer.length_px, self.length),
                opacity=_times(layer.opacity, self.opacity),
            )
            for layer in LAYERS
        )


def _times(bounds: Range, factor: float) -> Range:
    return bounds[0] * factor, bounds[1] * factor


SETTINGS: dict[Density, RainSettings] = {
    "light": RainSettings(count=0.55, length=0.8, opacity=0.9, veil=(0.0, 0.0)),
    "moderate": RainSettings(count=1.0, length=1.0, opacity=1.0, veil=(0.0, 0.06)),
    "heavy": RainSettings(count=1.9, length=1.25, opacity=1.1, veil=(0.05, 0.15)),
}


@dataclass(frozen=True, kw_only=True)
class RainRendering:
    """A rainy picture and what made it so."""

    rain: UInt8[np.ndarray, "height width 3"]
    """RGB, HWC."""
    streaks: Float32[np.ndarray, "height width"]
    """Opacity of the streaks, in [0, 1]."""
    density: Density
    label: str
    """As the papers name it: `light rain`, `moderate rain`, `heavy rain`."""
    angle_deg: float
    blend: Blend
    veil: float


@dataclass(frozen=True, kw_only=True)
class SynthesisSummary:
    """What `synthesize` wrote."""

    folder: Path
    pairs: int
    scenes: tuple[str, ...]
    """Stems of the photographs that were used."""
    densities: dict[str, int]
    """Pairs of each density."""


@dataclass(frozen=True)
class _Task:
    """One pair of a synthesis."""

    index: int
    photograph: Path
    density: Density
    entropy: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.index:06d}-{self.photograph.stem}.png"


def render(clean: np.ndarray, density: Density, seed: int) -> RainRendering:
    """Rain on `clean` (uint8, HWC, RGB): a pure function of its arguments.

    Mist first, `M = (1 - v) B + v A`, then the streaks `S`: screened, `1 - (1 - M)(1 - S)`, which
    is HQ-RAIN's `M (1 - S) + beta S` with beta = 1, or added, `min(1, M + S)`, the model of Rain100
    (B clean, v veil, A airlight). One seed gives one lean and one blend at every density. Raises
    DataError for an array of another type or layout.
    """
    if clean.dtype != np.uint8 or clean.ndim != 3 or clean.shape[2] != 3:
        found = f"{clean.dtype} of shape {clean.shape}"
        raise DataError(f"Rain needs a uint8 picture of shape (height, width, 3), found {found}.")
    settings = SETTINGS[density]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    angle_deg = float(rng.uniform(*ANGLE_DEG))
    blend: Blend = "additive" if rng.random() < ADDITIVE_SHARE else "screen"
    veil = float(rng.uniform(*settings.veil))
    misty = _veiled(rng, clean / 255.0, veil, float(rng.uniform(*AIRLIGHT)))
    streaks = _streaks(rng, clean.shape[:2], settings, angle_deg)
    rain = _blended(misty, streaks[:, :, None], blend)
    return RainRendering(
        rain=np.round(255.0 * rain).astype(np.uint8),
        streaks=streaks.astype(np.float32),
        density=density,
        label=f"{density} rain",
        angle_deg=angle_deg,
        blend=blend,
        veil=veil,
    )


def bundled_photographs() -> Path:
    """The folder of clean photographs that the package brings, with its LICENCES.md."""
    return Path(str(files("derain.data"))) / "photographs"


def synthesize(
    clean_dir: Path | None,
    out: Path,
    *,
    count: int,
    seed: int,
    density: Density | Literal["mixed"],
    size_px: int | None = None,
    part: Part = "all",
) -> SynthesisSummary:
    """Write `count` pairs to `out/rain`, `out/clean` and `out/labels.json`.

    The photographs of `clean_dir` (the bundled ones without it) are used in turn, in name order;
    `mixed` cycles the densities. With `size_px` a random square of that size is cut out first. What
    is drawn for pair `i` comes from (seed, i), so a larger count adds pairs and changes none.
    `train` and `held_out` share no photograph. `out` appears complete or not at all.

    Raises OccupiedError when `out` holds something, DataError for photographs that are missing,
    damaged or smaller than `size_px`, UsageError for other values that cannot be worked with.
    """
    _check(count, seed, density, size_px, part)
    out = out.resolve()
    _refuse_occupied(out)
    photographs = _part(_photographs(clean_dir or bundled_photographs()), part)
    tasks = [_task(index, photographs, density, seed) for index in range(count)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        staged = Path(temporary) / "pairs"
        _write(tasks, staged, size_px)
        staged.rename(out)
    return SynthesisSummary(
        folder=out,
        pairs=count,
        scenes=tuple(sorted({task.photograph.stem for task in tasks})),
        densities=dict(Counter(task.density for task in tasks)),
    )


# -- the picture ---------------------------------------------------------------------------------


def _streaks(
    rng: np.random.Generator, shape: tuple[int, ...], settings: RainSettings, angle_deg: float
) -> Float[np.ndarray, "height width"]:
    """Opacity of all layers together: what none of them lets through."""
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
    margin = math.ceil(layer.length_px[1])  # so that streaks reach in from beyond the border
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
    fade = 1.0 - (2.0 * along) ** 4  # the drop's path ends softly
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
    """Points shared out over their four pixels; what falls outside is lost."""
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


def _veiled(
    rng: np.random.Generator, scene: Float[np.ndarray, "height width 3"], veil: float, grey: float
) -> Float[np.ndarray, "height width 3"]:
    """Mist over the scene, in slow patches of half to one and a half times `veil`."""
    height, width, _ = scene.shape
    coarse = Image.fromarray(rng.uniform(0.5, 1.5, (4, 5)).astype(np.float32))
    patches = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    share = np.clip(veil * patches, 0.0, 1.0)[:, :, None]
    return (1.0 - share) * scene + share * grey


def _blended(
    scene: Float[np.ndarray, "height width 3"],
    streaks: Float[np.ndarray, "height width 1"],
    blend: Blend,
) -> Float[np.ndarray, "height width 3"]:
    if blend == "additive":
        return np.minimum(1.0, scene + streaks)
    return 1.0 - (1.0 - scene) * (1.0 - streaks)


# -- the folder ----------------------------------------------------------------------------------


def _check(count: int, seed: int, density: str, size_px: int | None, part: str) -> None:
    if count < 1:
        raise UsageError(f"A count of at least 1 is needed, found {count}.")
    if seed < 0:
        raise UsageError(f"A seed of at least 0 is needed, found {seed}.")
    if size_px is not None and size_px < 1:
        raise UsageError(f"A crop of at least 1 px is needed, found {size_px}.")
    if density not in (*DENSITIES, "mixed"):
        raise UsageError(f"Density is one of {', '.join(DENSITIES)}, mixed; found {density!r}.")
    if part not in get_args(Part):
        raise UsageError(f"Part is one of {', '.join(get_args(Part))}; found {part!r}.")


def _refuse_occupied(out: Path) -> None:
    if out.is_dir():
        found = sorted(path.name for path in out.iterdir())
        if not found:
            return
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        what = f"holds {', '.join(found[:3])}{more}"
    elif out.exists():
        what = "is a file"
    else:
        return
    raise OccupiedError(f"{out} {what}; nothing was written. Name a new folder, or empty this one.")


def _photographs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected one with clean photographs.")
    found = sorted(path for path in folder.iterdir() if is_picture(path))
    if not found:
        raise DataError(f"{folder} holds no picture (PNG, JPEG, BMP, WebP or TIFF).")
    return found


def _part(photographs: Sequence[Path], part: Part) -> list[Path]:
    if part == "all":
        return list(photographs)
    held_out = list(photographs[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
    if not held_out:
        raise DataError(
            f"{photographs[0].parent} holds {len(photographs)} pictures; one of every "
            f"{HELD_OUT_EVERY} is held out, so at least {HELD_OUT_EVERY} are needed for parts."
        )
    return held_out if part == "held_out" else sorted(set(photographs) - set(held_out))


def _task(index: int, photographs: Sequence[Path], density: str, seed: int) -> _Task:
    """Photographs and densities in turn, shifted so that every one of them meets every other."""
    shift = index // math.lcm(len(photographs), len(DENSITIES))
    turn = index + shift if density == "mixed" else DENSITIES.index(density)
    photograph = photographs[index % len(photographs)]
    return _Task(index, photograph, DENSITIES[turn % len(DENSITIES)], (seed, index))


def _write(tasks: Sequence[_Task], folder: Path, size_px: int | None) -> None:
    for name in ("rain", "clean"):
        (folder / name).mkdir(parents=True)
    labels = {task.name: _write_pair(task, folder, size_px) for task in tasks}
    text = json.dumps(labels, indent=1, ensure_ascii=False) + "\n"
    (folder / "labels.json").write_text(text, encoding="utf-8")


def _write_pair(task: _Task, folder: Path, size_px: int | None) -> dict[str, str | int | float]:
    """Write one pair; returns its labels."""
    sequence = np.random.SeedSequence(task.entropy)
    seed = int(sequence.generate_state(1)[0])
    rng = np.random.Generator(np.random.PCG64(sequence))
    clean = _cropped(read_picture(task.photograph), size_px, rng, task.photograph)
    rendering = render(clean, task.density, seed)
    (folder / "rain" / task.name).write_bytes(encode_png(rendering.rain))
    (folder / "clean" / task.name).write_bytes(encode_png(clean))
    return {
        "density": rendering.density,
        "label": rendering.label,
        "scene": task.photograph.stem,
        "seed": seed,
        "angle_deg": round(rendering.angle_deg, 3),
    }


def _cropped(
    clean: UInt8[np.ndarray, "height width 3"],
    size_px: int | None,
    rng: np.random.Generator,
    photograph: Path,
) -> UInt8[np.ndarray, "rows columns 3"]:
    if size_px is None:
        return clean
    height, width, _ = clean.shape
    if min(height, width) < size_px:
        raise DataError(f"{photograph}: {width} x {height} px, too small for {size_px} px crops.")
    top, left = (int(rng.integers(size - size_px + 1)) for size in (height, width))
    return np.ascontiguousarray(clean[top : top + size_px, left : left + size_px])
