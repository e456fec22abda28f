"""Networks as files of other tools: written as ONNX or torch.export, read as those or TorchScript.

What may run when such a file is loaded:

    .onnx         nothing of the file's: onnxruntime knows a fixed set of operators
    .pt2          PyTorch evaluates expressions from the file (sizes, by sympy), which can be code
    TorchScript   the file is code

So the last two are read only where `trust` says that the file's origin is trusted.
"""

import json
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from derain.errors import DataError, OccupiedError, UsageError, WeightsError
from derain.models.weights import is_torchscript

Format = Literal["onnx", "torch-export"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
STRIDE = "derain.stride"
"""What the file says of the network: height and width must be multiples of this."""
NOTE = "derain.json"
LARGEST_PX = 8192


class Exported(nn.Module):
    """A network from a file, on the CPU: NCHW RGB, float32 in [0, 1], batches of one."""

    def __init__(self, run: Any, stride: int, fixed: tuple[int, int] | None) -> None:
        super().__init__()
        self._run = (run,)  # a tuple: an exported program refuses eval() and train()
        self.stride = stride
        self._fixed = fixed

    def forward(self, x: Tensor) -> Tensor:
        """Rainy -> clean. Raises DataError where the file takes images of one other size."""
        size = tuple(x.shape[-2:])
        if self._fixed is not None and size != self._fixed:
            raise DataError(
                f"This exported network takes images of {self._fixed[1]}x{self._fixed[0]} px "
                f"only, found {size[1]}x{size[0]}. Export it without --size, or evaluate the "
                "checkpoint that it came from."
            )
        return self._run[0](x)


def is_exported(model: str) -> bool:
    """Whether `model` names a file that `load_exported` reads."""
    path = Path(model)
    return path.is_file() and (path.suffix in (".onnx", ".pt2") or is_torchscript(path))


def load_exported(path: str | Path, *, trust: bool = False, stride: int | None = None) -> Exported:
    """The network in a .onnx, .pt2 or TorchScript file.

    `stride` is for files that do not say theirs; without it they are taken to fit every size.

    Raises UsageError for a file that may run code without `trust`, WeightsError for a damaged one.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        return _load_onnx(path, stride)
    if not trust:
        kind = "a .pt2" if path.suffix == ".pt2" else "a TorchScript"
        raise UsageError(
            f"{path}: loading {kind} file can run "
            "code from it. If you trust where it comes from, give --trust; .onnx files and model "
            "folders need no trust."
        )
    try:
        return (_load_program if path.suffix == ".pt2" else _load_script)(path, stride)
    except (RuntimeError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path}: cannot be read as an exported network ({error}).") from error


def export(
    network: nn.Module, out: str | Path, format: Format, size_px: tuple[int, int] | None = None
) -> Path:
    """Write a network to one file; height and width stay free, in multiples of its stride, unless
    `size_px` (height, width) fixes them.

    Raises OccupiedError for a file that is there, UsageError where the network cannot be exported
    so (the message says why), or where onnx is missing.
    """
    path = Path(out)
    if path.suffix != SUFFIXES[format]:
        raise UsageError(f"{path}: a {format} file ends with {SUFFIXES[format]}.")
    if path.exists():
        raise OccupiedError(f"{path}: would be overwritten. Give another name.")
    if format == "onnx":
        _onnx()
    stride: int = network.stride  # type: ignore[assignment]
    program = _program(network.cpu().eval(), stride, size_px)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{path.name}")
    if format == "torch-export":
        torch.export.save(program, temporary, extra_files={NOTE: json.dumps({STRIDE: stride})})
    else:
        made = torch.onnx.export(program, dynamo=True, verbose=False)
        assert made is not None
        made.model.metadata_props[STRIDE] = str(stride)
        made.save(str(temporary))
    temporary.replace(path)
    return path


def _program(
    network: nn.Module, stride: int, size_px: tuple[int, int] | None
) -> torch.export.ExportedProgram:
    side = stride * max(2, 48 // stride)
    height, width = size_px or (side, side + stride)
    most = LARGEST_PX // stride
    free = {
        2: stride * torch.export.Dim("rows", min=2, max=most),
        3: stride * torch.export.Dim("columns", min=2, max=most),
    }
    example = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            shapes = None if size_px else (free,)
            return torch.export.export(network, (example,), dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises whatever the network's code ran into
        raise UsageError(
            f"{type(network).__name__} cannot be exported for "
            f"{'this size' if size_px else 'images of any size; try --size WIDTHxHEIGHT'}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error


def _load_onnx(path: Path, stride: int | None) -> Exported:
    runtime = _onnx()
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise WeightsError(f"{path}: cannot be read as ONNX ({error}).") from error
    given = session.get_inputs()[0]

    def run(x: Tensor) -> Tensor:
        rainy = np.ascontiguousarray(x.numpy())
        return torch.from_numpy(session.run(None, {given.name: rainy})[0])

    known = session.get_modelmeta().custom_metadata_map
    sides = given.shape[2:]
    fixed = tuple(sides) if all(isinstance(side, int) for side in sides) else None
    return Exported(run, stride or int(known.get(STRIDE, 1)), fixed)


def _load_program(path: Path, stride: int | None) -> Exported:
    notes = {NOTE: ""}
    program = torch.export.load(path, extra_files=notes)
    known = json.loads(notes[NOTE] or "{}")
    names = program.graph_signature.user_inputs
    (image,) = (node for node in program.graph.nodes if node.name == names[0])
    sides = image.meta["val"].shape[2:]
    fixed = tuple(sides) if all(isinstance(side, int) for side in sides) else None
    return Exported(program.module(), stride or int(known.get(STRIDE, 1)), fixed)


def _load_script(path: Path, stride: int | None) -> Exported:
    return Exported(torch.jit.load(path, map_location="cpu").eval(), stride or 1, None)


def _onnx() -> Any:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it to write
    except ImportError as error:
        raise UsageError(
            f"ONNX needs packages that are not installed ({error.name}): "
            "pip install 'derain-platform[export]'."
        ) from None
    return onnxruntime
