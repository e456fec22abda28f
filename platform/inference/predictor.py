"""Derains images of any size with a network, and saves and loads networks as model folders.

A *model folder* is a network for use, without training state:

    network.json         {"format": 1, "name", "options", "trained_with"}
    model.safetensors    the complete state dict, a frozen encoder's included

Loading it executes no code from it and downloads nothing. It cannot resume a training run;
checkpoints can.

A registered model carries a copy of this module, in which MLflow finds `_load_pyfunc` by name, and
of what it imports. So `inference/` imports nothing of ours but itself, `models/` and `errors.py`,
and writes files with its own `_write` instead of `storage.atomic`.
"""

import contextlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from derain import models
from derain.errors import DataError, DerainError, OccupiedError, UsageError, WeightsError
from derain.inference import memory, tiles
from derain.inference.tiles import Levels
from derain.models.precision import without_tf32
from derain.models.shapes import image_batch, with_dimensions
from derain.models.tensor_files import read_tensors, write_tensors

NETWORK_FILE = "network.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT = 1

PRETRAINED_OPTION = "encoder_weights"
"""The option that names the weights to start training from; loading replaces them all anyway."""
NO_PRETRAINED = "random"
PUBLISHED = "published"
"""Recorded in `trained_with` if the option was not given."""

MAX_KEYS_IN_MESSAGE = 5

Tile = int | Literal["auto"] | None
OVERLAP_PX = 96
"""Of neighbouring tiles: pixels up to 32 away count as in the whole image."""
LEAST_TILE_PX = 128
PROBE_PX = 256
"""Side of the image whose pass is measured for `auto`."""
LEAST_BYTES_PER_PIXEL = 1024
"""For exported files, whose operations cannot be seen."""
MEMORY_SHARE = 0.5
"""Of the memory that is left, for the pass of one tile."""

_OUT_OF_MEMORY = re.compile(r"out of memory|not enough memory|(can't|cannot) allocate", re.I)
"""What torch's allocators say."""

_INTEGERS = (np.uint8, np.uint16)
"""Types of images: 8 and 16 bits per channel."""


