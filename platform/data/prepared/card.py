"""Descriptions of a prepared dataset for other tools: Croissant metadata and a dataset card.

<folder>/croissant.json   ML Commons Croissant 1.0
<folder>/README.md        a card with the front matter that the Hugging Face Hub reads

Both follow from the manifest alone, so they have the same bytes every time. `verify` compares
croissant.json with what this module writes: other words there fail it for existing datasets.
"""

import json
import re
from dataclasses import replace
from typing import Any

import yaml

from derain.data.prepared import licences
from derain.data.prepared.index import INDEX, INDEX_SCHEMA
from derain.data.prepared.manifest import MANIFEST, Manifest
from derain.data.sources.catalogue import CATALOGUE
from derain.data.sources.layouts import Dataset

CROISSANT = "croissant.json"
CARD = "README.md"

_TYPES = {"string": "sc:Text", "int64": "sc:Integer", "int32": "sc:Integer"}

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that Croissant 1.0 prescribes."""


def croissant(manifest: Manifest) -> str:
    """The content of croissant.json: the shards, the index, and one record per pair."""
    row = _row(manifest)
    tree: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{row.name}-{manifest.split}",
        "description": _description(row, manifest),
        "version": "1.0.0",
        "identifier": manifest.sha256(),
        "distribution": [_index_file(manifest), _shard_files(manifest)],
        "recordSet": [_records()],
    }
    if row.where.startswith("http"):
        tree["url"] = row.where.split()[0]
    if (address := licences.address(row.terms)) is not None:
        tree["license"] = address
    return json.dumps(tree, indent=2, sort_keys=True) + "\n"


def card(manifest: Manifest) -> str:
    """The content of README.md."""
    row = _row(manifest)
    head = yaml.safe_dump(_front_matter(row, manifest), sort_keys=True)
    notes = [f"- {note}" for note in manifest.notes]
    if manifest.quarantined:
        notes.append(f"- {len(manifest.quarantined)} source images were left out: see {MANIFEST}.")
    webdataset, ray = _shard_lists(manifest)
    lines = [
        f"---\n{head}---\n",
        f"# {row.title}, {manifest.split}\n",
        f"{_description(row, manifest)}\n",
        f"- published at {row.where}; licence: {row.terms}",
        f"- source layout: `{manifest.settings.get('layout', '')}`",
        f"- identity (sha256 of {MANIFEST}): {manifest.sha256()}",
        *notes,
        f"\nStandard WebDataset shards: {_members(manifest)}. `{INDEX}` has one row per pair, with "
        f"the offset and the sha256 of each member. `{CROISSANT}` describes both.\n",
        "```python\n"
        f"webdataset.WebDataset({webdataset})\n"
        f'datasets.load_dataset("webdataset", data_files="{_shard_pattern(manifest)}")\n'
        f"ray.data.read_webdataset({ray})\n```",
    ]
    return "\n".join(lines) + "\n"


def _row(manifest: Manifest) -> Dataset:
    """What the card says of a dataset: the row of the catalogue, or what the manifest has of it.

    The manifest has the row of a user's own layout file, and name, licence and source of one's own
    data. A dataset that this version does not know is described by its name alone.
    """
    own = manifest.settings.get("row", {})
    row = CATALOGUE.get(manifest.dataset) or Dataset(
        name=manifest.dataset,
        title=own.get("title", manifest.dataset),
        about=own.get("about", ""),
        splits={},
        layouts=(),
        where=own.get("where", "your own"),
        terms=own.get("terms", "yours"),
        own=own,
    )
    stated = manifest.settings.get("card", {})
    if "name" in stated:
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", stated["name"]).strip("-") or row.name
        row = replace(row, name=slug, title=stated["name"], about="")
    where, terms = stated.get("source", row.where), stated.get("licence", row.terms)
    return replace(row, where=where, terms=terms, own=row.own or stated or None)


def _shard_pattern(manifest: Manifest) -> str:
    """A pattern of file names that takes the shards and no other tar of ours."""
    return f"{_beginning(manifest)}*.tar"


def _shard_lists(manifest: Manifest) -> tuple[str, str]:
    """Exactly the shards, as Python expressions for webdataset and for Ray, which has no patterns.

    Datasets of version 0.1.0 may have gaps between their numbers.
    """
    first, count = _beginning(manifest), len(manifest.shards)
    if [entry.name for entry in manifest.shards] == [f"{first}{n:06d}.tar" for n in range(count)]:
        braces = f'"{first}{{000000..{count - 1:06d}}}.tar"'
        return braces, f'[f"{first}{{n:06d}}.tar" for n in range({count})]'
    files = f'sorted(glob.glob("{_shard_pattern(manifest)}"))'
    return files, files


def _beginning(manifest: Manifest) -> str:
    """What the names of all shards begin with, up to their numbers; "" for names of others."""
    found = {re.sub(r"\d+\.tar$", "", entry.name) for entry in manifest.shards}
    return found.pop() if len(found) == 1 else ""


def _members(manifest: Manifest) -> str:
    if "clean_once" in manifest.settings:
        return (
            "a sample is a clean image `<key>.clean.<ext>`, all of its rainy images "
            "`<key>.rain-01.<ext>`, `<key>.rain-02.<ext>` and so on, and `<key>.json`"
        )
    return "`<key>.rain.<ext>`, `<key>.clean.<ext>` (if there is a clean image), `<key>.json`"


def _description(row: Dataset, manifest: Manifest) -> str:
    about = row.about or row.title
    what = f"{about[0].upper()}{about[1:]}."
    return f"{what} {manifest.pairs:,} samples of the split {manifest.split}, for image deraining."


def _front_matter(row: Dataset, manifest: Manifest) -> dict[str, Any]:
    files = {"split": manifest.split, "path": _shard_pattern(manifest)}
    tree: dict[str, Any] = {
        "pretty_name": row.title,
        "tags": ["deraining", "webdataset"],
        "task_categories": ["image-to-image"],
        "size_categories": [_size_category(manifest.pairs)],
        "configs": [{"config_name": "default", "data_files": [files]}],
    }
    stated = row.own is not None and row.terms != "yours"
    return tree | licences.front_matter(row.terms, own=stated)


def _size_category(pairs: int) -> str:
    """The Hub's size category, such as `1K<n<10K`."""
    bounds = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    above = sum(pairs >= 10 ** (power + 3) for power in range(len(bounds)))
    if above == 0:
        return f"n<{bounds[0]}"
    if above == len(bounds):
        return f"n>{bounds[-1]}"
    return f"{bounds[above - 1]}<n<{bounds[above]}"


def _index_file(manifest: Manifest) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": "index",
        "name": "index",
        "description": "One row a sample: where its members are, and their sha256.",
        "contentUrl": INDEX,
        "encodingFormat": "application/x-parquet",
        "sha256": manifest.index_sha256,
    }


def _shard_files(manifest: Manifest) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": "shards",
        "name": "shards",
        "description": "WebDataset shards; the index has the sha256 of each member.",
        "encodingFormat": "application/x-tar",
        "includes": _shard_pattern(manifest),
    }


def _records() -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"samples/{column.name}",
            "name": column.name,
            "dataType": _TYPES[str(column.type)],
            "source": {"fileObject": {"@id": "index"}, "extract": {"column": column.name}},
        }
        for column in INDEX_SCHEMA
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "key": {"@id": "samples/key"},
        "field": fields,
    }
