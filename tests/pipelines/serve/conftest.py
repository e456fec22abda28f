"""A small network behind the application, without Ray; and images to send."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from benchmarks._small import NETWORK
from derain.inference.predictor import Predictor
from derain.models import build
from derain.pipelines.serve.app import Served, Service, make_app
from derain.pipelines.serve.connection import Connection
from derain.pipelines.serve.limits import Limits
from derain.pipelines.serve.worker import Worker
from tests.data.images.odd_images import encoded
from tests.processes import wait_for

MAX_PIXELS = 100_000


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    torch.manual_seed(0)
    options = {key: value for key, value in NETWORK.items() if key != "name"}
    return Predictor(build("fclip_unet", **options), tile="auto")


@pytest.fixture
def worker(predictor: Predictor) -> Worker:
    return Worker(predictor, max_pixels=MAX_PIXELS)


@pytest.fixture
def service(worker: Worker) -> Service:
    limits = Limits(max_bytes=2**20, max_pixels=MAX_PIXELS, queue=2, body_s=1, answer_s=5)
    return Service(limits, models={"net": Served("net", worker.derain)})


@pytest.fixture
def client(service: Service) -> TestClient:
    return TestClient(make_app(service))


@pytest.fixture
def png() -> bytes:
    levels = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    return encoded(Image.fromarray(levels))


@pytest.fixture
def server(service: Service) -> Iterator[uvicorn.Server]:
    """The application on a free port of loopback, in a thread."""
    app = make_app(service)
    config = uvicorn.Config(app, port=0, http=Connection, lifespan="off", log_config=None)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    wait_for(lambda: running.started, 30)
    yield running
    running.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    """Where `server` listens."""
    return server.servers[0].sockets[0].getsockname()[1]
