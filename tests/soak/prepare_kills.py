"""Twenty SIGKILLs of `prepare` at random moments: the bytes equal those of an unbroken run.

`python -m tests.soak.prepare_kills`; part of `make soak`.
"""

import random
import tempfile
from pathlib import Path

import numpy as np

from derain.data.manifest import MANIFEST
from derain.data.pictures import encode_png
from derain.pipelines.prepare import prepare
from derain.pipelines.verify import verify
from tests.pipelines.test_prepare_kills import SHARDS, digests, killed, started

KILLS = 20


def main() -> None:
    """Kill until twenty kills have happened, over as many datasets as that takes."""
    kills: list[int] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = _source(folder / "source")
        prepare("paired", source, folder / "whole", shard_mib=1)
        expected = digests(folder / "whole")
        for seed in range(KILLS):
            out = folder / f"killed-{seed}"
            kills += _survived(source, out, KILLS - len(kills), seed)
            assert digests(out) == expected, f"seed {seed}: other bytes"
            assert verify(out).ok
            if len(kills) == KILLS:
                break
    print(f"{len(kills)} kills with {kills} of {SHARDS} shards written: the bytes are the same")


def _survived(source: Path, out: Path, kills: int, seed: int) -> list[int]:
    """Kill `prepare` again and again, then let it end; shards that were there at each kill."""
    draw, there = random.Random(seed), []
    while len(there) < kills and not (out / MANIFEST).exists():
        wanted = min(SHARDS, len(list(out.glob("shard-*.tar"))) + draw.randint(0, 2))
        there.append(killed(source, out, wanted, draw.random() * 0.02))
    assert started(source, out).wait(timeout=300) == 0
    return there


def _source(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    for side in ("rain", "clean"):
        (folder / side).mkdir(parents=True)
        for number in range(SHARDS):
            pixels = draw.integers(0, 256, (420, 450, 3), dtype=np.uint8)
            (folder / side / f"{number:03d}.png").write_bytes(encode_png(pixels))
    return folder


if __name__ == "__main__":
    main()
