"""The files of the repository, for the tests of its structure."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLATFORM = ROOT / "platform"
MODULES = sorted(
    path.relative_to(PLATFORM) for path in PLATFORM.rglob("*.py") if path.stat().st_size
)
FOLDERS = sorted({module.parent for module in MODULES} - {Path()})


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def dotted(module: Path) -> str:
    """`data/loading/order.py` -> `derain.data.loading.order`."""
    return ".".join(("derain", *module.with_suffix("").parts)).removesuffix(".__init__")


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Modules that a file imports, and `module.name` for every name that it imports from one."""
    names: set[str] = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)
