"""The pages of the reference that are written from the code: `python -m tests.reference_pages`.

tests/test_docs.py compares them with what is in docs/reference/.
"""

import ast
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer.main

import derain
from derain import errors
from derain.cli.app import app
from derain.config import reference
from derain.pipelines.prepare.options import PrepareOptions
from tests.repository import ROOT

FOLDER = ROOT / "docs" / "reference"
NAMES = {str: "text", int: "integer", float: "number", Path: "path", bool: "switch"}
COMMANDS_HEAD = """\
# Every command

Written from the code by `python -m tests.reference_pages`. What commands have in common, what MODEL
and CONFIG may be, and the exit codes of all: [command line](command_line.md). Every command has
`-h` and `--help`, which show the same. An option without a default may be left out, unless it is
*required*.

## derainctl

`derainctl [OPTIONS] COMMAND`
"""
ERRORS_HEAD = """\
## Errors and their exit codes

KIND is `kind` in the document that `--json` prints, and `derain.errors.KIND` in
[Python](python.md). An error that is none of these is a bug: it has a traceback, and exit code 1.
After Ctrl-C the exit code is 130 ([all exit codes](command_line.md#exit-codes)).

| kind | exit code | when |
| --- | --- | --- |
"""
SIGNATURES_HEAD = """\
# Python signatures

Written from the code by `python -m tests.reference_pages`. An overview, which of it stays as it is,
and what images may be: [Python](python.md).

| type | is |
| --- | --- |
| `Path` | `pathlib.Path` |
| `Tile` | a number of pixels, `"auto"` or `None` |
| `PreparedSummary` | has what `derainctl prepare --json` prints as attributes |
| `LpipsFiles(backbone, heads)` | from `derain.evaluation.lpips`: the two files of LPIPS |
| `DownstreamSpec(name, weights=None)` | from `derain.pipelines.evaluate.detectors` |
| `Naming` | made by `derain.data.sources.selection.parse_naming(rain, clean, clean_half)` |
| `PrepareOptions` | from `derain.pipelines.prepare.options`, with the keywords of `prepare` |
"""


def commands() -> str:
    """The page docs/reference/commands.md."""
    root: Any = typer.main.get_command(app)
    before: Any = app.registered_callback
    sections = [COMMANDS_HEAD, _table(root, before.callback)]
    for path, command in _below(root, ()):
        usage = " ".join(["derainctl", *path, *(_placeholder(p) for p in _arguments(command))])
        more = " [COMMAND]" if hasattr(command, "commands") else ""
        options = " [OPTIONS]" if len(_arguments(command)) < len(command.params) else ""
        sections.append(f"## {' '.join(path)}\n\n`{usage}{options}{more}`\n")
        sections.append(textwrap.dedent(command.help).strip() + "\n")
        sections.append(_table(command, command.callback))
    kinds: list[Any] = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    rows = [f"| {kind.__name__} | {kind.exit_code} | {_line(kind.__doc__)} |" for kind in kinds]
    return "\n".join(filter(None, sections)) + "\n" + ERRORS_HEAD + "\n".join(rows) + "\n"


def signatures() -> str:
    """The page docs/reference/signatures.md."""
    sections = [SIGNATURES_HEAD]
    for name in derain.__all__:
        value = getattr(derain, name)
        sections.append(f"## derain.{name}\n")
        if inspect.isclass(value):
            sections.append(f"{inspect.getdoc(value)}\n")
            sections += [_signature(member) for member in _public_members(value)]
        else:
            sections.append(_signature(value))
        if name == "prepare":
            sections.append(_fields(PrepareOptions))
    return "\n".join(sections)


PAGES: dict[str, Callable[[], str]] = {
    "config.md": reference.markdown,
    "commands.md": commands,
    "signatures.md": signatures,
}


