"""`serve`: starts the replicas, then HTTP in this process, until it is asked to stop."""

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import uvicorn

from derain import cluster
from derain.errors import DerainError, StoppedError, UsageError
from derain.pipelines.load_model import load_predictor
from derain.pipelines.serve import deployment
from derain.pipelines.serve.app import Served, Service, make_app
from derain.pipelines.serve.connection import Connection
from derain.pipelines.serve.deployment import Replicas
from derain.pipelines.serve.limits import Limits
from derain.pipelines.sigterm import INTERRUPTED, on_signals, stopping_at_sigterm
from derain.tracking import registry
from derain.tracking.address import tracking_uri

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two questions whether an alias names another version."""
STOP_S = 60
"""For the requests in hand, after the signal to stop."""


def serve(
    models: Mapping[str, str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: Replicas = Replicas(),  # noqa: B008, frozen
    batch: int = 1,
    device: str = "auto",
    trust: bool = False,
    key: str | None = None,
    limits: Limits = Limits(),  # noqa: B008, frozen
) -> None:
    """Serve models by name over HTTP until SIGTERM or Ctrl-C, then raise StoppedError.

    Requests in hand are answered before. Raises DerainError if the port is in use, and what
    `load_predictor` raises for a model that cannot be loaded.
    """
    with (
        stopping_at_sigterm("serve: stopped."),
        contextlib.closing(_bound(host, port)) as listener,
    ):
        located = {name: _located(model) for name, model in models.items()}
        for model in located.values():
            load_predictor(registry.pinned(model), "cpu", trust=trust)  # its own message, if not
        with cluster.connected():
            deployment.start()
            fleet = _Fleet(Service(limits, key), located, replicas, batch, device, trust)
            try:
                fleet.start()
                _serve(fleet, listener)
            finally:
                fleet.end()


class _Fleet:
    """The applications of all models; a new version behind an alias replaces the old one."""

    def __init__(
        self,
        service: Service,
        models: Mapping[str, str],
        replicas: Replicas,
        batch: int,
        device: str,
        trust: bool,
    ) -> None:
        self.service = service
        self._models, self._device, self._trust = models, device, trust
        self._replicas, self._batch = replicas, batch
        self._names: dict[str, str] = {}
        self._refused: set[str] = set()
        self._done = threading.Event()

    def start(self) -> None:
        """Start all, then look for new versions in a thread."""
        for name, model in self._models.items():
            self._replace(name, registry.pinned(model))
        if any("@" in model for model in self._models.values()):
            threading.Thread(target=self._follow, daemon=True).start()

    def end(self) -> None:
        """End all replicas."""
        self._done.set()
        for name in self._names.values():
            deployment.remove(name)

    def _replace(self, name: str, version: str) -> None:
        """Start a version beside the present one, which ends when it has answered all."""
        application = f"derain-{secrets.token_hex(4)}"
        backend = deployment.deploy(
            application,
            version,
            replicas=self._replicas,
            device=self._device,
            trust=self._trust,
            store=tracking_uri(),
            max_pixels=self.service.limits.max_pixels,
            batch=self._batch,
        )
        before, old = self._names.get(name), self.service.models.get(name)
        self._names[name], self.service.models[name] = application, Served(version, backend)
        log.info("serve: %s is %s", name, version)
        if before is not None and old is not None:
            while old.in_hand and not self._done.wait(0.1):
                pass
            deployment.remove(before)

    def _follow(self) -> None:
        while not self._done.wait(LOOK_S):
            for name, model in self._models.items():
                with contextlib.suppress(DerainError):  # a store that is away: the old one serves
                    version = registry.pinned(model)
                    if version not in (self.service.models[name].model, *self._refused):
                        self._try(name, version)

    def _try(self, name: str, version: str) -> None:
        try:
            self._replace(name, version)
        except DerainError as error:
            self._refused.add(version)
            log.warning("serve: %s stays as it is: %s", name, error)


class _Server(uvicorn.Server):
    """uvicorn's, which leaves signals to `on_signals`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _serve(fleet: _Fleet, listener: socket.socket) -> None:
    """Answer requests until a signal; raises StoppedError with its exit code."""
    config = uvicorn.Config(
        make_app(fleet.service),
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=STOP_S,
        server_header=False,
    )
    server = _Server(config)
    seen: list[int] = []

    def stop(number: int) -> None:
        if seen:
            server.force_exit = True
        seen.append(number)
        fleet.service.ready = False
        server.should_exit = True

    listener.listen(config.backlog)
    host, port = listener.getsockname()[:2]
    log.info("serve: http://%s:%d/", host, port)
    with on_signals(stop):
        asyncio.run(server.serve(sockets=[listener]))
    stopped = StoppedError("serve: stopped; the requests in hand were answered.")
    if seen and seen[0] == signal.SIGINT:
        stopped.exit_code = INTERRUPTED
    raise stopped


def _located(model: str) -> str:
    """A model as replicas find it, whose working directory is another."""
    if model.startswith(("models:/", "runs:/")):
        return model
    path = Path(model).absolute()
    if not path.exists():
        raise UsageError(f"{model}: no such model folder, checkpoint, run or exported file.")
    return str(path)


def _bound(host: str, port: int) -> socket.socket:
    """A socket at this address; raises DerainError if another program has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise DerainError(
            f"{host}:{port} cannot be served ({error.strerror}). Give another --port or --host."
        ) from None
    return listener
