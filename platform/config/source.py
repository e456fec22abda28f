"""YAML files and `--set`: their values, and the origin of each for error messages."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from derain.config import shipped
from derain.config.scalars import value_of
from derain.config.section import PLUGIN_NAME, Section
from derain.errors import ConfigError

Tree = dict[str, Any]
KeyPath = tuple[str, ...]
Whole = TypeVar("Whole", bound=Section)

MAX_BYTES = 2**20
"""Of a config file. PyYAML reads some 100 kB in a second."""
MAX_VALUES = 100_000
"""Of a config file, with those that its aliases repeat."""

REPLACED = {
    "data.eval": (
        "data.validation chooses checkpoints and trials, and data.test reports, once. Name the "
        "test images with data.test; without data.validation a part of data.train is split off "
        "for it. To choose on the test images as data.eval did, add data.choose_on_test: true."
    ),
    "data.synthetic.eval_pairs": "give data.synthetic.validation_pairs and test_pairs.",
}
"""Keys of earlier versions, and what to write instead."""


@dataclass
class Source:
    """Values, and the origin of each key ("file:line" or "--set ...")."""

    tree: Tree
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def merge(self, other: "Source") -> None:
        """Override these values with those of `other`."""
        _merge(self.tree, other.tree)
        self.origins.update(other.origins)

    def set(self, key: str, value: Any, origin: str) -> None:
        """Set the value of a dotted key.

        Raises ConfigError if the key passes through a plain value or the end of a list.
        """
        path = tuple(key.split("."))
        tree: Any = self.tree
        for at, part in enumerate(path):
            index = _index(tree, part, f"{origin}: `{key}`")
            if at + 1 == len(path):
                tree[index] = value
            elif not isinstance(tree, list) and not isinstance(tree.get(part), dict | list):
                tree[index] = _as_section(tree.get(part))
            tree = tree[index]
        self.origins[path] = origin

    def origin(self, path: KeyPath, default: str) -> str:
        """The origin of `path`, or of the nearest key above it that has one."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        return default

    def apply_profile(self, profile: str | None, file: str) -> None:
        """Override these values with those of a profile; default: the one that the file names.

        Raises ConfigError if the file has no such profile.
        """
        profiles = _section(self.tree.pop("profiles", None), f"{file}: `profiles`")
        chosen = profile or self.tree.get("profile")
        if chosen is None or not (profiles or profile):
            return
        if not isinstance(chosen, str) or chosen not in profiles:
            known = ", ".join(profiles) or "none"
            raise ConfigError(
                f"{file}: there is no profile `{chosen}`. Profiles in this file: {known}."
            )
        values = _section(profiles[chosen], f"{file}: the profile `{chosen}`")
        self.merge(Source(values, _lift(self.origins, ("profiles", chosen))))
        self.tree["profile"] = chosen
        if profile is not None:
            self.origins["profile",] = f"--profile {profile}"

    def validated(self, whole: type[Whole], default_origin: str) -> Whole:
        """The values as a section of the type `whole`.

        Raises ConfigError with one line per invalid value.
        """
        try:
            return whole.model_validate(self.tree)
        except ValidationError as error:
            known = keys_of(whole)
            lines = [self._describe(item, default_origin, known) for item in error.errors()]
            raise ConfigError("\n".join(lines)) from None

    def _describe(self, item: Any, default_origin: str, known: Sequence[str]) -> str:
        path = _keys_of(item["loc"])
        key = ".".join(path) or "config"
        where = self.origin(path, default_origin)
        if item["type"] == "extra_forbidden" and key in REPLACED:
            return f"{where}: there is no key `{key}` any more: {REPLACED[key]}"
        if item["type"] == "extra_forbidden" and key in known:  # of another network
            return (
                f"{where}: `{key}` is an option of other networks, not of {item['loc'][1]}. "
                f"`derainctl init {item['loc'][1]} DIR` writes a config of that network."
            )
        if item["type"] == "extra_forbidden" and path[:2] == ("sweep", "space"):
            return (
                f"{where}: unknown key `{key}`. The space has config keys with dots, as in "
                "`train.lr: {grid: [0.001, 0.0003]}`."
            )
        if item["type"] == "extra_forbidden":
            return f"{where}: unknown key `{key}`.{nearest(key, known)}"
        if item["type"] == "union_tag_invalid":
            return f"{where}: `{key}.name`: expected one of {item['ctx']['expected_tags']}."
        if item["type"] == "union_tag_not_found" and not isinstance(item["input"], dict):
            return (
                f"{where}: `{key}`: expected keys and values, such as {{name: "
                f"{_name_in(item['input'])}}}, found {item['input']!r}."
            )
        if item["type"] == "union_tag_not_found":
            key, item = f"{key}.name", {**item, "type": "missing"}
        if item["type"] == "missing":
            return f"{where}: `{key}` is missing; give it in the file or with --set {key}=..."
        if item.get("ctx", {}).get("pattern") == PLUGIN_NAME:
            return f"{where}: `{key}`: expected module:Name, found {item['input']!r}."
        if item["type"] == "string_pattern_mismatch":
            return (
                f"{where}: `{key}`: expected letters and digits, and what "
                f"{item['ctx']['pattern']} allows, found {item['input']!r}."
            )
        if item["type"] in ("model_type", "dict_type"):
            return f"{where}: `{key}`: expected keys and values, found {item['input']!r}."
        reason = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        reason = reason.replace("a valid tuple", "a list")
        if item["type"] == "value_error":
            return f"{where}: `{key}`: {reason}."
        return f"{where}: `{key}`: expected {reason}, found {item['input']!r}."