def _below(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The commands of a group and those below them, in the order of --help."""
    for name in group.list_commands(None):
        command = group.commands[name]
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from _below(command, (*path, name))


def _arguments(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == "argument"]


def _placeholder(argument: Any) -> str:
    """An argument as the usage names it: `MODEL`, `INPUTS...`, `[CONFIG]`."""
    if argument.metavar and not argument.metavar.isidentifier():
        return str(argument.metavar)
    name = (argument.metavar or argument.name).upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _table(command: Any, callback: Callable[..., Any]) -> str:
    """Arguments and options; "" for a command without any."""
    known = inspect.signature(callback).parameters
    rows = []
    for parameter in command.params:
        is_option = parameter.param_type_name == "option"
        annotation = known[parameter.name].annotation if parameter.name in known else bool
        names = [*parameter.opts, *parameter.secondary_opts] if is_option else []
        metavar = f" {parameter.metavar}" if is_option and parameter.metavar else ""
        given = ", ".join(_code(name + metavar) for name in names or [_placeholder(parameter)])
        default = "*required*" if parameter.required else _default(parameter)
        kind, meaning = _kind(annotation), parameter.help
        if is_option and parameter.multiple:
            kind, meaning = f"{kind}, repeatable", meaning.replace("; repeatable.", ".")
        elif parameter.nargs == -1:
            kind = f"{kind}, {'one or more' if parameter.required else 'any number'}"
        cells = (given, kind, default, _line(meaning))
        rows.append(f"| {' | '.join(cells)} |")
    head = ["| argument, option | type | default | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows]) + "\n" if rows else ""


def _default(parameter: Any) -> str:
    if parameter.default is None or (parameter.default is False and not parameter.secondary_opts):
        return ""
    if isinstance(parameter.default, bool):
        return f"`{(parameter.opts if parameter.default else parameter.secondary_opts)[0]}`"
    return f"`{parameter.default}`"


def _kind(annotation: Any) -> str:
    """The type of an argument or option in words."""
    bounds = ""
    if get_origin(annotation) is Annotated:
        annotation, about = get_args(annotation)[:2]
        least, most = about.min, about.max
        bounds += f", at least {least}" if least is not None else ""
        bounds += f", at most {most}" if most is not None else ""
    if get_origin(annotation) in (Union, types.UnionType):  # X | None
        annotation = get_args(annotation)[0]
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if get_origin(annotation) is list:
        return NAMES[inner[0]]
    if get_origin(annotation) is tuple:
        return ", ".join(NAMES[kind] for kind in inner)
    return NAMES[annotation] + bounds


def _code(text: str) -> str:
    """Code in a cell of a table, where readers of Markdown disagree about | between backticks."""
    return f"<code>{text.replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def _line(text: str | None) -> str:
    """A text as a cell of a table."""
    return " ".join((text or "").split()).replace("|", "\\|")


def _public_members(kind: type) -> list[Any]:
    """`__call__`, properties and methods of a class, in its order."""
    return [
        item
        for name, item in vars(kind).items()
        if (name == "__call__" or not name.startswith("_"))
        and isinstance(_function(item), types.FunctionType)
    ]


def _function(item: Any) -> Any:
    return item.fget if isinstance(item, property) else getattr(item, "__func__", item)


def _signature(item: Any) -> str:
    """How a function is called, as its source has it, and what its docstring says."""
    lines, _ = inspect.getsourcelines(_function(item))
    source = textwrap.dedent("".join(lines))
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef)
    head = "".join(source.splitlines(keepends=True)[: node.body[0].lineno - 1]).rstrip()
    return f"```python\n{head}\n```\n\n{inspect.getdoc(_function(item))}\n"


def _fields(kind: Callable[[], Any]) -> str:
    """The fields of a dataclass as a table, with the docstrings below them."""
    (node,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(node, ast.ClassDef)
    rows = ["| keyword | type | default | meaning |", "| --- | --- | --- | --- |"]
    defaults = kind()
    for field, doc in pairwise(node.body):
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr):
            name, annotation = ast.unparse(field.target), ast.unparse(field.annotation)
            kinds = " or ".join(f"`{part}`" for part in annotation.split(" | "))
            meaning = _line(str(ast.literal_eval(doc.value)))
            rows.append(f"| `{name}` | {kinds} | `{getattr(defaults, name)!r}` | {meaning} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    for page, write in PAGES.items():
        (FOLDER / page).write_text(write(), encoding="utf-8")
