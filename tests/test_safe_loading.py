"""Nothing that the code loads can execute code: no pickle, no eval, no unsafe YAML."""

import ast
from collections.abc import Iterator

import pytest

from tests.repository import MODULES, ROOT, parse, sources

PICKLE_ERROR = "UnpicklingError"
"""What torch.load raises with weights_only=True: the only name of pickle that may be used."""


def test_nothing_that_is_loaded_can_execute_code() -> None:
    files = [path for folder in ("platform", "benchmarks", "tests") for path in sources(folder)]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {code}"
        for path in files
        for line, code in unsafe_loading(parse(path))
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
def test_unsafe_loading_is_recognised(code: str) -> None:
    assert list(unsafe_loading(ast.parse(code)))


def test_safe_loading_passes() -> None:
    code = "pickle.UnpicklingError; torch.load(p, weights_only=True); np.load(p); network.eval()"
    assert not list(unsafe_loading(ast.parse(code)))


def unsafe_loading(parsed: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and code of everything in a module that unpickles or executes what it reads."""
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names}
            module = node.module if isinstance(node, ast.ImportFrom) else None
            unsafe = (names | {module}) & {"cloudpickle", "dill", "joblib", "marshal", "shelve"}
            unsafe |= {"pickle"} if module == "pickle" and names != {PICKLE_ERROR} else set()
        elif isinstance(node, ast.Attribute):
            unsafe = ast.unparse(node.value) == "pickle" and node.attr != PICKLE_ERROR
        else:
            unsafe = isinstance(node, ast.Call) and is_unsafe_call(node)
        if unsafe:
            yield node.lineno, ast.unparse(node)


def is_unsafe_call(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name == "torch.load":
        return options.get("weights_only") != "True"
    if name in ("np.load", "numpy.load"):
        return options.get("allow_pickle", "False") != "False"
    return name in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "joblib.load", "dill.load")
