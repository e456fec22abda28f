"""Networks as applications of Ray Serve: replicas, and handles that this process calls.

Ray Serve's own HTTP proxy is not started: it has no limits on bytes, time or slow senders, and
would be one more hop. (`application.py` is for a Ray Serve that others start, with that proxy.)
"""

import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from grpc.aio import AioRpcError
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig
from ray.util.client import ray as ray_client

from derain import cluster
from derain.errors import DerainError
from derain.pipelines.load_model import load_predictor
from derain.pipelines.serve import MESSAGES
from derain.pipelines.serve.answers import Derained, Refused, RefusedError
from derain.pipelines.serve.app import Backend
from derain.pipelines.serve.limits import RETRY_S
from derain.pipelines.serve.worker import Worker
from derain.storage.cores import available_cores

WARM_PX = 257
"""More than `Predictor` takes without measuring the memory of a pixel."""
ACTOR = {"num_cpus": 0, "runtime_env": {"env_vars": MESSAGES}}
"""Ray's options of a process that sends or answers requests."""
HELD = 16
"""Requests that a replica decodes, computes and encodes at one time."""


@dataclass(frozen=True)
class Replicas:
    """How many processes a network has: from `least` to `most`, as requests wait."""

    least: int = 1
    most: int = 1

    def options(self, batch: int) -> dict[str, Any]:
        """Ray Serve's options of a deployment whose replicas compute `batch` images at once."""
        if self.least == self.most:
            return {"num_replicas": self.most}
        scaling = {
            "min_replicas": self.least,
            "max_replicas": self.most,
            # One batch is computed while the next one is decoded.
            "target_ongoing_requests": 2 * batch,
        }
        return {"num_replicas": "auto", "autoscaling_config": scaling}


class Replica:
    """A `Worker` in a process of Ray's."""

    def __init__(
        self,
        model: str,
        device: str,
        trust: bool,
        store: str,
        max_pixels: int,
        batch: int = 1,
        threads: int | None = None,
    ) -> None:
        import torch

        os.environ["MLFLOW_TRACKING_URI"] = store
        torch.set_num_threads(threads or available_cores())
        predictor = load_predictor(model, device, trust=trust, tile="auto")
        predictor.derain(np.zeros((WARM_PX, WARM_PX, 3), np.uint8))  # the first takes longer
        self._worker = Worker(predictor, max_pixels=max_pixels, batch=batch)

    async def derain(self, data: bytes) -> Derained | Refused:
        """See `Worker.derain`."""
        return await self._worker.derain(data)


REPLICA = serve.deployment(
    Replica,
    name="replica",
    max_ongoing_requests=HELD,
    ray_actor_options=ACTOR,
    graceful_shutdown_timeout_s=60,
    health_check_period_s=2,
    logging_config=LoggingConfig(enable_access_log=False),  # a line and a flush for each request
)
"""Bind it to the arguments of `Replica`."""


def start() -> None:
    """Ray Serve in the connected Ray, without its HTTP proxy."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options=HTTPOptions(location="NoServer"))


def deploy(
    name: str,
    model: str,
    *,
    replicas: Replicas,
    device: str,
    trust: bool,
    store: str,
    max_pixels: int,
    batch: int = 1,
) -> Backend:
    """Start the replicas of a network, wait until they answer, and return what calls them.

    A replica takes half of its share of the GPUs, so that a successor fits beside it. Raises
    DerainError if they do not start.
    """
    gpus = cluster.gpus() if device != "cpu" else 0
    options: dict[str, Any] = dict(ACTOR)
    if gpus:
        options["num_gpus"] = 1 / (2 * -(-replicas.most // gpus))
    threads = max(1, available_cores() // replicas.most)
    replica = REPLICA.options(ray_actor_options=options, **replicas.options(batch))
    application = replica.bind(model, device, trust, store, max_pixels, batch, threads)
    try:
        return backend_of(serve.run(application, name=name, route_prefix=None))
    except (RuntimeError, RayServeException) as error:
        remove(name)  # Ray Serve keeps one that has failed, and tries to start its replicas
        raise DerainError(f"{model}: its replicas did not start ({error}).") from error


def backend_of(handle: DeploymentHandle) -> Backend:
    """What answers by calling the replicas of a handle.

    Images travel in gRPC messages between this process and a replica. By default Ray would put what
    has more than 100 KB into its object store, and ask there for each. Behind ray:// it still does:
    this process need not reach the replicas.
    """
    away = ray_client.is_connected()
    derain = handle.options(method_name="derain", _by_reference=away)

    async def backend(data: bytes) -> Derained | Refused:
        try:
            return await derain.remote(data)
        except RayTaskError as error:
            raise DerainError(f"The replica failed: {error.cause!r}.") from error
        except (RayActorError, RayServeException, AioRpcError) as error:
            raise RefusedError(
                503, "replica_lost", "The replica that held the request ended; try again.", RETRY_S
            ) from error

    return backend


def remove(name: str) -> None:
    """End the replicas of an application, after what they have in hand."""
    serve.delete(name)
