"""Every config key with its type, unit, default and meaning, from the sections themselves.

The same JSON Schema serves `derainctl config`, the page docs/reference/config.md and editors.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from derain.config import Config, source
from derain.config.section import PLUGIN_NAME

UNITS = {"_px": "px", "_s": "s", "_gib": "GiB", "_steps": "steps", "_step": "step"}
"""The unit of a number by the end of its key."""
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minItems": "at least {} values",
    "maxItems": "at most {} values",
}
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Key:
    """A key of a config file."""

    name: str
    """Dotted. `KEY` stands for any key of a search space, `0` for the number of an element."""
    kind: str
    """Type, allowed values and bounds, in words; "section" for a key with keys below it."""
    unit: str
    default: str | None
    """As YAML writes it; None for a key that must be given, or a section."""
    meaning: str
    networks: tuple[str, ...] = ()
    """For a key below `model`: the networks that have it, with this meaning and default."""


def all_keys() -> list[Key]:
    """All keys, in the order of the sections."""
    schema = Config.model_json_schema(by_alias=True)
    found: dict[tuple[str, str, str, str | None], Key] = {}
    for key in _below(schema, schema, ""):
        same = (key.name, key.kind, key.meaning, key.default)
        networks = (*found[same].networks, *key.networks) if same in found else key.networks
        found[same] = Key(key.name, key.kind, key.unit, key.default, key.meaning, networks)
    return list(found.values())


def text(key: Key) -> str:
    """A key as a few lines for a terminal."""
    networks = f" ({', '.join(key.networks)})" if key.networks else ""
    default = "" if key.default is None else f"; default {key.default}"
    unit = f", in {key.unit}" if key.unit else ""
    return f"{key.name}{networks}\n  {key.kind}{unit}{default}\n  {key.meaning}"


def nearest(name: str) -> str:
    """The existing key that is most like a name, as a sentence; empty if none is."""
    return source.nearest(name, [key.name for key in all_keys()])


def file_schema() -> dict[str, Any]:
    """The JSON Schema of a config file, for editors.

    Nothing is required in it: a file may leave keys to the one it extends and to its profiles.
    """
    schema = _without_required(Config.model_json_schema(by_alias=True))
    schema["properties"]["model"] = _any_network(schema)
    values = {"type": "object", "properties": schema["properties"], "additionalProperties": False}
    schema["$defs"]["Values"] = values
    extends = {"type": "string", "description": "A config file to start from; this one overrides."}
    profiles = {
        "type": "object",
        "additionalProperties": {"$ref": "#/$defs/Values"},
        "description": "Named overrides, the sizes of an experiment; `--profile` selects one.",
    }
    properties = {"extends": extends, **schema["properties"], "profiles": profiles}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "derain-platform config",
        **values,
        "properties": properties,
        "$defs": schema["$defs"],
    }


def _any_network(schema: Schema) -> dict[str, Any]:
    """The section `model`: the options of the network that it names; of any, if it names none."""
    defs = schema["$defs"]
    references = schema["properties"]["model"]["anyOf"]
    names = {
        reference["$ref"]: _resolved(reference, schema)["properties"]["name"].get("const")
        for reference in references
    }
    built_in = {path: name for path, name in names.items() if name}
    (own,) = (path for path, name in names.items() if not name)
    branches = [
        {"if": _named({"const": name}), "then": {"$ref": path}} for path, name in built_in.items()
    ]
    pattern = defs[own.rpartition("/")[2]]["properties"]["name"]
    branches.append({"if": _named({"pattern": ":"}), "then": {"$ref": own}})
    named = {"anyOf": [{"enum": list(built_in.values())}, pattern]}
    return {"type": "object", "properties": {"name": named}, "allOf": branches}


def _named(condition: Schema) -> dict[str, Any]:
    return {"properties": {"name": condition}, "required": ["name"]}


def markdown() -> str:
    """The page docs/reference/config.md."""
    lines = [
        "# Every key of a config",
        "",
        "Written by `derainctl config --markdown` from the sections in `platform/config/`. Keys "
        "are given in a file, in a profile, or with `--set KEY=VALUE`. `derainctl config KEY` "
        "prints some, `derainctl config CONFIG` the resolved values with their origin.",
    ]
    section = None
    for key in all_keys():
        head = key.name.split(".")[0] if "." in key.name or key.kind == "section" else "top"
        if head != section:
            section = head
            lines += ["", f"## `{head}`" if head != "top" else "## Top level", ""]
            lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        cells = (f"`{key.name}`", _typed(key), f"`{key.default}`" if key.default else "")
        meaning = key.meaning + (f" ({', '.join(key.networks)})" if key.networks else "")
        lines.append(f"| {' | '.join((*cells, meaning))} |")
    return "\n".join(lines) + "\n"


def _typed(key: Key) -> str:
    kind = key.kind.replace("|", "\\|")
    return f"{kind}, in {key.unit}" if key.unit else kind


def _below(section: Schema, root: Schema, prefix: str, network: str | None = None) -> Iterator[Key]:
    """The keys of a section and of those below it; `network`: the one whose options these are."""
    for name, field in section["properties"].items():
        key = f"{prefix}{name}"
        if key == "model.name" and network is not None:
            continue
        inner = _sections_in(field, root)
        is_section = bool(inner) and not any(mark in suffix for suffix, _ in inner for mark in "0K")
        yield Key(
            name=key,
            kind="section" if is_section else _kind(field, root),
            unit=next((unit for end, unit in UNITS.items() if name.endswith(end)), ""),
            default=None if is_section else _default(field),
            meaning=" ".join(_description(field, inner).split()),
            networks=(network,) if network else (),
        )
        if key == "model":
            yield _network_key([below for _, below in inner])
        for suffix, below in inner:
            chosen = below["properties"]["name"].get("const", "") if key == "model" else network
            yield from _below(below, root, f"{key}.{suffix}", chosen)


def _network_key(networks: Sequence[Schema]) -> Key:
    names = [below["properties"]["name"].get("const", "module:Class") for below in networks]
    return Key(
        name="model.name",
        kind=" | ".join(names),
        unit="",
        default=None,
        meaning="The network; it decides which other keys `model` has. A class of your own must be "
        "importable on every worker.",
    )


def _sections_in(field: Schema, root: Schema) -> list[tuple[str, Schema]]:
    """The sections that a field holds, each with what stands between its name and their keys."""
    if "$ref" in field:
        target = _resolved(field, root)
        return [("", target)] if "properties" in target else []
    found: list[tuple[str, Schema]] = []
    for choice in (*field.get("anyOf", ()), *field.get("oneOf", ())):
        found += _sections_in(choice, root)
    if isinstance(field.get("items"), Mapping):
        found += [(f"0.{suffix}", below) for suffix, below in _sections_in(field["items"], root)]
    if isinstance(field.get("additionalProperties"), Mapping):
        inner = _sections_in(field["additionalProperties"], root)
        found += [(f"KEY.{suffix}", below) for suffix, below in inner]
    return found


def _description(field: Schema, inner: list[tuple[str, Schema]]) -> str:
    """What a field says of itself, or the one section that it holds."""
    own = field.get("description", "")
    return own or (inner[0][1].get("description", "") if len(inner) == 1 else "")


def _resolved(field: Schema, root: Schema) -> Schema:
    return root["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field


def _kind(field: Schema, root: Schema) -> str:
    """The type of a field in words, with its allowed values and bounds."""
    field = _resolved(field, root)
    if field.get("pattern") == PLUGIN_NAME:
        return "module:Name"
    if choices := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(dict.fromkeys(_kind(choice, root) for choice in choices))
    if "enum" in field:
        return " | ".join(map(_yaml, field["enum"]))
    if "const" in field:
        return _yaml(field["const"])
    given = str(field.get("type", "any"))
    kind = {"object": "mapping", "string": "text", "boolean": "true | false"}.get(given, given)
    if "prefixItems" in field:
        kind = f"[{', '.join(_kind(item, root) for item in field['prefixItems'])}]"
        return kind if len(kind) < 60 else f"list of {len(field['prefixItems'])} numbers"
    if kind == "array":
        kind = f"list of {_kind(field['items'], root)}" if field.get("items") else "list"
    bounds = [text.format(field[name]) for name, text in BOUNDS.items() if name in field]
    return ", ".join([kind, *bounds])


def _default(field: Schema) -> str | None:
    return _yaml(field["default"]) if "default" in field else None


def _yaml(value: Any) -> str:
    """A value as one would write it in a file."""
    return value if isinstance(value, str) and value else json.dumps(value)


def _without_required(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_required(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not _is_required_list(key, value)}
    # Without the keys that tell them apart, several kinds of a section may fit.
    renamed = {"anyOf" if key == "oneOf" else key: value for key, value in kept.items()}
    return {key: _without_required(value) for key, value in renamed.items()}


def _is_required_list(key: str, value: Any) -> bool:
    return key == "required" and isinstance(value, list)
