"""Read weights from a file without running code from it, download them, and load them."""

import pickle
import urllib.error
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from derain.models.tensor_files import read_tensors

_CONVERT = (
    'python -c "import torch, safetensors.torch as s; '
    "s.save_file({k: v.contiguous() for k, v in "
    "torch.jit.load('FILE', map_location='cpu').state_dict().items() if v.dim()}, "
    "'FILE.safetensors')\""
)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file, or of a .pt or .pth state dict, onto the CPU.

    Floating-point tensors are returned as float32. A .pt file is read with `weights_only=True`;
    the wrappers of open_clip's training (key `state_dict`, names starting with `module.`) and of
    BasicSR (key `params`) are removed. A TorchScript archive contains code and is refused.

    Raises FileNotFoundError if the file does not exist, ValueError if it is not a state dict.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a weights file (.safetensors, .pt or .pth) at {path}, found "
            f"{'a folder' if path.is_dir() else 'nothing'}. Pass the path of an existing file."
        )
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return {name: _float32(tensor) for name, tensor in tensors.items()}


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], origin: str | Path) -> None:
    """Replace the parameters and buffers of `module` (which may be on "meta") by `tensors`.

    Raises ValueError, naming `origin`, if a name is missing or unexpected or a shape differs.
    """
    try:
        module.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"The weights in {origin} do not fit the network: {error}. Check that the options for "
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


def _read_torch(path: Path) -> dict[str, Tensor]:
    if is_torchscript(path):
        raise ValueError(
            f"{path} is a TorchScript archive. It is refused, because loading it would run the "
            "code inside. If you trust it, convert it once and use the .safetensors file: "
            + _CONVERT.replace("FILE", str(path))
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"Expected a state dict of tensors at {path} (torch.load with weights_only=True), "
            f"found something else: {(str(error).splitlines() or ['nothing to unpickle'])[0]}"
        ) from None
    return _unwrap(content, path)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with a `code` folder, unlike a state dict."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    for wrapper in ("state_dict", "params"):  # open_clip's and MPRNet's, BasicSR's
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(
            f"Expected a dict of tensors at {path}, found {type(content).__name__} with other "
            "values. Save `module.state_dict()`."
        )
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
