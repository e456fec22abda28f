"""A store with versions that were measured on several images and by several protocols."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from benchmarks._small import write_dataset
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.tracking.runs import RunLog
from derain.tracking.store import prepare_store
from tests.folders import noise_image

COST = {"trained_parameters": "1500000", "frozen_parameters": "500000", "macs": "2500000000"}


@dataclass(frozen=True)
class Board:
    """A store and the datasets that its versions were trained and measured on."""

    uri: str
    train: Prepared
    leaky: Prepared
    """Training images of which two are in `test`."""
    test: Prepared


def dataset(folder: Path, clean: range) -> Prepared:
    """Pairs with the clean images of these numbers."""
    source = folder.with_name(f"{folder.name}-source")
    for number in clean:
        for side, seed in (("rain", len(folder.name)), ("clean", 0)):
            path = source / side / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise_image(number, seed, width=48, height=32).save(path)
    write_dataset(source, folder)
    return open_prepared(folder)


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    root = tmp_path_factory.mktemp("board")
    uri = prepare_store(f"sqlite:///{root}/mlflow.db")
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    made = Board(
        uri,
        train=dataset(root / "train", range(4)),
        leaky=dataset(root / "leaky", range(8, 12)),
        test=dataset(root / "test", range(10, 14)),
    )

    def register(name: str, psnr: float, test: float | None, **tags: str) -> None:
        train = made.leaky if name == "leaky" else made.train
        with RunLog(name, uri=uri) as run:
            if name != "forgotten":
                for role, each in (("train", train), ("test", made.test)):
                    folder, digest = str(each.folder), each.sha256()
                    run.dataset(digest, each.folder.name, folder, context=role, pairs=len(each))
        tested = {} if test is None else {"test_psnr_y": repr(test), "test_ssim_y": "0.9"}
        given = {
            "train_manifest_sha256": train.sha256(),
            "config_sha256": "c",
            "protocol": "rain13k v1",
            "test_sha256": made.test.sha256(),
            "train_seconds": "3900.5",
            **COST,
        }
        if name not in {it.name for it in client.search_registered_models()}:
            client.create_registered_model(name)
        measured = {"psnr_y": repr(psnr), "ssim_y": "0.8", "evaluation_sha256": "e" * 64}
        made_version = client.create_model_version(
            name, str(root), run_id=run.run_id, tags={**given, **measured, **tested, **tags}
        )
        client.set_registered_model_alias(name, "champion", made_version.version)

    register("clean", 25.0, 28.0)
    register("clean", 24.0, 29.5)
    register("leaky", 26.0, 30.0)
    register("other_protocol", 26.0, 33.0, protocol="five_set v1")
    register("forgotten", 20.0, 21.0, chosen_on_test="true")
    return made
