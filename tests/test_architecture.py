"""The structure that no single module can keep: names, imports, pins, tests beside the code."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLATFORM = ROOT / "platform"
MODULES = sorted(
    path.relative_to(PLATFORM) for path in PLATFORM.rglob("*.py") if path.stat().st_size
)
FOLDERS = sorted({module.parent for module in MODULES} - {Path()})
BIN = Path(sys.executable).parent

PICKLE_ERROR = "UnpicklingError"
"""What torch.load raises with weights_only=True: the one name of pickle that may be used."""

HEAVY = {"torch", "ray", "mlflow", "numpy", "scipy", "matplotlib", "pandas", "pyarrow", "PIL"}


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(module: Path) -> str:
    return ".".join(("derain", *module.with_suffix("").parts)).removesuffix(".__init__")


def imported(parsed: ast.Module) -> set[str]:
    """Every module that a file imports, and every name that it imports from one."""
    found: set[str] = set()
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def behaves(module: Path) -> bool:
    """Whether a module has functions, and not only names, types and values."""
    return any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree(PLATFORM / module)))


def test_platform_is_no_package_but_its_folders_are() -> None:
    assert not (PLATFORM / "__init__.py").exists()
    assert FOLDERS
    assert not [folder for folder in FOLDERS if not (PLATFORM / folder / "__init__.py").exists()]


def test_the_standard_library_keeps_its_platform() -> None:
    done = python("-c", "import uuid, platform; print(platform.system(), platform.__file__)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == os.uname().sysname
    assert str(ROOT / "platform") not in done.stdout


def test_every_package_is_installed_under_its_name() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {"derain"} | {
        f"derain.{'.'.join(module.parent.parts)}" for module in MODULES if module.parent.parts
    }
    assert set(listed) == there


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


def test_imports_point_down() -> None:
    link = ROOT / "build" / "typing" / "derain"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to("../../platform")
    done = subprocess.run(
        [BIN / "lint-imports", "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(link.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_says_what_it_is(module: Path) -> None:
    parsed = tree(PLATFORM / module)
    assert ast.get_docstring(parsed), f"{module} has no docstring"
    bare = [
        node.name
        for node in parsed.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not bare, f"{module}: without a docstring: {', '.join(bare)}"


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_the_modules_of_a_folder_are_tested_in_the_folder_of_that_name(folder: Path) -> None:
    """By a test that imports them, or through a neighbour in the folder that does."""
    tests = [tree(path) for path in (ROOT / "tests" / folder).rglob("test_*.py")]
    assert tests, f"platform/{folder}: no tests/{folder}/test_*.py"
    reached: set[str] = set().union(*map(imported, tests))
    modules = {dotted(module): module for module in MODULES if module.parent == folder}
    while (
        new := {
            name
            for inside in reached & modules.keys()
            for name in imported(tree(PLATFORM / modules[inside]))
        }
        - reached
    ):
        reached |= new
    missed = [str(modules[name]) for name in modules.keys() - reached if behaves(modules[name])]
    assert not missed, f"no test in tests/{folder} reaches {', '.join(missed)}"


@pytest.mark.parametrize("folder", [Path(), *FOLDERS], ids=str)
def test_no_folder_is_a_list_of_files(folder: Path) -> None:
    assert len([module for module in MODULES if module.parent == folder]) <= 14


def test_only_what_every_room_needs_lies_at_the_root() -> None:
    assert {str(module) for module in MODULES if not module.parent.parts} == {
        "cluster.py",
        "errors.py",
    }


def test_pins_are_names_and_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    wrong = [pin for pin in pins if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[0-9][\w.!+]*", pin)]
    assert not wrong
    assert not [pin for pin in pins if "+" in pin], "a local version is on no index"


def test_nothing_that_is_loaded_can_execute_code() -> None:
    files = [path for room in ("platform", "benchmarks", "tests") for path in _sources(room)]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in files
        for line, what in _unsafe(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert len(files) > len(MODULES)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "pickle.load(file)",
        "from pickle import loads",
        "from cloudpickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "joblib.load(path)",
        "eval(text)",
    ],
)
def test_the_search_for_unsafe_loading_finds(code: str) -> None:
    assert list(_unsafe(ast.parse(code)))


def test_the_search_for_unsafe_loading_passes_what_is_safe() -> None:
    code = "pickle.UnpicklingError; torch.load(p, weights_only=True); np.load(p); network.eval()"
    assert not list(_unsafe(ast.parse(code)))


def _sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def _unsafe(parsed: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of everything in a module that unpickles or executes what it reads."""
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names}
            module = node.module if isinstance(node, ast.ImportFrom) else None
            unsafe = (names | {module}) & {"cloudpickle", "dill", "joblib", "marshal", "shelve"}
            unsafe |= {"pickle"} if module == "pickle" and names != {PICKLE_ERROR} else set()
        elif isinstance(node, ast.Attribute):
            unsafe = ast.unparse(node.value) == "pickle" and node.attr != PICKLE_ERROR
        else:
            unsafe = isinstance(node, ast.Call) and _unsafe_call(node)
        if unsafe:
            yield node.lineno, ast.unparse(node)


def _unsafe_call(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name == "torch.load":
        return given.get("weights_only") != "True"
    if name in ("np.load", "numpy.load"):
        return given.get("allow_pickle", "False") != "False"
    return name in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "joblib.load", "dill.load")
