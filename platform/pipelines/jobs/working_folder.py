"""The folder that a job carries to the cluster: this package, and the files of its command."""

import importlib.metadata
import shutil
from collections.abc import Sequence
from pathlib import Path

from derain.config import shipped
from derain.errors import UsageError
from derain.pipelines.jobs.entry import CARRIED

PACKAGE = Path(__file__).resolve().parents[2]
NOT_CARRIED = ("__pycache__", "*.pyc")
CONFIG_ENDINGS = (".yaml", ".yml")


def fill(folder: Path, command: Sequence[str], extras: Sequence[Path]) -> list[str]:
    """Fill a new folder; returns the command with the new places of the files it names.

    It gets this package as it runs here, each config file that is a word of the command, and
    `extras`: files and folders below the working directory, which keep their place. Raises
    UsageError for one that is elsewhere or missing.
    """
    _copy_package(folder)
    for path in extras:
        _carry_extra(path, folder)
    return [_carry_config(word, number, folder) for number, word in enumerate(command)]


def _copy_package(folder: Path) -> None:
    """As a wheel installs it: derain.py, its rooms with the shipped configs, and its version."""
    without = shutil.ignore_patterns(*NOT_CARRIED)
    shutil.copy2(PACKAGE.with_name("derain.py"), folder)
    shutil.copytree(PACKAGE, folder / "derain", ignore=without)
    shutil.copytree(shipped.folder(), folder / "derain/configs", dirs_exist_ok=True, ignore=without)
    version = importlib.metadata.version("derain-platform")
    info = folder / f"derain_platform-{version}.dist-info"
    info.mkdir()
    described = f"Metadata-Version: 2.1\nName: derain-platform\nVersion: {version}\n"
    (info / "METADATA").write_text(described, encoding="utf-8")


def _carry_config(word: str, number: int, folder: Path) -> str:
    path = Path(word)
    if path.suffix not in CONFIG_ENDINGS or not path.is_file():
        return word
    place = Path("given", str(number), path.name)
    (folder / place).parent.mkdir(parents=True)
    shutil.copy2(path, folder / place)
    return f"{CARRIED}{place.as_posix()}"


def _carry_extra(path: Path, folder: Path) -> None:
    try:
        place = path.resolve().relative_to(Path.cwd())
    except ValueError:
        raise UsageError(
            f"--with {path}: a job keeps such files in their place, so they must be below the "
            "working directory. Change to the folder above them, or copy them here."
        ) from None
    if path.is_dir():
        without = shutil.ignore_patterns(*NOT_CARRIED)
        shutil.copytree(path, folder / place, ignore=without, dirs_exist_ok=True)
    elif path.is_file():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, folder / place)
    else:
        raise UsageError(f"--with {path}: no such file or folder.")
