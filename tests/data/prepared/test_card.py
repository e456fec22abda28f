"""Dataset card and Croissant metadata: other tools read them; they are reproducible."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import mlcroissant
import pytest
import yaml

from derain.data.prepared.card import CARD, CROISSANT, card, croissant
from derain.data.prepared.manifest import Manifest, Prepared, ShardEntry, open_prepared
from derain.data.sources.catalogue import CATALOGUE
from derain.pipelines.prepare.verb import prepare
from tests.folders import PairedFolder


@pytest.fixture
def prepared(paired_folder: PairedFolder, tmp_path: Path, ray_cluster: None) -> Prepared:  # noqa: ARG001
    prepare("paired", paired_folder(3), tmp_path / "out", split="held_out")
    return open_prepared(tmp_path / "out")


def manifest_of(dataset: str, split: str) -> Manifest:
    """The manifest of a dataset that does not exist."""
    entry = ShardEntry("shard-000000.tar", 1, 1, "0" * 64)
    return Manifest(dataset, split, 1, 1, (entry,), "0" * 64, "", {}, notes=("Mind the gap.",))


def test_croissant_reads_the_samples(prepared: Prepared) -> None:
    path = prepared.folder / CROISSANT
    assert path.read_text() == croissant(prepared.manifest)
    read = mlcroissant.Dataset(jsonld=path)
    assert not read.metadata.ctx.issues.errors
    records = list(read.records("samples"))
    assert [record["samples/key"] for record in records] == [b"000", b"001", b"002"]
    assert [record["samples/width"] for record in records] == [40, 40, 40]
    offsets = [record["samples/rain_offset"] for record in records]
    assert offsets == prepared.column("rain_offset").tolist()


def test_hugging_face_reads_the_folder_by_its_card(prepared: Prepared, tmp_path: Path) -> None:
    assert (prepared.folder / CARD).read_text() == card(prepared.manifest)
    read = datasets.load_dataset(str(prepared.folder), cache_dir=str(tmp_path / "hf"))
    assert list(read) == ["held_out"]
    assert read["held_out"]["__key__"] == ["000", "001", "002"]
    assert read["held_out"][0]["rain.png"].size == (40, 32)


@pytest.mark.parametrize(
    ("pairs", "word"),
    [
        *((999, "n<1K"), (1_000, "1K<n<10K"), (638_492, "100K<n<1M"), (10_000_000, "10M<n<100M")),
        *((999_999_999, "100M<n<1B"), (10**9, "n>1B")),
    ],
)
def test_the_size_is_a_category_of_the_hub(pairs: int, word: str) -> None:
    text = card(replace(manifest_of("paired", "train"), pairs=pairs))
    assert yaml.safe_load(text.split("---\n")[1])["size_categories"] == [word]


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_dataset_has_a_card_and_valid_metadata(name: str) -> None:
    manifest = manifest_of(name, next(iter(CATALOGUE[name].splits)))
    read = mlcroissant.Dataset(jsonld=json.loads(croissant(manifest)))
    assert not read.metadata.ctx.issues.errors
    text = card(manifest)
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["pretty_name"] == CATALOGUE[name].title
    assert head["license"] == ("bsd-3-clause" if name == "spa-data" else "unknown")
    assert "Mind the gap." in text


@pytest.mark.parametrize(
    ("licence", "expected", "address"),
    [
        ("cc-by-4.0", {"license": "cc-by-4.0"}, "https://spdx.org/licenses/CC-BY-4.0"),
        ("ODbL-1.0", {"license": "odbl"}, "https://spdx.org/licenses/ODbL-1.0"),
        ("GPL-3.0-only", {"license": "gpl-3.0"}, "https://spdx.org/licenses/GPL-3.0-only"),
        ("ask me first", {"license": "other", "license_name": "ask-me-first"}, None),
        (
            "https://example.org/l",
            {
                "license": "other",
                "license_name": "https-example.org-l",
                "license_link": "https://example.org/l",
            },
            "https://example.org/l",
        ),
    ],
)
def test_ones_own_data_has_a_name_a_licence_and_a_source(
    licence: str, expected: dict[str, str], address: str | None
) -> None:
    stated = {"name": "Rain in Ürümqi", "licence": licence, "source": "https://example.org/data"}
    manifest = replace(manifest_of("paired", "train"), settings={"card": stated})
    tree = json.loads(croissant(manifest))
    assert not mlcroissant.Dataset(jsonld=tree).metadata.ctx.issues.errors
    assert (tree["name"], tree["url"]) == ("Rain-in-r-mqi-train", "https://example.org/data")
    assert tree.get("license") == address
    assert tree["description"].startswith("Rain in Ürümqi. 1 samples of the split train")
    text = card(manifest)
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["pretty_name"] == "Rain in Ürümqi"
    assert {key: head[key] for key in head if key.startswith("license")} == expected
    assert f"published at https://example.org/data; licence: {licence}" in text


def test_a_row_of_ones_own_is_described_without_its_file() -> None:
    row = {"name": "alley", "title": "The alley", "about": "real rain", "terms": "CC0-1.0"}
    for settings, title, licence in (({"row": row}, "The alley", "cc0-1.0"), ({}, "alley", None)):
        manifest = replace(manifest_of("alley", "day"), settings=settings)
        tree = json.loads(croissant(manifest))
        assert not mlcroissant.Dataset(jsonld=tree).metadata.ctx.issues.errors
        head = yaml.safe_load(card(manifest).split("---\n")[1])
        assert head["pretty_name"] == title
        assert head["license"] == (licence or "unknown")


def test_the_card_names_exactly_the_shards() -> None:
    """Datasets of version 0.1.0 may have gaps between their numbers."""
    whole = manifest_of("paired", "train")
    text = card(whole)
    assert 'webdataset.WebDataset("shard-{000000..000000}.tar")\n' in text
    assert 'ray.data.read_webdataset([f"shard-{n:06d}.tar" for n in range(1)])\n' in text
    later = replace(whole.shards[0], name="shard-000002.tar")
    gap = replace(whole, shards=(*whole.shards, later))
    assert card(gap).count('(sorted(glob.glob("shard-*.tar")))\n') == 2
    assert '"includes": "shard-*.tar"' in croissant(gap)
