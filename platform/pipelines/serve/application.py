"""A model as one application, for a Ray Serve that others start: RayService, `serve deploy`.

    import_path: derain.pipelines.serve.application:build
    args: {model: models:/net@champion}

Here Ray Serve's proxy listens. It limits neither bytes nor slow senders before they reach the
deployment `http`, which has the routes and limits of `derainctl serve`: put a server in front of it
that does. An alias is looked up when the application is deployed; deploy again for a new version.
"""

import os

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from derain.pipelines.serve import KEY_VARIABLE
from derain.pipelines.serve.app import Served, Service, make_app
from derain.pipelines.serve.deployment import ACTOR, REPLICA, backend_of
from derain.pipelines.serve.limits import Limits
from derain.tracking import registry
from derain.tracking.address import tracking_uri

REQUESTS = 1000
"""That Ray Serve hands to the deployment `http`; beyond `queue` it answers 429 itself."""


class Arguments(BaseModel):
    """`args` of the application: options of `derainctl serve`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    """models:/NAME@ALIAS, models:/NAME/VERSION, or a path that is the same on every node."""
    batch: int = Field(1, gt=0)
    queue: int = Field(Limits.queue, gt=0)
    max_bytes: int = Field(Limits.max_bytes, gt=0)
    max_pixels: int = Field(Limits.max_pixels, gt=0)
    time_limit: float = Field(Limits.answer_s, gt=0)
    device: str = "auto"
    trust: bool = False


def build(args: Arguments) -> Application:
    """The deployments `http` (routes and limits) and `replica` (the network).

    Requests need the key in DERAIN_API_KEY if it is set where `http` runs. Raises what
    `registry.pinned` raises for an alias that does not exist.
    """
    version = registry.pinned(args.model)
    replica = REPLICA.bind(
        version, args.device, args.trust, tracking_uri(), args.max_pixels, args.batch
    )
    http = serve.deployment(
        serve.ingress(lambda: make_app(service_of(args, version)))(),
        name="http",
        max_ongoing_requests=REQUESTS,
        ray_actor_options=ACTOR,
        graceful_shutdown_timeout_s=60,
    )
    return http.bind(replica)


def service_of(args: Arguments, version: str) -> Service:
    """What the routes share, in a process of the deployment `http`."""
    limits = Limits(
        max_bytes=args.max_bytes,
        max_pixels=args.max_pixels,
        queue=args.queue,
        answer_s=args.time_limit,
    )
    backend = backend_of(serve.get_deployment_handle(REPLICA.name))
    key = os.environ.get(KEY_VARIABLE) or None
    return Service(limits, key, {"default": Served(version, backend)})
