"""`serve` over loopback against the bare forward pass, LitServe and `mlflow models serve`.

All servers run at once, with the same small network and as many threads, and take turns. They
answer the same PNG of 512 x 512 px: ours as bytes; LitServe in JSON with base64, decoded and
encoded by the same code as ours; MLflow's as the pixels in JSON, the only form in which it takes
images.
"""

import base64
import contextlib
import http.client
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
from PIL import Image

from benchmarks.common import ROUNDS, Row, installed, main, row
from benchmarks.predict import NETWORKS
from derain.data.images.convert import read_odd
from derain.inference.predictor import Predictor, load_model_folder, save_model_folder
from derain.models import build

SIZE_PX = 512
REQUESTS, SLOW_S = 20, 10.0
"""Of one client, in a round: as many as are answered in `SLOW_S`, at most `REQUESTS`."""
CLIENTS = 8
START_S = 180
PORTS = {"ours": 18431, "ours, --batch 4": 18432, "LitServe": 18433, "mlflow": 18434}


@dataclass(frozen=True)
class Answer:
    """An answer's body, and where its seconds went."""

    data: bytes
    seconds: float
    """By the client's clock."""
    steps: Mapping[str, float]
    """By ours: of the replica's `decode`, `queue`, `forward`, `encode`."""

    @property
    def way(self) -> float:
        """What is not the replica's: connection, HTTP, Ray Serve's handle."""
        return self.seconds - sum(self.steps.values())


@dataclass(frozen=True)
class Server:
    """Where a server answers, what it is sent, and what of the answer is the image."""

    port: int
    path: str
    body: bytes
    kind: str
    pixels: Callable[[bytes], np.ndarray]

    def ask(self) -> Answer:
        """One request on a connection of its own, as load balancers and `curl` send them."""
        began = time.perf_counter()
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            client.request("POST", self.path, self.body, {"Content-Type": self.kind})
            answer = client.getresponse()
            data = answer.read()
        finally:
            client.close()
        if answer.status != 200:
            raise RuntimeError(f"{self.path} answered {answer.status}: {data[:500]!r}")
        steps = re.findall(r"(\w+);dur=([0-9.]+)", answer.getheader("Server-Timing", ""))
        named = {name: float(milliseconds) / 1000 for name, milliseconds in steps}
        return Answer(data, time.perf_counter() - began, named)


def photograph() -> np.ndarray:
    """Smooth noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC))


def rows(rounds: int = ROUNDS) -> Sequence[Row]:
    """Milliseconds of one client, and requests a second of eight."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = build("nafnet", **NETWORKS["small"]).eval()
        model = save_model_folder(network, folder / "model", "nafnet", NETWORKS["small"])
        predictor = Predictor(load_model_folder(model))
        image = photograph()
        with _servers(folder, model, image) as servers:
            for who, server in servers.items():
                difference = np.abs(
                    server.pixels(server.ask().data) - predictor.derain(image).astype(int)
                )
                if difference.max() > 1:
                    raise RuntimeError(f"{who} answered with other pixels")
            return _measured(servers, lambda: predictor.derain(image), rounds)


