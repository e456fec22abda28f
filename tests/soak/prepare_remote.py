"""From s3:// to s3:// through a store that fails, stalls and cuts bodies: the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from derain.data import files
from derain.data.manifest import INDEX, MANIFEST, open_prepared
from derain.pipelines.prepare import prepare
from derain.pipelines.verify import verify
from tests.conftest import PairedFolder
from tests.data.faulty_store import BUCKET, faulty_store

PAIRS = 8


@pytest.mark.usefixtures("ray_cluster")
def test_a_failing_store_gives_the_bytes_of_a_disk(
    paired_folder: PairedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, local = paired_folder(PAIRS, width=250, height=240), tmp_path / "local"
    expected = prepare("paired", source, local, shard_mib=1)
    with faulty_store(seed=1) as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        files._store.cache_clear()
        place = files.located(f"s3://{BUCKET}/source")
        for name in files.walk(source):
            (place / name).write_bytes((source / name).read_bytes())
        store.errors, store.stalls, store.cuts = 0.05, 0.01, 0.05
        out = f"s3://{BUCKET}/prepared"
        command = [sys.executable, "-m", "derain.cli", "prepare", "paired", str(place), out]
        ended = subprocess.run(
            [*command, "--shard-mib", "1", "--json"],
            env={**os.environ, "RAY_ADDRESS": ""}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        done = json.loads(ended.stdout)
        assert store.done["errors"] > 0
        assert store.done["cuts"] > 0
        target = files.located(out)
        for entry in open_prepared(local).manifest.shards:
            assert (target / entry.name).read_bytes() == (local / entry.name).read_bytes()
        assert (target / INDEX).read_bytes() == (local / INDEX).read_bytes()
        assert (target / MANIFEST).read_bytes() == (local / MANIFEST).read_bytes()
        assert done["manifest_sha256"] == expected.manifest_sha256
        assert verify(out).ok
    files._store.cache_clear()
