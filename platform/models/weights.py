"""Read weights from a file without running code from it, download them, and load them."""

import logging
import pickle
import re
import urllib.error
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from derain.models.tensor_files import read_tensors

log = logging.getLogger(__name__)

AVERAGE = "params_ema"
"""BasicSR's key of the moving average, which its own tests use, beside `params`."""
PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "net_g.",
    "net.",
    "network.",
    "params.",
    "params_ema.",
)
"""What DataParallel, torch.compile, Lightning and others put before the name of every tensor."""
_EXTRACT = (
    "python -c \"import torch; torch.save(torch.load('FILE', map_location='cpu', "
    "weights_only=False)['state_dict'], 'FILE.tensors.pth')\""
)
_CONVERT = (
    'python -c "import torch, safetensors.torch as s; '
    "s.save_file({k: v.contiguous() for k, v in "
    "torch.jit.load('FILE', map_location='cpu').state_dict().items() if v.dim()}, "
    "'FILE.safetensors')\""
)


def read_state_dict(path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file, or of a .pt or .pth state dict, onto the CPU.

    Floating-point tensors are returned as float32. A .pt file is read with `weights_only=True`.
    Where the tensors are one value of a dict, as `state_dict`, `params` or `model`, they are taken
    from there; of several such values the one called `key`, or the moving average `params_ema`.
    `PREFIXES` that all names have are removed. A TorchScript archive contains code and is refused.

    Raises FileNotFoundError if the file does not exist, ValueError if it is not a state dict, or
    has several without a choice.
    """
    path = _existing(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    tensors = _without_prefixes(_unwrapped(content, path, key))
    if odd := [name for name, tensor in tensors.items() if not _is_plain(tensor)]:
        raise ValueError(
            f"Expected plain tensors of numbers at {path}, found {len(odd)} that are sparse, "
            f"quantised, complex or without values, such as {odd[0]}."
        )
    return {name: _float32(tensor) for name, tensor in tensors.items()}


def _existing(path: str | Path) -> Path:
    try:
        path = Path(path).expanduser()
    except RuntimeError as error:  # ~NAME of a user who does not exist
        raise FileNotFoundError(f"{path}: {error}") from None
    if not path.is_file():
        found = "no regular file" if path.exists() else "nothing"
        raise FileNotFoundError(
            f"Expected a weights file (.safetensors, .pt or .pth) at {path}, found "
            f"{'a folder' if path.is_dir() else found}. Pass the path of an existing file."
        )
    return path


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], origin: str | Path) -> None:
    """Replace the parameters and buffers of `module` (which may be on "meta") by `tensors`.

    Raises ValueError, naming `origin`, if a name is missing or unexpected or a shape differs.
    """
    try:
        module.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"The weights in {origin} do not fit the network: {reason} Check that the options for "
            "layers and width match the file."
        ) from None


def download_torchvision(arch: str, tag: str, remedy: str) -> dict[str, Tensor]:
    """Return torchvision's weights `tag` for `arch`, from the cache of torch.hub if present.

    Raises FileNotFoundError, naming the file and the `remedy`, if the download fails.
    """
    import torchvision  # takes seconds to import

    entry = torchvision.models.get_model_weights(arch)[tag]
    try:
        return entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (urllib.error.URLError, OSError) as error:
        raise FileNotFoundError(
            f"The ImageNet weights of {arch} are not in torch's cache and {entry.url} could not "
            f"be downloaded: {error}. Download that file on a machine with internet access, copy "
            f"it here and {remedy}."
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)
    except ValueError as error:
        raise ValueError(
            f"Expected a safetensors file at {path}, found something else: {error}. "
            "Copy or download it again."
        ) from None


def _read_torch(path: Path) -> object:
    if is_torchscript(path):
        raise ValueError(
            f"{path} is a TorchScript archive. It is refused, because loading it would run the "
            "code inside. If you trust it, convert it once and use the .safetensors file: "
            + _CONVERT.replace("FILE", str(path))
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"Expected a state dict of tensors at {path} (torch.load with weights_only=True), "
            f"found something else{_foreign(str(error), path)}."
        ) from None
    except OSError:
        raise
    except Exception as error:  # a damaged file makes torch's reader raise any type
        reason = (str(error).splitlines() or ["an empty file"])[0]
        kind = "" if isinstance(error, RuntimeError | EOFError) else f"{type(error).__name__}: "
        raise ValueError(
            f"Expected a state dict of tensors at {path}, found something else: {kind}{reason}"
        ) from None


def _foreign(message: str, path: Path) -> str:
    """The kind of object that torch refuses to unpickle, as its message has it, and the remedy."""
    named = re.search(r"Unsupported (?:global|class)[^\w]*(?:GLOBAL )?([\w.]+)", message)
    if not named:
        return ""
    return (
        f": {named[1]}. If it is a checkpoint that you trust, take its tensors out once, which "
        f"runs code in it: {_EXTRACT.replace('FILE', str(path))}"
    )


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with a `code` folder, unlike a state dict."""
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):  # cut off or damaged
        return False


def _unwrapped(content: object, path: Path, key: str | None) -> Mapping[str, Tensor]:
    """The tensors themselves, of a dict that may hold them as one of its values."""
    found = content.get(key) if key and isinstance(content, dict) else content
    if _is_state_dict(found):
        return found
    states = [name for name, value in _items(content) if _is_state_dict(value) and value]
    if key:
        raise ValueError(f"{path} has no tensors {key!r}; {_named(states)}.")
    if len(states) == 1:
        return dict(_items(content))[states[0]]
    if AVERAGE in states:
        log.info("weights: of %s the moving average is taken, %s", path, AVERAGE)
        return dict(_items(content))[AVERAGE]
    raise ValueError(
        f"Expected a dict of tensors at {path}, found {type(content).__name__} with other values; "
        f"{_named(states)}. "
        + ("Choose one with --key." if states else "Save `module.state_dict()`.")
    )


def _named(states: list[str]) -> str:
    return f"state dicts in it: {', '.join(states)}" if states else "there is no state dict in it"


def _items(content: object) -> list[tuple[str, Any]]:
    return list(content.items()) if isinstance(content, dict) else []


def _is_state_dict(value: object) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(value, dict) and all(isinstance(item, Tensor) for item in value.values())


def _without_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {str(name): tensor for name, tensor in tensors.items()}
    while common := [it for it in PREFIXES if named and all(n.startswith(it) for n in named)]:
        named = {name.removeprefix(common[0]): tensor for name, tensor in named.items()}
    return named


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not (
        tensor.is_quantized or tensor.is_complex() or tensor.is_meta
    )


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