class Predictor:
    """Derains single images with one network on one device."""

    def __init__(
        self,
        network: nn.Module,
        device: str | torch.device = "cpu",
        tile: Tile = None,
        memory_share: float = MEMORY_SHARE,
    ) -> None:
        """Move the network to the device. Image sides must be multiples of its `.stride`.

        `tile` is the side in pixels of the tiles that a larger image is cut into, see `tiles`;
        `auto` cuts it if it does not fit into `memory_share` of the memory that is left, into tiles
        that do; None never cuts. Raises UsageError for tiles below LEAST_TILE_PX.
        """
        self.device = torch.device(device)
        self.network = network.to(self.device)
        self._takes_routes = getattr(network, "route_key", None) is not None
        if tile not in (None, "auto") and not (isinstance(tile, int) and tile >= LEAST_TILE_PX):
            raise UsageError(
                f"Tiles must have {LEAST_TILE_PX} px a side or more (an integer, `auto` or None), "
                f"found {tile!r}."
            )
        self._tile: Tile = tile
        self._memory_share = memory_share
        self._bytes_per_pixel: float | None = None

    def room(self, pixels: int) -> int:
        """How many passes, each of an image of so many pixels, fit into the memory at once.

        At least 1: what does not fit is cut, see `tile`.
        """
        budget = memory.available_bytes(self.device) * self._memory_share
        return max(1, int(budget / (pixels * self._pixel_bytes())))

    def route(self, image: np.ndarray) -> int | None:
        """The number of the route that a routing network takes for an image; None for others.

        The image is uint8 or uint16, HWC, RGB. Raises DataError for another.
        """
        _check(image, ("height", "width", 3), _INTEGERS)
        found = self._route_argument(image)
        return int(found["route"]) if found else None

    def derain(self, image: np.ndarray, route: int | None = None) -> np.ndarray:
        """Return the derained image: HWC, RGB, of the same size and type (uint8 or uint16).

        This is `levels`, rounded; for uint16, scaled to 0..65535 before. `route` saves a routing
        network the way to what `route(image)` returned.
        """
        _check(image, ("height", "width", 3), _INTEGERS)
        result = np.empty_like(image)
        for top, band in self._bands(image, route):
            result[top : top + len(band)] = _rounded(band, image.dtype)
        return result

    def derain_alike(
        self, images: Sequence[np.ndarray], routes: Sequence[int | None]
    ) -> list[np.ndarray]:
        """`derain` for images of one size and type, in one pass if that fits into the memory.

        `routes` has what `route` returned for each. Sums of another order make the last digits of
        floats differ from those of single passes, so a level may differ by one.
        """
        batch = np.stack(images)
        side = self._tile_px(batch[0], len(batch))
        if len(batch) == 1 or (side is not None and max(batch.shape[1:3]) > side):
            return [self.derain(image, route) for image, route in zip(images, routes, strict=True)]
        for image in images:
            _check(image, ("height", "width", 3), _INTEGERS)
        given = [route for route in routes if route is not None]
        route = {"route": torch.tensor(given, device=self.device)} if given else {}
        return [_rounded(unit, batch.dtype) for unit in self._unit(batch, route)]

    def levels(self, image: np.ndarray) -> np.ndarray:
        """Return the derained image before rounding: float32 HWC RGB in [0, 255].

        The image is uint8 or uint16, HWC, RGB, over the whole range of its type.

        The image is mirrored at its right and lower edge up to a multiple of the network's
        stride, and the result cropped back. A network that routes images gets the route of the
        image without its mirrored edge, as in training. The network runs in eval mode; its
        previous mode is restored afterwards, in full float32, so that scores do not depend on the
        kind of GPU. Its output is clamped to [0, 1] and scaled by 255.

        Raises:
            DataError: not a uint8 or uint16 image of the shape (height, width, 3), or an empty
                one.
            DerainError: the network fails on an image of this size or needs more memory than there
                is, or returned something else than an image of its size, NaN or infinity.
        """
        _check(image, ("height", "width", 3), _INTEGERS)
        return self._whole(image) * np.float32(255.0)

    def derain_unit(self, image: np.ndarray) -> np.ndarray:
        """Return the derained image without rounding: float32 HWC RGB in [0, 1], as the image is.

        Raises DataError for another shape or range, and what `levels` raises.
        """
        shape = getattr(image, "shape", None)
        if shape is None or len(shape) != 3 or shape[2] != 3 or image.dtype != np.float32:
            raise DataError(f"Expected float32 of the shape (height, width, 3), found {shape}.")
        if image.size == 0:
            raise DataError("Expected floats in [0, 1], found no pixels.")
        if not np.isfinite(image).all():
            count = image.size - np.count_nonzero(np.isfinite(image))
            raise DataError(
                f"Expected floats in [0, 1], found NaN or infinity in {count:,} of {image.size:,} "
                "values. Replace them, for example with numpy.nan_to_num."
            )
        if image.min() < 0 or image.max() > 1:
            raise DataError(
                f"Expected floats in [0, 1], found from {image.min()} to {image.max()}. Divide "
                "levels in 0..255 by 255; undo a normalisation."
            )
        return self._whole(image)

    def _whole(self, image: np.ndarray) -> Levels:
        """The derained image, HWC RGB float32 in [0, 1]."""
        parts = list(self._bands(image))
        return parts[0][1] if len(parts) == 1 else np.concatenate([band for _, band in parts])

    def _bands(
        self, image: np.ndarray, known_route: int | None = None
    ) -> Iterator[tuple[int, Levels]]:
        """`_whole` in bands of rows, each with the number of its first row."""
        route, side = self._route_argument(image, known_route), self._tile_px(image)
        if side is None or max(image.shape[:2]) <= side:
            yield 0, self._unit(image[None], route)[0]
            return
        stride, overlap = _stride(self.network), min(OVERLAP_PX, side // 2)

        def unit(tile: np.ndarray) -> Levels:
            return self._unit(tile[None], route)[0]

        yield from tiles.bands(image, unit, side - side % stride, overlap, stride)

    def _tile_px(self, image: np.ndarray, count: int = 1) -> int | None:
        """The side of the tiles for an image, or `count` at once; None for the whole image."""
        if self._tile != "auto":
            return self._tile
        pixels = count * image.shape[0] * image.shape[1]
        if pixels <= PROBE_PX**2:
            return None
        budget = memory.available_bytes(self.device) * self._memory_share
        if pixels * self._pixel_bytes() <= budget:
            return None
        side = int((budget / self._pixel_bytes()) ** 0.5)
        return max(LEAST_TILE_PX, side)

    def _pixel_bytes(self) -> float:
        """Bytes per pixel of a pass of the network, from one on a small image."""
        if self._bytes_per_pixel is None:
            probe = np.zeros((PROBE_PX, PROBE_PX, 3), np.uint8)
            route = self._route_argument(probe)
            peak = memory.peak_bytes(lambda: self._unit(probe[None], route))
            self._bytes_per_pixel = max(peak / PROBE_PX**2, LEAST_BYTES_PER_PIXEL)
        return self._bytes_per_pixel

    def _unit(self, images: np.ndarray, route: Mapping[str, Tensor]) -> Levels:
        """The derained images, NHWC RGB float32 in [0, 1]; see `levels`."""
        height, width = images.shape[1:3]
        rainy = self._tensor(_padded(images, _stride(self.network)))
        derained = self._derained(rainy, images, route)[..., :height, :width]
        if not bool(torch.isfinite(derained).all()):
            raise DerainError(
                "The network returned NaN or infinity for an image of "
                f"{width}x{height} px. Either its weights are damaged or its training diverged."
            )
        return derained.float().clamp(0.0, 1.0).permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def _derained(self, rainy: Tensor, images: np.ndarray, route: Mapping[str, Tensor]) -> Tensor:
        """The network's output, which has the shape of `rainy`."""
        try:
            derained = self._forward(rainy, route)
        except DerainError:
            raise
        except Exception as error:
            explained = self._explained(error, rainy, images)
            if explained is None:
                raise
            raise explained from error
        check_output(self.network, derained, rainy)
        return derained

    def _explained(self, error: Exception, rainy: Tensor, images: np.ndarray) -> DerainError | None:
        """What an error of a network's own code means; None for one of the GPU, and in one of
        several ranks: another rank's end looks the same, after which the run starts again.
        """
        height, width = images.shape[1:3]
        text = str(error)
        if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
            return DerainError(
                f"{width} x {height} px need more memory than there is. Cut the image, or use a "
                "machine with more."
            )
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        if several or "CUDA" in text:
            return None
        return DerainError(
            f"The network {type(self.network).__name__} fails on an image of {width}x{height} "
            f"px, given to it as {rainy.shape[3]}x{rainy.shape[2]} px: {type(error).__name__}: "
            f"{text}. Sides are padded to multiples of its `stride`, {self.network.stride}; if "
            "it needs multiples of another number, or more pixels, that is the reason."
        )

    def _tensor(self, images: np.ndarray) -> Tensor:
        """NHWC -> NCHW RGB in [0, 1]."""
        if images.dtype == np.uint16:  # torch has no arithmetic for it
            deep = torch.from_numpy(images.astype(np.float32)).to(self.device)
            return deep.permute(0, 3, 1, 2).div_(np.iinfo(np.uint16).max)
        if images.dtype == np.float32:
            return torch.tensor(images, device=self.device).permute(0, 3, 1, 2)
        host = torch.from_numpy(np.ascontiguousarray(images))
        return image_batch(host.to(self.device))

    def _forward(self, rainy: Tensor, route: Mapping[str, Tensor]) -> Tensor:
        with self._in_use():
            return self.network(rainy, **route)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        """The network in eval mode and in full float32, without gradients."""
        # Per module: a frozen part may be in eval mode while the rest is in training mode.
        modes = [(module, module.training) for module in self.network.modules()]
        self.network.eval()
        try:
            # What torch may round is a setting of the process, and on a CPU there may be several
            # passes at once.
            exact = contextlib.nullcontext() if self.device.type == "cpu" else without_tf32()
            with torch.inference_mode(), exact:
                yield
        finally:
            for module, was_training in modes:
                module.training = was_training

    def _route_argument(self, image: np.ndarray, known: int | None = None) -> dict[str, Tensor]:
        """The route of the whole image, for a network that takes one."""
        if not self._takes_routes:
            return {}
        if known is not None:
            return {"route": torch.tensor([known], device=self.device)}
        perceive: Any = self.network.perceive
        with self._in_use():
            return {"route": perceive(self._tensor(image[None].copy()))}  # a cache's are read-only


def check_output(network: nn.Module, output: object, rainy: Tensor) -> None:
    """Raise DerainError unless the output of a network is a batch of images like `rainy`."""
    if isinstance(output, Tensor) and output.shape == rainy.shape and output.is_floating_point():
        return
    found = (
        f"{output.dtype} of the shape {tuple(output.shape)}"
        if isinstance(output, Tensor)
        else f"a {type(output).__name__}"
    )
    raise DerainError(
        f"The network {type(network).__name__} returned {found} for images of the shape "
        f"{tuple(rainy.shape)}; expected one tensor of the same shape, float32. Return the "
        "derained images only, as large as the rainy ones; if sides must be multiples of a number, "
        f"make it the network's `stride`, which is {getattr(network, 'stride', None)} now."
    )


def save_model_folder(
    network: nn.Module, folder: str | Path, name: str, options: Mapping[str, Any]
) -> Path:
    """Write a network as a model folder and return the folder.

    `name` and `options` are the arguments of `derain.models.build`; `trained_with` records the
    pretrained weights among them. network.json is written last: a folder with it is complete.

    Raises:
        OccupiedError: the folder is not empty.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise OccupiedError(
            f"{folder} is not empty. Write the model folder to a new or empty folder."
        )
    # A copy of each tensor: safetensors refuses tensors that share memory (tied weights).
    state = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in network.state_dict().items()
    }
    _write(folder / WEIGHTS_FILE, lambda path: write_tensors(state, path))
    description = json.dumps(_description(name, options), indent=2, sort_keys=True) + "\n"
    _write(folder / NETWORK_FILE, lambda path: path.write_text(description, encoding="utf-8"))
    return folder


def check_trust(name: str, origin: str | Path, trust: bool) -> None:
    """Raise UsageError if a saved network is a user-defined class and `trust` is not given."""
    if models.is_user_defined(name) and not trust:
        raise UsageError(
            f"{origin} is a network of the user-defined class {name}. Loading it imports its "
            "module, which runs code. If you trust that code, give --trust."
        )


def load_model_folder(
    folder: str | Path, device: str | torch.device = "cpu", *, trust: bool = False
) -> nn.Module:
    """Build the network that a model folder describes and give it the folder's weights.

    The network is returned on the device and in eval mode.

    Raises:
        WeightsError: the folder is incomplete or damaged, describes an unknown network, or its
            weights do not match the network exactly.
        UsageError: the network is a user-defined class, and `trust` is not given.
        OSError: a file may not be read.
    """
    folder = Path(folder)
    description = _read_description(folder / NETWORK_FILE)
    saved = _read_state(folder / WEIGHTS_FILE)
    check_trust(description["name"], folder, trust)
    network = _build(description, folder / NETWORK_FILE)
    state = with_dimensions(saved, network.state_dict())
    _check_state(network, state, folder / WEIGHTS_FILE)
    network.load_state_dict(state)
    return network.to(device).eval()


class _PyfuncModel:
    """A model with the interface that MLflow expects: `predict` on a batch."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Derain a batch: NHWC, RGB, whole numbers in 0..255; the result is uint8, same shape.

        Numbers that came as JSON have another integer type than uint8. Floats are refused, also
        those without a fraction: as levels in [0, 1] they would give black images.

        Raises:
            DataError: not an array of the shape (batch, height, width, 3) (pass a single image as
                `image[None]`), or `params` were given, of which there are none. Where MLflow has
                called, it is an MlflowException too, whose message reaches the client as HTTP 400.
        """
        try:
            if params:
                raise DataError(f"This model takes no params, found: {', '.join(sorted(params))}.")
            batch = _as_levels(model_input)
            _check(batch, ("batch", "height", "width", 3))
        except DataError as error:
            raise _for_mlflow(error) from error
        # One by one, so that a large batch needs no more memory than one image.
        return np.stack([self._predictor.derain(image) for image in batch])


def _load_pyfunc(path: str) -> _PyfuncModel:
    """Load a model folder on the CPU; `mlflow.pyfunc.load_model` calls this by name.

    With trust: MLflow has put the code of the model on Python's path already.
    """
    return _PyfuncModel(Predictor(load_model_folder(path, trust=True)))


def _as_levels(array: np.ndarray) -> np.ndarray:
    """Integers of any type in 0..255 as uint8; anything else unchanged, for `_check` to refuse."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or array.size == 0:
        return array
    if array.min() < 0 or array.max() > 255:
        raise DataError(
            f"Expected levels in 0..255, found numbers from {array.min()} to {array.max()}."
        )
    return array.astype(np.uint8)


def _for_mlflow(error: DataError) -> Exception:
    """The error, as an MlflowException too if MLflow is running.

    Its scoring server answers with the message of its own exceptions only. MLflow is not imported
    here: a model folder does not need it, and where it loads models it is there.
    """
    mlflow = getattr(sys.modules.get("mlflow.exceptions"), "MlflowException", None)
    if mlflow is None:
        return error
    invalid_images: Any = type("InvalidImages", (DataError, mlflow), {})
    return invalid_images.invalid_parameter_value(str(error))


def _check(
    array: np.ndarray, shape: tuple[str | int, ...], types: tuple[type, ...] = (np.uint8,)
) -> None:
    found = getattr(array, "shape", None)
    if (
        not isinstance(array, np.ndarray)
        or array.dtype not in types
        or array.ndim != len(shape)
        or array.shape[-1] != 3
        or array.size == 0
    ):
        kind = getattr(array, "dtype", type(array).__name__)
        expected = ", ".join(str(side) for side in shape)
        is_float = getattr(kind, "kind", "") == "f"
        advice = (
            " Multiply floats in [0, 1] by 255, round them, and pass integers." if is_float else ""
        )
        raise DataError(
            f"Expected a non-empty uint8 array of the shape ({expected}), RGB in 0..255; found "
            f"{kind} of the shape {found}.{advice}"
        )


def _stride(network: nn.Module) -> int:
    stride = network.stride
    if not isinstance(stride, int) or stride < 1:
        raise UsageError(
            f"{type(network).__name__}.stride must be a positive integer, is {stride!r}; images "
            "are padded to multiples of it."
        )
    return stride


def _rounded(unit: Levels, dtype: np.dtype) -> np.ndarray:
    """Levels of an integer type."""
    scale = np.float32(np.iinfo(dtype).max / 255)
    return np.rint(unit * np.float32(255.0) * scale).astype(dtype)


def _padded(images: np.ndarray, stride: int) -> np.ndarray:
    """Mirror at the right and lower edge, repeatedly if an image is smaller than the margin.

    With numpy, because torch refuses to reflect by more than the side of the image.
    """
    height, width = images.shape[1:3]
    margins = ((0, 0), (0, -height % stride), (0, -width % stride), (0, 0))
    return np.ascontiguousarray(np.pad(images, margins, mode="reflect"))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write under a temporary name, then rename: a file with its final name is complete. An error
    leaves nothing."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _description(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    description: dict[str, Any] = {"format": FORMAT, "name": name, "options": dict(options)}
    option = _pretrained_option(name)
    if option is not None:
        description["options"][PRETRAINED_OPTION] = NO_PRETRAINED
        trained_with = options.get(PRETRAINED_OPTION, option.default)
        description["trained_with"] = {PRETRAINED_OPTION: trained_with or PUBLISHED}
    return description


def _pretrained_option(name: str) -> inspect.Parameter | None:
    """The network's option for pretrained weights, if any; its default would download them."""
    if models.is_user_defined(name):
        return None
    return inspect.signature(models.MODELS[name]).parameters.get(PRETRAINED_OPTION)


def _read_description(path: Path) -> dict[str, Any]:
    _check_exists(path)
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: not JSON ({error}).") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        found = description.get("format") if isinstance(description, dict) else description
        raise WeightsError(
            f"{path}: expected format {FORMAT}, found {found!r}. It was written by a different "
            f"version of derain-platform, or is not a model's {NETWORK_FILE}."
        )
    if not isinstance(description.get("name"), str) or not isinstance(
        description.get("options"), dict
    ):
        raise WeightsError(f"{path}: must have the name of a network and its options.")
    return description


def _read_state(path: Path) -> dict[str, Tensor]:
    _check_exists(path)
    try:
        return read_tensors(path)
    except ValueError as error:
        raise WeightsError(
            f"{path} is damaged or not a safetensors file ({error}). Copy or register it again."
        ) from error


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(
            f"{path} is missing. A model folder has {NETWORK_FILE} and {WEIGHTS_FILE}."
        )


def _build(description: Mapping[str, Any], path: Path) -> nn.Module:
    name, options = description["name"], dict(description["options"])
    if name not in models.MODELS and not models.is_user_defined(name):
        known = ", ".join(sorted(models.MODELS))
        raise WeightsError(f"{path}: unknown network {name!r}; choose from: {known}.")
    if _pretrained_option(name) is not None:
        options[PRETRAINED_OPTION] = NO_PRETRAINED
    try:
        return models.build(name, **options)
    except (TypeError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise WeightsError(f"{path}: cannot build {name} with {options}: {reason}.") from error


def _check_state(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    expected = network.state_dict()
    problems = []
    if missing := [key for key in expected if key not in state]:
        problems.append(f"missing: {_listed(missing)}")
    if unexpected := [key for key in state if key not in expected]:
        problems.append(f"unexpected: {_listed(unexpected)}")
    if reshaped := [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]:
        problems.append(f"wrong shape: {_listed(reshaped)}")
    if retyped := [
        f"{key} is {state[key].dtype}, expected {value.dtype}"
        for key, value in expected.items()
        if key in state and state[key].is_floating_point() != value.is_floating_point()
    ]:
        problems.append(f"wrong type: {_listed(retyped)}")
    if problems:
        raise WeightsError(
            f"{path} does not match the network {type(network).__name__}: "
            + "; ".join(problems)
            + f". Use the {WEIGHTS_FILE} that was written together with this {NETWORK_FILE}."
        )


def _listed(keys: list[str]) -> str:
    more = len(keys) - MAX_KEYS_IN_MESSAGE
    return ", ".join(keys[:MAX_KEYS_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")
