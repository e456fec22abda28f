"""Replicas of Ray Serve: answers, and a new version that takes over without a lost request."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from PIL import Image

from benchmarks._small import NETWORK
from derain.data.images.convert import read_odd
from derain.errors import DerainError, UsageError
from derain.inference.predictor import Predictor, save_model_folder
from derain.models import build
from derain.pipelines.serve import deployment, verb
from derain.pipelines.serve.answers import Derained, Refused, RefusedError
from derain.pipelines.serve.app import Backend, Service
from derain.pipelines.serve.deployment import Replicas
from derain.pipelines.serve.limits import Limits
from tests.data.images.odd_images import encoded
from tests.processes import wait_for

OPTIONS = {key: value for key, value in NETWORK.items() if key != "name"}


def version(folder: Path, seed: int) -> tuple[str, Predictor]:
    torch.manual_seed(seed)
    network = build("fclip_unet", **OPTIONS)
    saved = save_model_folder(network, folder / f"v{seed}", "fclip_unet", OPTIONS)
    return str(saved), Predictor(network)


@pytest.mark.soak
@pytest.mark.usefixtures("ray_cluster")
def test_a_new_version_takes_over_under_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, png: bytes
) -> None:
    from ray import serve

    versions = [version(tmp_path, seed) for seed in (1, 2)]
    image = read_odd(png, "it").srgb
    expected = [predictor.derain(image) for _, predictor in versions]
    named = [versions[0][0]]
    monkeypatch.setattr(verb.registry, "pinned", lambda _: named[0])
    monkeypatch.setattr(verb, "LOOK_S", 0.2)
    service = Service(Limits())
    fleet = verb._Fleet(service, {"net": "models:/net@champion"}, Replicas(), 1, "cpu", False)
    answers: list[Derained] = []
    ended = threading.Event()

    async def ask() -> None:
        while not ended.is_set():
            served = service.models["net"]
            served.in_hand += 1
            answers.append(await served.backend(png))
            served.in_hand -= 1

    async def load() -> None:
        await asyncio.gather(*(ask() for _ in range(3)))

    clients = threading.Thread(target=lambda: asyncio.run(load()))
    deployment.start()
    try:
        fleet.start()
        clients.start()
        wait_for(lambda: answers, 60)
        named[0] = versions[1][0]
        wait_for(lambda: service.models["net"].model == named[0], 120)
        wait_for(lambda: len(serve.status().applications) == 1, 60)
        ended.set()
        clients.join(30)
    finally:
        ended.set()
        fleet.end()
        serve.shutdown()
    results = [read_odd(answer.data, "found").levels for answer in answers]
    which = [int(np.array_equal(result, expected[1])) for result in results]
    for result, at in zip(results, which, strict=True):
        np.testing.assert_array_equal(result, expected[at])
    assert set(which) == {0, 1}


@pytest.mark.soak
@pytest.mark.usefixtures("ray_cluster")
def test_replicas_are_added_while_requests_wait(tmp_path: Path, png: bytes) -> None:
    from ray import serve

    (saved, predictor), image = version(tmp_path, 1), read_odd(png, "it").srgb
    deployment.start()
    try:
        backend = deployment.deploy(
            "derain",
            saved,
            replicas=Replicas(1, 2),
            batch=4,
            device="cpu",
            trust=False,
            store="",
            max_pixels=10_000,
        )
        ended = threading.Event()
        answers: list[Derained] = []

        async def ask() -> None:
            while not ended.is_set():
                answers.append(await backend(png))

        async def load() -> None:
            await asyncio.gather(*(ask() for _ in range(30)))

        clients = threading.Thread(target=lambda: asyncio.run(load()))
        clients.start()
        try:
            wait_for(lambda: _running(serve.status()) == 2, 180)
        finally:
            ended.set()
            clients.join(60)
    finally:
        serve.shutdown()
    expected = predictor.derain(image).astype(int)
    for answer in answers:
        assert np.abs(read_odd(answer.data, "found").levels - expected).max() <= 1


@pytest.mark.usefixtures("ray_cluster")
def test_a_large_image_is_answered_and_a_killed_replica_is_lost(tmp_path: Path) -> None:
    from ray import serve

    saved, predictor = version(tmp_path, 1)
    large = np.random.default_rng(0).integers(0, 256, (1200, 1400, 3), dtype=np.uint8)
    sent = encoded(Image.fromarray(large))
    assert len(sent) > 2**22  # what gRPC takes by default
    deployment.start()
    try:
        backend = deployment.deploy(
            "derain",
            saved,
            replicas=Replicas(),
            device="cpu",
            trust=False,
            store="",
            max_pixels=large.size,
        )

        async def ask() -> list[Derained | Refused]:
            began = time.monotonic()
            answers = [await backend(sent)]
            takes = time.monotonic() - began
            asked = asyncio.create_task(_answer(backend, sent))
            await asyncio.sleep(takes / 2)  # by then it is in the replica's hands
            for name in _replicas():
                ray.kill(ray.get_actor(name, namespace="serve"), no_restart=True)
            return [*answers, await asked, await asyncio.wait_for(backend(sent), 120)]

        first, lost, last = asyncio.run(ask())
    finally:
        serve.shutdown()
    assert isinstance(lost, Refused)
    assert (lost.status, lost.kind, lost.retry_after_s) == (503, "replica_lost", 1)
    for answer in (first, last):
        assert isinstance(answer, Derained)
        found = read_odd(answer.data, "found").levels
        np.testing.assert_array_equal(found, predictor.derain(large))


@pytest.mark.usefixtures("ray_cluster")
def test_replicas_that_do_not_start_are_not_tried_for_ever(tmp_path: Path) -> None:
    from ray import serve

    deployment.start()
    try:
        with pytest.raises(DerainError, match="its replicas did not start"):
            deployment.deploy(
                "derain",
                str(tmp_path / "gone"),
                replicas=Replicas(),
                device="cpu",
                trust=False,
                store="",
                max_pixels=1000,
            )
        assert not serve.status().applications
    finally:
        serve.shutdown()


async def _answer(backend: Backend, sent: bytes) -> Derained | Refused:
    try:
        return await backend(sent)
    except RefusedError as error:
        return error.refused


def _replicas() -> list[str]:
    """Names of the actors of Ray Serve's replicas."""
    named = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in named if "replica" in actor["name"]]


def _running(status: Any) -> int:
    """How many replicas answer."""
    return status.applications["derain"].deployments["replica"].replica_states.get("RUNNING", 0)


def test_a_taken_port_and_a_missing_model_are_one_message(tmp_path: Path) -> None:
    with verb._bound("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DerainError, match=f"127.0.0.1:{port} cannot be served") as told:
            verb.serve({"net": "gone"}, port=port)
    assert told.value.exit_code == 1
    with pytest.raises(UsageError, match="no such model folder"):
        verb.serve({"net": str(tmp_path / "gone")}, port=port)
