"""What several tests need: small images, a paired folder, a prepared dataset."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from jaxtyping import config
from PIL import Image

if TYPE_CHECKING:
    from tests.storage.faulty_store import FaultyStore

PairedFolder = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERAIN_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def paired_folder(tmp_path: Path) -> PairedFolder:
    """Makes a folder of pairs whose pixels say which pair they are."""

    def make(count: int, *, name: str = "source", width: int = 40, height: int = 32) -> Path:
        source = tmp_path / name
        for side in ("rain", "clean"):
            (source / side).mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng([number, side == "rain"]).integers(
                    0, 256, (height, width, 3), dtype=np.uint8
                )
                Image.fromarray(pixels).save(source / side / f"{number:03d}.png")
        return source

    return make


def scene_folder(source: Path, scenes: int, rains: int, width: int, height: int) -> Path:
    """Images of noise, of which several have one clean image, as Rain14000 has them."""
    (source / "rainy_image").mkdir(parents=True)
    (source / "ground_truth").mkdir()
    for scene in range(1, scenes + 1):
        for number in range(rains + 1):
            draw = np.random.default_rng([scene, number])
            image = Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
            name = f"rainy_image/{scene}_{number}.jpg" if number else f"ground_truth/{scene}.jpg"
            image.save(source / name, quality=95)
    return source


@pytest.fixture
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator["FaultyStore"]:
    """A local S3 that this process uses; its faults are to be set."""
    from derain.storage import remote
    from tests.storage.faulty_store import faulty_store

    with faulty_store() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(remote, "_PAUSE_S", 0.01)
        remote._store.cache_clear()
        yield store
        remote._store.cache_clear()


@pytest.fixture
def unchecked() -> Iterator[None]:
    """No checks of signatures, to see what the code itself says to a wrong option, and
    to trace the networks and not the checks, which tests/models switches on for all."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One Ray for all tests that need it."""
    from derain import cluster

    with cluster.connected():
        yield


@pytest.fixture(scope="session")
def rain_datasets(
    tmp_path_factory: pytest.TempPathFactory,
    ray_cluster: None,  # noqa: ARG001
) -> tuple[Path, Path]:
    """Two small prepared datasets of rendered rain: training and held-out pairs."""
    from derain.data.synthetic.synthesis import synthesize
    from derain.pipelines.prepare.verb import prepare

    folder = tmp_path_factory.mktemp("rain")
    made = []
    for part, count in (("train", 5), ("held_out", 2)):
        synthesize(None, folder / part, count=count, seed=0, density="mixed", size_px=48, part=part)
        prepare("paired", folder / part, folder / "prepared" / part, split=part)
        made.append(folder / "prepared" / part)
    return made[0], made[1]


@pytest.fixture(scope="session")
def tiny(rain_datasets: tuple[Path, Path]) -> dict[str, Any]:
    """The config tree of a run that takes a second once its worker has started."""
    from tests.tiny import NETWORK

    train, held_out = rain_datasets
    return {
        "name": "tiny",
        "model": NETWORK,
        "data": {
            "train": str(train),
            "eval": str(held_out),
            "cache_dir": str(train.parent / "cache"),
        },
        "train": {
            "steps": 4,
            "batch_size": 4,
            "crop_px": 16,
            "lr": 1e-3,
            "device": "cpu",
            "cpu_threads": 1,
            "log_every_steps": 1,
            "checkpoint_every_steps": 1,
            "ledger": True,
        },
        "loss": {"perceptual": "none"},
    }
