"""The whole stack is killed: the driver 20 times, and a node under a run.

The node is a second raylet in a network namespace of its own, so its address is another one (needs
root).
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from derain import checkpoint
from derain.ledger import LEDGER

DRIVER_KILLS = 20
BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def written_config(folder: Path, **train: object) -> Path:
    values = {"batch_size": 4, "crop_px": 16, "device": "cpu", "cpu_threads": 1, "ledger": True}
    tree = {
        "name": "run",
        "output_dir": str(folder / "runs"),
        "model": {"name": "prenet", "recursions": 2, "width": 4},
        "data": {"synthetic": {"train_pairs": 97, "eval_pairs": 2, "size_px": 48}},
        "loss": {"perceptual": "none"},
        "train": {**values, "checkpoint_every_steps": 20, "log_every_steps": 20, **train},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def driver(config: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{config.parent}/mlflow.db"}
    own |= {"DERAIN_CACHE_DIR": str(config.parent / "cache"), **environment}
    command = [str(BIN / "derainctl"), "train", str(config), "--json", *arguments]
    with (config.parent / "log").open("a") as log:
        return subprocess.Popen(
            command, cwd=config.parent, env={**os.environ, **own},
            stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip


def step_of(run: Path) -> int:
    found = sorted(run.glob("checkpoints/step-*"))
    return int(found[-1].name.removeprefix("step-")) if found else 0


def wait_for(condition, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_nothing_lost(run: Path, steps: int) -> None:
    lines = [json.loads(line) for line in (run / LEDGER).read_text().splitlines()]
    assert sorted({line["step"] for line in lines}) == list(range(steps))
    for epoch in range(lines[-1]["epoch"]):
        ids = [id_ for line in lines if line["epoch"] == epoch for id_ in line["ids"]]
        assert sorted(ids) == list(range(97))


def test_the_driver_is_killed_twenty_times(tmp_path: Path) -> None:
    steps, random = 20 * (DRIVER_KILLS + 2), np.random.default_rng(0)
    config, run = written_config(tmp_path, steps=steps), tmp_path / "runs" / "run"
    began = time.monotonic()
    for number in range(DRIVER_KILLS):
        before = step_of(run)
        process = driver(config, *(["--resume", "run"] if run.exists() else []))
        wait_for(lambda before=before: step_of(run) > before or (run / "result.json").exists())
        time.sleep(random.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (run / "result.json").exists(), f"done after {number} kills: more steps"
    last = driver(config, "--resume", "run")
    result = json.loads(last.communicate()[0])
    assert result["steps"] == steps
    assert_nothing_lost(run, steps)
    unbroken = written_config(tmp_path, steps=steps, ledger=False)
    alone = json.loads(driver(unbroken, "--set", "name=unbroken").communicate()[0])
    assert alone["weights_sha256"] == result["weights_sha256"]
    print(f"\n{DRIVER_KILLS} driver kills, {time.monotonic() - began:.0f} s")


@pytest.fixture
def second_address():
    """A network namespace with an address of its own, 10.77.0.2, beside our 10.77.0.1."""
    for line in (
        "ip netns add derain-soak", "ip link add derain0 type veth peer name derain1",
        "ip link set derain1 netns derain-soak", "ip addr add 10.77.0.1/24 dev derain0",
        "ip link set derain0 up", "ip netns exec derain-soak ip addr add 10.77.0.2/24 dev derain1",
        "ip netns exec derain-soak ip link set derain1 up",
        "ip netns exec derain-soak ip link set lo up",
    ):  # fmt: skip
        subprocess.run(line.split(), check=True)
    yield
    subprocess.run(["ip", "link", "del", "derain0"], check=True)
    subprocess.run(["ip", "netns", "del", "derain-soak"], check=True)


def ray_start(*arguments: str, interface: str, inside: tuple[str, ...] = ()) -> subprocess.Popen:
    """One node; gloo takes the address of the host's name, 127.0.0.1, unless it is told."""
    own = {**os.environ, "GLOO_SOCKET_IFNAME": interface}
    command = [*inside, str(BIN / "ray"), "start", "--block", "--disable-usage-stats", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env=own,
    )  # fmt: skip
    time.sleep(15)
    return process


def test_a_node_dies_under_the_run(tmp_path: Path, second_address: None) -> None:  # noqa: ARG001
    os.environ["RAY_AUTH_MODE"] = "token"  # said once, so that all of them agree
    address = "10.77.0.1:6399"
    head = ray_start("--head", "--node-ip-address=10.77.0.1", "--port=6399", "--num-cpus=1",
                     "--include-dashboard=false", interface="derain0")  # fmt: skip
    node = ray_start(f"--address={address}", "--node-ip-address=10.77.0.2", "--num-cpus=1",
                     interface="derain1",
                     inside=("ip", "netns", "exec", "derain-soak"))  # fmt: skip
    try:
        config = written_config(tmp_path, steps=400, num_workers=[1, 2])
        run = tmp_path / "runs" / "run"
        process = driver(config, RAY_ADDRESS=address)
        wait_for(lambda: step_of(run) >= 40)
        ranks = {json.loads(line)["rank"] for line in (run / LEDGER).read_text().splitlines()}
        os.killpg(node.pid, signal.SIGKILL)
        result = json.loads(process.communicate()[0])
    finally:
        for started in (node, head):
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
    assert ranks == {0, 1}
    assert result["steps"] == 400
    assert checkpoint.newest(run) is not None
    assert_nothing_lost(run, 400)
    print(f"\nnode killed, the run went on from step {result['resumed_from_step']} with one worker")
