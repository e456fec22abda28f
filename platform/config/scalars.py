"""Plain words of YAML as Python values, by the rules of YAML 1.2.

PyYAML follows those of 1.1, in which `off` is false, `1e-3` a text, `1:30` ninety, `012` ten and
`2026-01-01` a date. Here a word is null, true or false, a number, or a text.
"""

import re
from typing import Any

import yaml

_FLOAT = re.compile(
    r"[-+]?(?:[0-9]+(?:_[0-9]+)*\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
)
_INT = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_NULL = re.compile(r"~|null|Null|NULL|")


def value_of(word: str) -> Any:
    """The value of a word without quotation marks. Raises ValueError for one of 4,300 digits."""
    if _NULL.fullmatch(word):
        return None
    if _BOOL.fullmatch(word):
        return word.lower() == "true"
    if _INT.fullmatch(word):
        base = {"0o": 8, "0x": 16}.get(word[:2], 10)
        return int(word, base)
    if _FLOAT.fullmatch(word):
        return float(re.sub(r"\.(?=inf|nan)", "", word.lower()))
    return word


class Dumper(yaml.SafeDumper):
    """Writes what both versions of YAML read back as the same values: a text that either of them
    would take for something else gets quotation marks."""


def _list(dumper: Dumper, items: list[Any]) -> yaml.Node:
    """A list as the shipped configs write it; of sections, a line for each."""
    short = not any(isinstance(item, dict) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=short)


Dumper.add_representer(list, _list)
Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), None)
Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"^(?:{_INT.pattern})$"), None)
