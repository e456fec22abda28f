"""`prepare` from s3:// to s3:// and gs:// to gs:// on a failing store: the same bytes as on disk.

The store answers with errors, stalls and cuts bodies short.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from derain.data.loading.cache import open_pixels
from derain.data.prepared.index import INDEX
from derain.data.prepared.manifest import MANIFEST, open_prepared
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.verify import verify
from derain.storage import files, remote
from tests.folders import PairedFolder
from tests.storage.faulty_store import BUCKET, FaultyStore, faulty, faulty_store
from tests.storage.gcs_server import gcs_server

PAIRS = 8


@contextmanager
def google() -> Iterator[FaultyStore]:
    with gcs_server() as behind, faulty(behind, seed=1) as store:
        yield store


STORES = {"s3": lambda: faulty_store(seed=1), "gs": google}


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("scheme", STORES)
def test_a_failing_store_gives_the_bytes_of_a_disk(
    scheme: str, paired_folder: PairedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, local = paired_folder(PAIRS, width=250, height=240), tmp_path / "local"
    expected = prepare("paired", source, local, shard_mib=1)
    with STORES[scheme]() as store:
        for name, value in store.faultless.items():
            monkeypatch.setenv(name, value)
        remote._store.cache_clear()
        place, out = files.locate(f"{scheme}://{BUCKET}/source"), f"{scheme}://{BUCKET}/prepared"
        for name in files.walk(source):
            (place / name).write_bytes((source / name).read_bytes())
        store.errors, store.stalls, store.cuts = 0.05, 0.01, 0.05
        done = prepare_apart(place, out, {**store.environment, "RAY_ADDRESS": ""})
        assert min(store.done[fault] for fault in ("errors", "cuts")) > 0
        target = files.locate(out)
        names = [entry.name for entry in open_prepared(local).manifest.shards]
        for name in (*names, INDEX, MANIFEST):
            assert (target / name).read_bytes() == (local / name).read_bytes()
        assert done["manifest_sha256"] == expected.manifest_sha256
        assert verify(out).ok
        assert len(open_pixels(open_prepared(out), folder=tmp_path / "c", budget_gib=1)) == PAIRS
        print(f"\n{scheme}: {dict(store.done)}, the bytes are the same")
    remote._store.cache_clear()


def prepare_apart(place: Path, out: str, environment: dict[str, str]) -> dict[str, Any]:
    """Run `derainctl prepare` in a new process with its own Ray; return what it prints."""
    command = [sys.executable, "-m", "derain.cli", "prepare", "paired", str(place), out]
    ended = subprocess.run(
        [*command, "--shard-mib", "1", "--json"],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
