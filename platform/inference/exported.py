"""Networks as single files: writes ONNX and torch.export, reads these and TorchScript.

Loading such a file may execute code from it:

    .onnx         none: onnxruntime has a fixed set of operators
    .pt2          PyTorch evaluates expressions in the file (sizes, with sympy), which can be code
    TorchScript   the file is code

So the last two are loaded only with `trust`.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from derain.errors import DataError, DerainError, OccupiedError, UsageError, WeightsError
from derain.models.weights import is_torchscript

log = logging.getLogger(__name__)

Format = Literal["onnx", "torch-export"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
STRIDE = "derain.stride"
"""Metadata key in the file: height and width must be multiples of its value."""
METADATA_FILE = "derain.json"
"""The file inside a .pt2 that has the metadata."""
NETWORK = "derain.network"
"""Metadata key: the class of the network."""
RANGE = "derain.range"
"""Metadata key: the range of input and output."""
INPUT, OUTPUT = "rainy", "derained"
"""Names of the input and the output of an ONNX file."""
MAX_SIDE_PX = 8192
TOLERANCE = 1e-3
"""Largest difference of a written file from its network, in [0, 1]: half of an 8-bit level's half.
Measured: below 1e-5 (docs/measurements/exports.md)."""


class Exported(nn.Module):
    """A network from a file, on the CPU: NCHW RGB, float32 in [0, 1]."""

    def __init__(self, run: Any, stride: int, fixed_size: tuple[int, int] | None) -> None:
        """`fixed_size`: the only (height, width) that the file accepts; None for any."""
        super().__init__()
        # In a tuple, so that it is not a submodule: an exported program refuses eval() and train().
        self._run = (run,)
        self.stride = stride
        self._fixed_size = fixed_size

    def forward(self, x: Tensor) -> Tensor:
        """Rainy -> derained. Raises DataError if the file accepts only a different size."""
        size = tuple(x.shape[-2:])
        if self._fixed_size is not None and size != self._fixed_size:
            height, width = self._fixed_size
            raise DataError(
                f"This exported network accepts images of {width}x{height} px only, found "
                f"{size[1]}x{size[0]}. Export it without --size, or use the checkpoint that it "
                "was exported from."
            )
        return self._run[0](x)


def is_exported(model: str) -> bool:
    """Whether `model` names a file that `load_exported` reads."""
    path = Path(model)
    return path.is_file() and (path.suffix in (".onnx", ".pt2") or is_torchscript(path))


def load_exported(path: str | Path, *, trust: bool = False, stride: int | None = None) -> Exported:
    """The network in a .onnx, .pt2 or TorchScript file.

    `stride` is for files without this metadata; by default they are assumed to accept every size.

    Raises UsageError for a file that may run code without `trust`, WeightsError for a damaged one.
    """
    path = Path(path)
    with path.open("rb"):  # torch and onnxruntime call a file that may not be read a damaged one
        pass
    if path.suffix == ".onnx":
        return _load_onnx(path, stride)
    if not trust:
        kind = "a .pt2" if path.suffix == ".pt2" else "a TorchScript"
        raise UsageError(
            f"{path}: loading {kind} file can run code from it. If you trust its origin, give "
            "--trust. .onnx files and model folders do not need it."
        )
    try:
        if path.suffix == ".pt2":
            return _load_program(path, stride)
        return _load_torchscript(path, stride)
    except (DerainError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes torch raise any type
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path}: cannot be read as an exported network ({reason}).") from error


def export(
    network: nn.Module, out: str | Path, format: Format, size_px: tuple[int, int] | None = None
) -> Path:
    """Write a network to one file and return its path.

    The file maps NCHW RGB, float32 in [0, 1] to the same; its output is clamped. It accepts batches
    of any size, and any height and width that are multiples of the network's stride, or only
    `size_px` (height, width) if given. It is compared with the network before it gets its name.

    Raises OccupiedError if the file exists; UsageError if the network cannot be exported (the
    message says why), or if onnx is not installed; DerainError if the file differs.
    """
    path = Path(out)
    if path.suffix != SUFFIXES[format]:
        raise UsageError(f"{path}: the name of a {format} file must end with {SUFFIXES[format]}.")
    if path.exists():
        raise OccupiedError(
            f"{path} already exists and would be overwritten. Choose a different name."
        )
    if format == "onnx":
        _import_onnxruntime()
    stride: int = network.stride  # type: ignore[assignment]
    clamped = _Clamped(network.cpu().eval())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{path.name}")
    try:
        try:
            _write(clamped, stride, temporary, format, size_px, batches=(1, 3))
        except (UsageError, AssertionError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            _write(clamped, stride, temporary, format, size_px, batches=(1,))
            log.warning("export: %s accepts one image at a time. Of any number: %s", path, reason)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _write(
    network: "_Clamped",
    stride: int,
    path: Path,
    format: Format,
    size_px: tuple[int, int] | None,
    batches: tuple[int, ...],
) -> None:
    """Write a file and compare it with the network for batches of these numbers of images."""
    program = _program(network, stride, size_px, free_batch=len(batches) > 1)
    metadata = {STRIDE: str(stride), NETWORK: type(network.network).__name__, RANGE: "0..1"}
    if format == "torch-export":
        files = {METADATA_FILE: json.dumps({**metadata, STRIDE: stride})}
        torch.export.save(program, path, extra_files=files)
        written: Any = program.module()
    else:
        _save_onnx(program, path, metadata)
        written = _load_onnx(path, stride)
    _compare(network, written, stride, size_px, batches)


class _Clamped(nn.Module):
    """A network whose output is clamped to [0, 1], as `Predictor` does it; its argument's name
    becomes that of the file's input."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, rainy: Tensor) -> Tensor:
        return self.network(rainy).clamp(0.0, 1.0)


