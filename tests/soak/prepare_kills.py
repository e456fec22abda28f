"""Twenty SIGKILLs of `prepare` at random moments: the bytes equal those of an uninterrupted run.

The source has scenes of two rainy images, and one clean image that cannot be read, so that shards
are renamed in the end; datasets alternate between storing the clean image once per pair and once
per scene. Run it as `python -m tests.soak.prepare_kills`; part of `make soak`.
"""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from derain.data.prepared.manifest import MANIFEST
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.verify import verify
from tests.folders import digests, write_scenes
from tests.pipelines.prepare.kills import SHARDS, kill_prepare, start_prepare

KILLS = 20


def main() -> None:
    """Kill `prepare` until KILLS kills have happened, over as many datasets as that takes."""
    kills: list[int] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = write_scenes(folder / "source", SHARDS, rains=2, width=450, height=420)
        (source / "ground_truth/3.jpg").write_bytes(b"not an image")
        for once in (False, True):
            prepare("rain14000", source, folder / f"whole-{once}", shard_mib=1, clean_once=once)
        for seed in range(KILLS):
            once, out = seed % 2 == 1, folder / f"killed-{seed}"
            options = ("rain14000", *(["--clean-once"] if once else []))
            most = min(KILLS - len(kills), KILLS // 2)
            kills += _kill_repeatedly(source, out, most, seed, options)
            assert digests(out) == digests(folder / f"whole-{once}"), (
                f"seed {seed}: different bytes"
            )
            assert verify(out).ok
            if len(kills) == KILLS:
                break
    print(f"{len(kills)} kills with {kills} shards written: the bytes are the same")


def _kill_repeatedly(
    source: Path, out: Path, kills: int, seed: int, options: Sequence[str]
) -> list[int]:
    """Kill `prepare` up to `kills` times, then let it finish; return the shards at each kill."""
    rng, shards = random.Random(seed), []
    while len(shards) < kills and not (out / MANIFEST).exists():
        target = min(SHARDS, len(list(out.glob("*.tar"))) + rng.randint(0, 2))
        shards.append(kill_prepare(source, out, target, rng.random() * 0.02, *options))
    assert start_prepare(source, out, *options).wait(timeout=300) == 0
    return shards


if __name__ == "__main__":
    main()