def _measured(
    servers: Mapping[str, Server], forward: Callable[[], object], rounds: int
) -> list[Row]:
    alone: dict[str, list[float]] = {who: [] for who in (*servers, "forward")}
    together: dict[str, list[float]] = {who: [] for who in servers}
    steps: list[Answer] = []
    for _ in range(rounds):
        for _ in range(REQUESTS):
            alone["forward"].append(_seconds(forward))
        for who, server in servers.items():
            answers = _for_a_while(server.ask)
            alone[who] += [answer.seconds for answer in answers]
            steps += answers if who == "ours" else []
            with ThreadPoolExecutor(CLIENTS) as pool:
                began = time.perf_counter()
                list(pool.map(lambda _, it=server: it.ask(), range(CLIENTS)))
                together[who].append(CLIENTS / (time.perf_counter() - began))
    p50 = {who: 1000 * statistics.median(each) for who, each in alone.items()}
    p99 = {who: 1000 * float(np.quantile(each, 0.99)) for who, each in alone.items()}
    rate = {who: statistics.median(each) for who, each in together.items()}
    over = {who: p50[who] - p50["forward"] for who in servers}
    peers = [who for who in servers if not who.startswith("ours")]

    def one(name: str, unit: str, values: Mapping[str, float], **options: object) -> Row:
        others = {who: values[who] for who in peers}
        return row(name, unit, values["ours"], others, **options)  # type: ignore[arg-type]

    batched = row(
        f"{CLIENTS} clients, --batch 4", "req/s", rate["ours, --batch 4"], {"ours": rate["ours"]}
    )
    return [
        one("one client, p50", "ms", p50, limit=p50["forward"], more_is_better=False),
        one("one client, p99", "ms", p99, limit=p99["forward"], more_is_better=False),
        one("over the forward pass, p50", "ms", over, more_is_better=False),
        _step("HTTP and Ray Serve's handle, p50", steps, lambda it: it.way),
        _step("decoding, p50", steps, lambda it: it.steps["decode"]),
        _step("encoding, p50", steps, lambda it: it.steps["encode"]),
        one(f"{CLIENTS} clients", "req/s", rate),
        batched,
    ]


def _step(name: str, answers: Sequence[Answer], seconds: Callable[[Answer], float]) -> Row:
    spent = 1000 * statistics.median(map(seconds, answers))
    return row(name, "ms", spent, {}, more_is_better=False)


def _for_a_while(ask: Callable[[], Answer]) -> list[Answer]:
    answers: list[Answer] = []
    while len(answers) < REQUESTS and sum(answer.seconds for answer in answers) < SLOW_S:
        answers.append(ask())
    return answers


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextlib.contextmanager
def _servers(folder: Path, model: Path, image: np.ndarray) -> Iterator[dict[str, Server]]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    png = buffer.getvalue()
    packed = folder / "mlflow"
    mlflow.pyfunc.save_model(
        packed,
        loader_module="derain.inference.predictor",
        data_path=str(model),
        pip_requirements=[],
    )
    run = [sys.executable, "-m"]
    ours = [*run, "derain.cli", "serve", str(model), "--device", "cpu", "--port"]
    commands = {
        "ours": [*ours, str(PORTS["ours"])],
        "ours, --batch 4": [*ours, str(PORTS["ours, --batch 4"]), "--batch", "4"],
        "LitServe": [*run, "benchmarks._litserve", str(model), str(PORTS["LitServe"])],
        "mlflow": [
            *run, "mlflow", "models", "serve", "-m", str(packed), "--env-manager", "local",
            "--port", str(PORTS["mlflow"]), "--workers", "1",
        ],
    }  # fmt: skip
    based = json.dumps({"image": base64.b64encode(png).decode()}).encode()
    listed = json.dumps({"inputs": image[None].tolist()}).encode()
    servers = {
        who: Server(PORTS[who], "/v1/derain", png, "image/png", _decoded)
        for who in ("ours", "ours, --batch 4")
    } | {
        "LitServe": Server(
            PORTS["LitServe"],
            "/predict",
            based,
            "application/json",
            lambda data: _decoded(base64.b64decode(json.loads(data)["image"])),
        ),
        "mlflow": Server(
            PORTS["mlflow"],
            "/invocations",
            listed,
            "application/json",
            lambda data: np.array(json.loads(data)["predictions"])[0],
        ),
    }
    if not installed("litserve"):
        del commands["LitServe"], servers["LitServe"]
    with contextlib.ExitStack() as stack:
        for who, command in commands.items():
            stack.enter_context(_running(command, folder / f"{PORTS[who]}.log"))
        for who, server in servers.items():
            _wait(server, folder / f"{PORTS[who]}.log")
        yield servers


@contextlib.contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[None]:
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{log.parent}/mlflow.db",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # LitServe's own processes outlive it
        process.wait()


def _wait(server: Server, log: Path) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            server.ask()
            return
        except (OSError, http.client.HTTPException, RuntimeError):
            if time.monotonic() > end:
                raise RuntimeError(f"it does not answer: {log.read_text()[-2000:]}") from None
            time.sleep(1)


def _decoded(data: bytes) -> np.ndarray:
    return read_odd(data, "The answer").levels


if __name__ == "__main__":
    main(rows)
