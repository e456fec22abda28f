"""Every verb as a job on two nodes with addresses of their own: undisturbed, and with the second
node's cable cut in the middle. The results are the same."""

import http.client
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks._small import NETWORK
from derain.inference.predictor import save_model_folder
from derain.models import build
from tests.folders import digests, noise_image
from tests.processes import wait_for
from tests.soak.stack import BIN, assert_nothing_lost, needs_root, step_of, tree_of
from tests.soak.two_nodes import HEAD, Job, TwoNodes, two_nodes

STEPS = 400
TASK = ("ray::MapBatches", "ray::_map_task", "ray::ReadFromItems")
RANK = ("RayTrainWorker",)
TRIAL = ("ResourceTrainable", "ray::Worker", "ray::_Inner")
SCORER = ("ray::MapWorker",)
REPLICA = ("ray::ServeReplica",)
PORT = 8000
OPTIONS = {key: value for key, value in NETWORK.items() if key != "name"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    needs_root("creating network namespaces")
    with two_nodes(tmp_path_factory.mktemp("nodes")) as started:
        yield started


@pytest.fixture
def cluster(running: TwoNodes) -> TwoNodes:
    """Both nodes, the second a new one if the test before has cut it off."""
    running.mend()
    return running


def on_both(job: Job) -> None:
    assert all(job.seen.values()), f"it ran on {job.seen}:\n{job.log}"


@pytest.fixture(scope="module")
def rain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered pairs, enough for some seconds of `prepare`."""
    out = tmp_path_factory.mktemp("rain") / "rain"
    subprocess.run(
        [BIN / "derainctl", "synthesize", out, "--count", "160", "--size-px", "256"], check=True
    )
    return out


def test_prepare(cluster: TwoNodes, rain: Path, tmp_path: Path) -> None:
    def command(name: str) -> tuple[str, ...]:
        size = ("--pairs-per-shard", "2", "--decode", "--json")
        return ("prepare", "paired", str(rain), str(tmp_path / name / "out"), *size)

    whole = cluster.submit(tmp_path / "whole", *command("whole"))
    assert cluster.watch(whole, TASK) == 0, whole.log
    on_both(whole)
    cut = cluster.submit(tmp_path / "cut", *command("cut"))
    out = tmp_path / "cut/out"
    code = cluster.watch(
        cut, TASK, cut_when=lambda: len(list(out.glob("*.tar"))) > 20 and bool(cut.seen[2])
    )
    assert code == 0, cut.log
    assert cut.out["manifest_sha256"] == whole.out["manifest_sha256"]
    assert digests(out) == digests(tmp_path / "whole/out")
    assert "Traceback" not in cut.log


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with random weights."""
    folder = tmp_path_factory.mktemp("model") / "net"
    torch.manual_seed(0)
    save_model_folder(build("fclip_unet", **OPTIONS), folder, "fclip_unet", OPTIONS)
    return folder


def write(folder: Path, **tree: Any) -> str:
    folder.mkdir()
    (folder / "config.yaml").write_text(
        yaml.safe_dump(tree_of(folder, steps=STEPS, **tree.pop("train", {})) | tree)
    )
    return "config.yaml"


def test_train(cluster: TwoNodes, tmp_path: Path) -> None:
    """One rank on each node; the run waits until a second node is there again."""
    both = {"train": {"num_workers": 2}}
    command = ("train", write(tmp_path / "whole", **both), "--json")
    whole = cluster.submit(tmp_path / "whole", *command)
    assert cluster.watch(whole, RANK) == 0, whole.log
    on_both(whole)
    write(tmp_path / "cut", **both)
    cut = cluster.submit(tmp_path / "cut", *command)
    run = tmp_path / "cut/runs/run"
    code = cluster.watch(
        cut,
        RANK,
        cut_when=lambda: step_of(run) >= 60,
        mend_when=lambda: "lost" in cut.seconds,
    )
    assert code == 0, cut.log
    on_both(cut)
    assert cut.out["weights_sha256"] == whole.out["weights_sha256"]
    assert cut.out["resumed_from_step"] > 0
    assert_nothing_lost(run, STEPS)
    assert "Traceback" not in cut.log


def test_sweep(cluster: TwoNodes, tmp_path: Path) -> None:
    """A trial on each node; that of the lost one is retried on the other."""
    rates = {"slow": 1e-4, "fast": 1e-3}
    space = {"sweep": {"concurrent": 2, "cohort": "off", "retries": 2}}
    space["sweep"]["space"] = {"train.lr": {"grid": rates}}
    command = ("sweep", write(tmp_path / "whole", **space), "--json")
    whole = cluster.submit(tmp_path / "whole", *command)
    assert cluster.watch(whole, TRIAL) == 0, whole.log
    on_both(whole)
    write(tmp_path / "cut", **space)
    cut = cluster.submit(tmp_path / "cut", *command)
    trials = [tmp_path / "cut/runs/run" / name for name in rates]
    code = cluster.watch(cut, TRIAL, cut_when=lambda: all(step_of(trial) >= 60 for trial in trials))
    assert code == 0, cut.log
    on_both(cut)
    keys = ("name", "status", "steps", "weights_sha256", "metrics")
    expected, found = (
        [{key: trial.get(key) for key in keys} for trial in job.out["trials"]]
        for job in (whole, cut)
    )
    assert found == expected
    assert "Traceback" not in cut.log


def test_evaluate(cluster: TwoNodes, rain: Path, model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    made = cluster.submit(tmp_path / "made", "prepare", "paired", str(rain), str(data))
    assert cluster.watch(made, TASK) == 0, made.log

    def command(name: str) -> tuple[str, ...]:
        out = ("--out", str(tmp_path / name / "out"))
        return ("evaluate", str(model), str(data), *out, "--workers", "2", "--json")

    whole = cluster.submit(tmp_path / "whole", *command("whole"))
    assert cluster.watch(whole, SCORER) == 0, whole.log
    on_both(whole)
    cut = cluster.submit(tmp_path / "cut", *command("cut"))
    parts = tmp_path / "cut/out/parts"
    code = cluster.watch(
        cut, SCORER, cut_when=lambda: bool(list(parts.rglob("*.parquet")) and cut.seen[2])
    )
    assert code == 0, cut.log
    on_both(cut)
    (expected,), (found,) = (job.out["datasets"] for job in (whole, cut))
    assert found["metrics"] == expected["metrics"]
    assert found["pictures"] == expected["pictures"] == 160
    assert "Traceback" not in cut.log


def test_serve(cluster: TwoNodes, model: Path, tmp_path: Path) -> None:
    """Two clients ask until after the loss: what the lost replica held is refused, no more."""
    image = tmp_path / "image.png"
    noise_image(0, width=64, height=64).save(image)
    body = image.read_bytes()
    words = ("serve", str(model), "--replicas", "2", "--host", HEAD, "--port", str(PORT))
    job = cluster.submit(tmp_path / "serve", *words, "--time-limit", "60")
    wait_for(lambda: _get("/readyz") == 200, 200, process=job.process)
    for node in job.seen:
        assert cluster.running(node, REPLICA), f"no replica on node {node}"
    expected = _ask(body)
    assert expected[0] == 200
    answers: list[tuple[float, float, int]] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            began = time.monotonic()
            status, data = _ask(body)
            assert status != 200 or data == expected[1]
            answers.append((began, time.monotonic(), status))
            time.sleep(0.05)

    clients = [threading.Thread(target=ask, daemon=True) for _ in range(2)]
    for client in clients:
        client.start()
    time.sleep(10)
    cluster.nodes("cut", "2")
    at = time.monotonic()
    lost = wait_for(lambda: cluster.alive() == {HEAD}, 200)
    time.sleep(60)
    ended.set()
    for client in clients:
        client.join(100)
    refused = [(b - at, e - at, status) for b, e, status in answers if status != 200]
    longest = max(end - began for began, end, _ in answers)
    print(f"\nserve: {len(answers)} answers, lost after {lost:.0f} s, longest {longest:.0f} s")
    print(f"refused (asked and answered, s after the cut): {refused}")
    assert {status for began, _, status in answers if began < at - 5} == {200}
    assert {status for began, _, status in answers if began > at + lost + 5} == {200}
    cluster.stop(job)
    assert job.process.wait(120) == 143


def _ask(body: bytes) -> tuple[int, bytes]:
    return _request("POST", "/v1/derain", body)


def _get(path: str) -> int:
    try:
        return _request("GET", path)[0]
    except OSError:
        return 0


def _request(method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    client = http.client.HTTPConnection(HEAD, PORT, timeout=120)
    try:
        client.request(method, path, body)
        answer = client.getresponse()
        return answer.status, answer.read()
    finally:
        client.close()