def _name_in(value: Any) -> str:
    """A text that may have been meant as the name of a section."""
    return value if isinstance(value, str) and value.strip() else "NAME"


def _index(tree: Any, part: str, where: str) -> str | int:
    """The key of a section or the index in a list that a part of a dotted key stands for."""
    if isinstance(tree, dict):
        return part
    if not isinstance(tree, list):
        raise ConfigError(f"{where}: the value above it is {tree!r}, which has no keys.")
    if not part.isdecimal() or int(part) >= len(tree):
        raise ConfigError(f"{where}: expected an index from 0 to {len(tree) - 1}, found {part!r}.")
    return int(part)


def read(path: Path, seen: tuple[Path, ...] = ()) -> Source:
    """The values of a file, with those of the files that it extends as defaults.

    Raises ConfigError if a file cannot be read, is not YAML, or extends itself.
    """
    path = shipped.find(path)
    if path.resolve() in seen:
        raise ConfigError(f"{path}: `extends` is circular; the file extends itself.")
    source = _parse(path)
    base = source.tree.pop("extends", None)
    if base is None:
        return source
    if not isinstance(base, str):
        raise ConfigError(f"{path}: `extends`: expected the name of one file, found {base!r}.")
    below = read(path.parent / base, (*seen, path.resolve()))
    below.merge(source)
    return below


def resolved(path: Path, profile: str | None, overrides: Sequence[str]) -> Source:
    """The values of a file with a profile and `KEY=VALUE` texts applied; nothing is checked yet."""
    source = read(path)
    source.apply_profile(profile, str(path))
    for text in overrides:
        source.set(*parse_override(text), f"--set {text}")
    return source


def _parse(path: Path) -> Source:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:  # or without an end, such as /dev/zero
            raise ConfigError(f"{path}: more than {MAX_BYTES:,} bytes; expected a config file.")
        return parsed(data.decode(), str(path))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such config file. Shipped configs need no path: "
            f"{', '.join(shipped.names())}."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected UTF-8, found the byte 0x{data[error.start]:02x} at {error.start}. "
            "Save the file as UTF-8."
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: the config file cannot be read ({error}).") from None


def parsed(text: str, name: str) -> Source:
    """The values of the text of a file; `name` is its name. Raises ConfigError."""
    source = Source({})
    tree = _values(text, name, source.origins)
    if tree is None:
        raise ConfigError(f"{name}: expected keys and values, found nothing.")
    source.tree = _section(tree, name)
    return source


def _section(value: Any, where: str) -> Tree:
    """A section of a file; one without any keys counts as empty."""
    if not isinstance(value, dict | None):
        raise ConfigError(f"{where}: expected keys and values, found {value!r}.")
    return value or {}