def _program(
    network: _Clamped, stride: int, size_px: tuple[int, int] | None, *, free_batch: bool
) -> torch.export.ExportedProgram:
    side = stride * max(2, 48 // stride)
    height, width = size_px or (side, side + stride)
    most = MAX_SIDE_PX // stride
    free: dict[int, Any] = {0: torch.export.Dim("batch")} if free_batch else {}
    if size_px is None:
        free[2] = stride * torch.export.Dim("rows", min=2, max=most)
        free[3] = stride * torch.export.Dim("columns", min=2, max=most)
    count = 2 if free_batch else 1  # torch takes a size of 1 for a constant
    example = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            return torch.export.export(network, (example,), dynamic_shapes=(free,))
    except Exception as error:  # torch.export passes on any error of the network's code
        raise UsageError(
            f"{type(network.network).__name__} cannot be exported for "
            f"{'this size' if size_px else 'images of any size; try --size WIDTHxHEIGHT'}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error


def _save_onnx(
    program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]
) -> None:
    """Write an ONNX file with named input and output, and let onnx check it."""
    import onnx

    names: dict[str, Any] = {
        "input_names": [INPUT],
        "output_names": [OUTPUT],
        "dynamic_shapes": ({0: "batch", 2: "height", 3: "width"},),
    }
    onnx_program = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    assert onnx_program is not None
    onnx_program.model.metadata_props.update(metadata)
    onnx_program.save(str(path))
    onnx.checker.check_model(str(path), full_check=True)


@torch.no_grad()
def _compare(
    network: _Clamped,
    written: Any,
    stride: int,
    size_px: tuple[int, int] | None,
    batches: Sequence[int],
) -> None:
    """Raise DerainError if a written file gives other images than its network, in batches of some
    sizes; height and width are two different odd multiples of the stride."""
    odd = max(3, -(-33 // stride) | 1)
    size = size_px or (stride * odd, stride * (odd + 2))
    for count in batches:
        rainy = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(count))
        difference = float((network(rainy) - written(rainy)).abs().max())
        if not difference <= TOLERANCE:  # also if it is NaN
            raise DerainError(
                f"The exported file differs from {type(network.network).__name__} by "
                f"{difference:.1e} in [0, 1] for {count} images of {size[1]}x{size[0]} px, at most "
                f"{TOLERANCE:.0e} is allowed. Nothing was written."
            )


def _load_onnx(path: Path, stride: int | None) -> Exported:
    runtime = _import_onnxruntime()
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base class
        raise WeightsError(f"{path}: cannot be read as ONNX ({error}).") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or not outputs or len(inputs[0].shape) != 4:
        found = ", ".join(f"{it.name} {it.shape}" for it in inputs) or "no input"
        raise WeightsError(
            f"{path}: expected one input (batch, 3, height, width) and an output, found {found} "
            f"and {len(outputs)} outputs."
        )

    def run(x: Tensor) -> Tensor:
        rainy = np.ascontiguousarray(x.numpy())
        try:
            return torch.from_numpy(session.run(None, {inputs[0].name: rainy})[0])
        except Exception as error:  # as above
            raise DerainError(f"{path}: fails on an image of {tuple(x.shape)}: {error}") from error

    metadata = session.get_modelmeta().custom_metadata_map
    return _exported(path, run, inputs[0].shape, stride, metadata)


def _load_program(path: Path, stride: int | None) -> Exported:
    files = {METADATA_FILE: ""}
    program = torch.export.load(path, extra_files=files)
    metadata = json.loads(files[METADATA_FILE] or "{}")
    names = program.graph_signature.user_inputs
    (image,) = (node for node in program.graph.nodes if node.name == names[0])
    return _exported(path, program.module(), image.meta["val"].shape, stride, metadata)


def _exported(
    path: Path,
    run: Any,
    input_shape: Sequence[Any],
    stride: int | None,
    metadata: Mapping[str, Any],
) -> Exported:
    """The network with the stride of its metadata, and the fixed size of its input, if any."""
    sides = input_shape[2:]
    fixed_size = tuple(sides) if all(isinstance(side, int) for side in sides) else None
    stated = str(metadata.get(STRIDE, 1))
    if stride is None and not (stated.isdecimal() and 1 <= int(stated[:9]) <= MAX_SIDE_PX):
        raise WeightsError(
            f"{path}: its metadata {STRIDE} is {stated!r}, expected a number from 1 to "
            f"{MAX_SIDE_PX}. Give --stride."
        )
    return Exported(run, stride or int(stated), fixed_size)


def _load_torchscript(path: Path, stride: int | None) -> Exported:
    return Exported(torch.jit.load(path, map_location="cpu").eval(), stride or 1, None)


def _import_onnxruntime() -> Any:
    try:
        import onnx  # noqa: F401  checks what was written
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx.export needs it
    except ImportError as error:
        raise UsageError(
            f"ONNX needs a package that is not installed ({error.name}). Run: "
            "pip install 'derain-platform[export]'."
        ) from None
    return onnxruntime
