"""The structure of the repository: packages, folders, imports, pins, and where tests are."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.repository import FOLDERS, MODULES, PLATFORM, ROOT, dotted, imports_of, parse, sources

BIN = Path(sys.executable).parent
HEAVY = {"torch", "ray", "mlflow", "numpy", "scipy", "matplotlib", "pandas", "pyarrow", "PIL"}
"""What `derainctl --help` must not import, so that it answers at once."""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_platform_has_no_init_but_its_folders_have() -> None:
    assert not (PLATFORM / "__init__.py").exists()
    assert FOLDERS
    assert not [folder for folder in FOLDERS if not (PLATFORM / folder / "__init__.py").exists()]


def test_the_standard_librarys_platform_is_not_shadowed() -> None:
    done = python("-c", "import uuid, platform; print(platform.system(), platform.__file__)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == os.uname().sysname
    assert str(ROOT / "platform") not in done.stdout


def test_each_public_name_is_imported_when_it_is_used() -> None:
    code = (
        "import sys, derain\nprint(derain.__version__)\n"
        "print('heavy:', *{name.partition('.')[0] for name in sys.modules})\n"
        "print(*[getattr(derain, name).__module__ for name in derain.__all__])"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    number, loaded, modules = done.stdout.splitlines()
    assert number == version("derain-platform")
    assert not HEAVY & set(loaded.split())
    assert all(name.startswith("derain.") for name in modules.split())


def test_the_wheel_has_every_module_and_the_configs(tmp_path: Path) -> None:
    """And it is imported as `derain`, public names and rooms, outside of any checkout."""
    built = python("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {f"derain/{module.as_posix()}" for module in MODULES} | {"derain.py"} <= names
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert {f"derain/{config}" for config in configs} <= names
    code = "import derain, derain.errors; print(derain.Config.__module__, derain.errors.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["derain.config", str(tmp_path / "site" / "derain/errors.py")]


@pytest.mark.parametrize("folder", [Path(), *FOLDERS], ids=str)
def test_no_folder_has_more_than_14_modules(folder: Path) -> None:
    assert len([module for module in MODULES if module.parent == folder]) <= 14


def test_only_cluster_and_errors_are_at_the_root() -> None:
    at_root = {str(module) for module in MODULES if not module.parent.parts}
    assert at_root == {"cluster.py", "errors.py"}


def test_pins_are_names_and_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    wrong = [pin for pin in pins if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[0-9][\w.!+]*", pin)]
    assert not wrong
    assert not [pin for pin in pins if "+" in pin], "no index has a local version"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom derain.cli.app import app\nsys.argv = ['derainctl', '--help']\n"
        "try:\n    app()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "print('loaded:', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    help_text, _, loaded = done.stdout.rpartition("loaded:")
    assert "sweep" in help_text
    assert not HEAVY & set(loaded.split())


def test_import_contracts_are_kept(tmp_path: Path) -> None:
    package = tmp_path / "derain"
    package.mkdir()
    (package / "__init__.py").symlink_to(ROOT / "derain.py")
    for entry in PLATFORM.iterdir():
        (package / entry.name).symlink_to(entry)
    done = subprocess.run(
        [BIN / "lint-imports", "--no-cache", "--config", ROOT / "pyproject.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def room(name: str) -> str:
    """Top folder, or module at the root: `derain.data.loading.order` -> `data`."""
    return name.split(".")[1]


def test_the_longest_chain_of_rooms_has_at_most_8() -> None:
    below: dict[str, set[str]] = {room(dotted(module)): set() for module in MODULES}
    for module in MODULES:
        imported = {name for name in imports_of(PLATFORM / module) if name.startswith("derain.")}
        below[room(dotted(module))] |= set(map(room, imported)) - {room(dotted(module))}

    def longest(chain: tuple[str, ...]) -> tuple[str, ...]:
        assert len(set(chain)) == len(chain), f"a cycle: {chain}"
        return max((longest((*chain, lower)) for lower in below[chain[-1]]), key=len, default=chain)

    chain = max((longest((top,)) for top in below), key=len)
    assert chain[-1] == "errors"
    assert len(chain) <= 8, " > ".join(chain)


def has_functions(module: Path) -> bool:
    """Whether a module has behaviour to test, and not only names, types and constants."""
    return any(isinstance(node, ast.FunctionDef) for node in ast.walk(parse(PLATFORM / module)))


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_every_folder_is_tested_by_the_tests_folder_of_the_same_name(folder: Path) -> None:
    """They import each module with functions, or a module of the same room that imports it."""
    tests = sorted((ROOT / "tests" / folder).rglob("*.py"))
    assert [path for path in tests if path.stem.startswith("test_")]
    modules = {dotted(module): module for module in MODULES if module.parts[0] == folder.parts[0]}
    reached: set[str] = set()
    to_follow = {name for path in tests for name in imports_of(path)} & modules.keys()
    while to_follow:
        reached |= to_follow
        found = {name for module in to_follow for name in imports_of(PLATFORM / modules[module])}
        to_follow = (found & modules.keys()) - reached
    untested = [
        str(module)
        for name, module in modules.items()
        if module.parent == folder and name not in reached and has_functions(module)
    ]
    assert not untested, f"no test in tests/{folder} reaches {', '.join(untested)}"


def test_no_test_module_imports_another() -> None:
    """What several need is in conftest.py or in a helper module, which is not collected."""
    imports = [(path, name) for path in sources("tests") for name in imports_of(path)]
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, name in imports
        if re.match(r"tests\.(.*\.)?(test|soak)_\w+$", name)
    ]
    assert imports
    assert not found, "\n".join(found)
