"""The configs that ship with the package, which need no path: `ldfps`, `paper/table9_losses`."""

from pathlib import Path


def folder() -> Path:
    """The folder of the shipped configs: in the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """The shipped configs, sorted, without their ending."""
    return sorted(path.relative_to(folder()).with_suffix("").as_posix() for path in _files())


def find(path: Path) -> Path:
    """The file of a path, or of the name of a shipped config; an existing file comes first."""
    if path.exists() or path.is_absolute():
        return path
    named = path.with_suffix("") if path.suffix == ".yaml" else path
    within = folder() / f"{named.as_posix().removeprefix('configs/')}.yaml"
    return within if within in _files() else path


def _files() -> list[Path]:
    return [*folder().rglob("*.yaml")]
