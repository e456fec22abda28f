"""Makes the schemas in this folder from what the makers of KubeRay, Compose and GCE publish.

    python tests/clusters/schemas/make.py kuberay CHECKOUT       a checkout of KubeRay, at a release
    python tests/clusters/schemas/make.py compose FILE           compose-spec.json of compose-spec
    python tests/clusters/schemas/make.py gce FILE               compute.v1.json, as the package
                                                                 google-api-python-client has it

Descriptions are left out, and objects that list their keys take no others: a server that does not
know a key drops it silently, which is how a misspelt limit becomes no limit. README.md says which
versions these are.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
KINDS = ("rayclusters", "rayjobs", "rayservices")
METADATA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "additionalProperties": False,
}
"""Of `metadata`, which the API server defines, not KubeRay."""
CLAIM = (
    *("spec", "headGroupSpec", "template", "spec", "volumes", "items", "ephemeral"),
    *("volumeClaimTemplate", "spec"),
)
"""Where a RayCluster's schema has that of a PersistentVolumeClaim."""
KEPT = {
    *("type", "properties", "required", "items", "additionalProperties", "enum", "pattern"),
    *("minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "anyOf", "oneOf"),
    *("allOf", "not", "patternProperties", "$ref", "uniqueItems", "const", "definitions"),
}
SHARED_BYTES = 60
"""A sub-schema of this length that occurs again is written once."""


def stripped(schema: Any) -> Any:
    """A schema without descriptions, defaults and the extensions of Kubernetes; closed."""
    if isinstance(schema, bool):
        return schema
    kept = {key: value for key, value in schema.items() if key in KEPT}
    for key in ("properties", "patternProperties", "definitions"):
        if key in kept:
            kept[key] = {name: stripped(value) for name, value in kept[key].items()}
    for key in ("anyOf", "oneOf", "allOf"):
        if key in kept:
            kept[key] = [stripped(value) for value in kept[key]]
    for key in ("items", "additionalProperties", "not"):
        if key in kept:
            kept[key] = stripped(kept[key])
    if schema.get("x-kubernetes-int-or-string"):
        kept["type"] = ["integer", "string"]
        kept.pop("anyOf", None)
    open_to_all = schema.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in kept and not open_to_all:
        kept.setdefault("additionalProperties", False)
    return kept


def kuberay(checkout: Path) -> dict[str, Any]:
    """Schemas of the three kinds in version v1, and of a PersistentVolumeClaim, by kind."""
    schemas = {}
    for plural in KINDS:
        path = checkout / f"ray-operator/config/crd/bases/ray.io_{plural}.yaml"
        crd = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        (version,) = (version for version in crd["versions"] if version["name"] == "v1")
        schema = stripped(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= {
            "apiVersion": {"const": "ray.io/v1"},
            "kind": {"const": crd["names"]["kind"]},
        }
        schema["properties"].pop("status")  # the operator's
        schemas[crd["names"]["kind"]] = with_metadata(schema)
    claim = schemas["RayCluster"]
    for name in CLAIM:
        claim = claim["items"] if name == "items" else claim["properties"][name]
    schemas["PersistentVolumeClaim"] = with_metadata(
        {
            "type": "object",
            "properties": {
                "apiVersion": {"const": "v1"},
                "kind": {"const": "PersistentVolumeClaim"},
                "metadata": {"type": "object"},
                "spec": claim,
            },
            "additionalProperties": False,
        }
    )
    for schema in schemas.values():
        schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return shared({"properties": schemas})


def with_metadata(schema: Any) -> Any:
    """The schema with METADATA wherever `metadata` is left open."""
    if isinstance(schema, list):
        return [with_metadata(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: METADATA if (key, value) == ("metadata", {"type": "object"}) else with_metadata(value)
        for key, value in schema.items()
    }


def shared(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with what occurs several times in `definitions`; the file is a tenth as long."""
    texts = Counter(map(text_of, sub_schemas(schema)))
    names = {
        text: f"d{number}"
        for number, text in enumerate(
            text for text, times in texts.items() if times > 1 and len(text) >= SHARED_BYTES
        )
    }

    def refer(part: Any) -> Any:
        name = names.get(text_of(part))
        return {"$ref": f"#/definitions/{name}"} if name else mapped(part, refer)

    definitions = {name: mapped(json.loads(text), refer) for text, name in names.items()}
    return {**mapped(schema, refer), "definitions": definitions}


def text_of(schema: Any) -> str:
    """What two equal schemas have in common."""
    return json.dumps(schema, sort_keys=True, separators=(",", ":"))


def mapped(schema: Any, change: Callable[[Any], Any]) -> Any:
    """A schema with each of the schemas directly in it changed."""
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for key in ("properties", "patternProperties"):
        if key in result:
            result[key] = {name: change(value) for name, value in result[key].items()}
    for key in ("anyOf", "oneOf", "allOf"):
        if key in result:
            result[key] = [change(value) for value in result[key]]
    for key in ("items", "additionalProperties", "not"):
        if isinstance(result.get(key), dict):
            result[key] = change(result[key])
    return result


def sub_schemas(schema: Any) -> Iterator[Any]:
    """All schemas in a schema, at any depth."""
    found: list[Any] = []
    mapped(schema, lambda part: found.append(part) or part)
    for part in found:
        yield part
        yield from sub_schemas(part)


def compose(path: Path) -> dict[str, Any]:
    """The Compose Specification."""
    return stripped(json.loads(path.read_text(encoding="utf-8")))


def gce(path: Path) -> dict[str, Any]:
    """An Instance of Compute Engine, and what it refers to."""
    published = json.loads(path.read_text(encoding="utf-8"))["schemas"]
    needed, wanted = {}, ["Instance"]
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed[name] = published[name]
            wanted += references(published[name])
    definitions = {name: stripped(referring(schema)) for name, schema in needed.items()}
    return {"$ref": "#/definitions/Instance", "definitions": definitions}


def references(schema: Any) -> list[str]:
    """Names that `$ref` has anywhere in it."""
    if isinstance(schema, list):
        return [name for part in schema for name in references(part)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
    return own + [name for part in schema.values() for name in references(part)]


def referring(schema: Any) -> Any:
    """With `$ref` as JSON Schema writes it, and numbers of 64 bits, which GCE writes as text."""
    if isinstance(schema, list):
        return [referring(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        return {"$ref": f"#/definitions/{schema['$ref']}"}
    changed = {key: referring(value) for key, value in schema.items()}
    if changed.get("format") in ("int64", "uint64"):
        changed["type"] = ["string", "integer"]
    return changed


def main() -> None:
    """Write the schema that the command line asks for."""
    kind, source = sys.argv[1:]
    made = {"kuberay": kuberay, "compose": compose, "gce": gce}[kind](Path(source))
    text = json.dumps(made, sort_keys=True, separators=(",", ":"))
    (HERE / f"{kind}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