def _values(text: str, where: str, origins: dict[KeyPath, str]) -> Any:
    """The plain Python values of a YAML text; adds the line of every key to `origins`."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _count(node, {}) > MAX_VALUES:
            raise ConfigError(
                f"{where}: more than {MAX_VALUES:,} values, with those of its aliases."
            )
        return _construct(node, (), where, origins)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML. {error}") from None
    except RecursionError:
        raise ConfigError(
            f"{where}: nested too deeply; does an alias (*) refer to itself?"
        ) from None


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """The values of a YAML node: aliases of aliases make billions of some lines."""
    if id(node) not in known:
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for item in inner for part in (item if isinstance(item, tuple) else (item,)))
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]


def _construct(node: yaml.Node | None, at: KeyPath, file: str, origins: dict[KeyPath, str]) -> Any:
    """The plain Python values of a YAML node below the keys `at`."""
    if node is None:
        return None
    if isinstance(node, yaml.MappingNode):
        tree: Tree = {}
        for key_node, value_node in node.value:
            origin = f"{file}:{key_node.start_mark.line + 1}"
            key = _key(key_node, origin)
            if key in tree:
                raise ConfigError(f"{origin}: `{'.'.join((*at, key))}` is given twice.")
            origins[(*at, key)] = origin
            tree[key] = _construct(value_node, (*at, key), file, origins)
        return tree
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, at, file, origins) for item in node.value]
    loader = yaml.SafeLoader("")
    as_plain = loader.resolve(yaml.ScalarNode, node.value, (True, False))
    unquoted = isinstance(node, yaml.ScalarNode) and node.style is None
    try:
        if unquoted and node.tag == as_plain:  # nor a tag of its own
            return value_of(node.value)
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{file}:{node.start_mark.line + 1}: {error}") from None


def _key(node: yaml.Node, origin: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{origin}: expected a word as the key, found a list or keys and values.")
    if node.tag == "tag:yaml.org,2002:merge":
        raise ConfigError(
            f"{origin}: YAML 1.2 has no merge key `<<`. Write the values out, or give them in a "
            "file that this one `extends`."
        )
    return str(node.value)


def _as_section(value: Any) -> Tree:
    """A plain value in whose place a section is needed: a text is its name, as in `Choice`."""
    return {"name": value} if isinstance(value, str) else {}


def _merge(below: Tree, above: Tree) -> None:
    """Override `below` with `above`: sections are merged, a search space is replaced whole."""
    for key, value in above.items():
        if key != "space" and isinstance(value, dict) and isinstance(below.get(key), dict | str):
            if isinstance(below[key], str):
                below[key] = _as_section(below[key])
            _merge(below[key], value)
        else:
            below[key] = value


def _lift(origins: dict[KeyPath, str], prefix: KeyPath) -> dict[KeyPath, str]:
    """The origins of the keys below `prefix`, relative to it."""
    size = len(prefix)
    return {path[size:]: at for path, at in origins.items() if path[:size] == prefix}


def parse_override(text: str) -> tuple[str, Any]:
    """The key and value of `KEY=VALUE`, as `--set` takes it."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text}: expected KEY=VALUE, for example --set train.steps=200.")
    return key, _values(value, f"--set {text}", {})


def keys_of(section: type[Section]) -> list[str]:
    """All dotted keys that a section may have."""
    return sorted(_fields_below(section, ()))


def _fields_below(section: type[Section], prefix: KeyPath) -> Iterator[str]:
    for name, info in section.model_fields.items():
        path = (*prefix, info.alias or name)
        yield ".".join(path)
        for inner in sections_in(info.annotation):
            yield from _fields_below(inner, path)


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """The section types within the type of a field."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        if annotation.__class__.__name__ != "GenericAlias":
            yield from sections_in(argument)


def nearest(key: str, known: Sequence[str]) -> str:
    """The known key that is most like a key, as a sentence; empty if none is."""
    found = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f" The nearest valid key is `{found[0]}`." if found else ""


def _keys_of(location: Iterable[str | int]) -> KeyPath:
    """The keys of a pydantic location, without the tag that it inserts after a section of which
    there are several kinds."""
    parts = [str(part) for part in location]
    for section in (["model"], ["loss", "schedule"]):
        if parts[: len(section)] == section:
            return tuple(section + parts[len(section) + 1 :])
    return tuple(parts)
