"""Twenty SIGKILLs of `prepare` at random moments: the bytes equal those of an unbroken run.

Of scenes, in turn with their clean image once for each rainy one and once for all of them.
`python -m tests.soak.prepare_kills`; part of `make soak`.
"""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from derain.data.prepared.manifest import MANIFEST
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.verify import verify
from tests.conftest import scene_folder
from tests.pipelines.prepare.test_prepare_kills import SHARDS, digests, killed, started

KILLS = 20


def main() -> None:
    """Kill until twenty kills have happened, over as many datasets as that takes."""
    kills: list[int] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = scene_folder(folder / "source", SHARDS, rains=2, width=450, height=420)
        for once in (False, True):
            prepare("rain14000", source, folder / f"whole-{once}", shard_mib=1, clean_once=once)
        for seed in range(KILLS):
            once, out = seed % 2 == 1, folder / f"killed-{seed}"
            options = ("rain14000", *(["--clean-once"] if once else []))
            most = min(KILLS - len(kills), KILLS // 2)
            kills += _survived(source, out, most, seed, options)
            assert digests(out) == digests(folder / f"whole-{once}"), f"seed {seed}: other bytes"
            assert verify(out).ok
            if len(kills) == KILLS:
                break
    print(f"{len(kills)} kills with {kills} shards written: the bytes are the same")


def _survived(source: Path, out: Path, kills: int, seed: int, options: Sequence[str]) -> list[int]:
    """Kill `prepare` again and again, then let it end; shards that were there at each kill."""
    draw, there = random.Random(seed), []
    while len(there) < kills and not (out / MANIFEST).exists():
        wanted = min(SHARDS, len(list(out.glob("shard-*.tar"))) + draw.randint(0, 2))
        there.append(killed(source, out, wanted, draw.random() * 0.02, *options))
    assert started(source, out, *options).wait(timeout=300) == 0
    return there


if __name__ == "__main__":
    main()
