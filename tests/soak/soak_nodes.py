"""Nodes join, die and are drained while a run trains on one or two workers.

The second node is a real raylet with another address, in its own network namespace (needs root).
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from derain.training import checkpoint
from tests.processes import kill_group, wait_for
from tests.soak.stack import (
    BIN,
    assert_nothing_lost,
    ledger,
    needs_root,
    start_train,
    step_of,
    stop,
    write_config,
)

HERE, THERE, SPACE = "10.77.0.1", "10.77.0.2", "derain-soak"
ADDRESS = f"{HERE}:6399"
INSIDE = ("ip", "netns", "exec", SPACE)
TOKEN = {"RAY_AUTH_MODE": "token"}  # the same for the head, the nodes and the driver
NODES = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
print(json.dumps({n["NodeManagerAddress"]: n["NodeID"] for n in ray.nodes() if n["Alive"]}))
"""
GRACE_S = 30


@pytest.fixture(scope="module")
def head() -> Iterator[None]:
    """A Ray head with one core, and a network namespace with an address for a second node."""
    needs_root("creating a network namespace")
    for line in (
        f"ip netns add {SPACE}", "ip link add derain0 type veth peer name derain1",
        f"ip link set derain1 netns {SPACE}", f"ip addr add {HERE}/24 dev derain0",
        "ip link set derain0 up", f"ip netns exec {SPACE} ip addr add {THERE}/24 dev derain1",
        f"ip netns exec {SPACE} ip link set derain1 up",
        f"ip netns exec {SPACE} ip link set lo up",
    ):  # fmt: skip
        subprocess.run(line.split(), check=True)
    try:
        started = ("--head", f"--node-ip-address={HERE}", "--port=6399")
        with raylet(*started, "--include-dashboard=false", interface="derain0"):
            wait_for(lambda: HERE in nodes())
            yield
    finally:
        subprocess.run(["ip", "link", "del", "derain0"], check=True)
        subprocess.run(["ip", "netns", "del", SPACE], check=True)


@contextlib.contextmanager
def raylet(
    *arguments: str, interface: str, inside: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """One node. Without GLOO_SOCKET_IFNAME gloo would use the host name's address, 127.0.0.1."""
    command = [*inside, str(BIN / "ray"), "start", "--block", "--disable-usage-stats"]
    process = subprocess.Popen(
        [*command, "--num-cpus=1", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, **TOKEN, "GLOO_SOCKET_IFNAME": interface},
    )  # fmt: skip
    try:
        yield process
    finally:
        kill_group(process)


@contextlib.contextmanager
def second_node() -> Iterator[subprocess.Popen[bytes]]:
    """A raylet with one core, at the second address."""
    wait_for(lambda: THERE not in nodes())
    arguments = (f"--address={ADDRESS}", f"--node-ip-address={THERE}")
    with raylet(*arguments, interface="derain1", inside=INSIDE) as process:
        wait_for(lambda: THERE in nodes())
        yield process


def nodes() -> dict[str, str]:
    """Address and ID of the nodes that are alive; empty while the head starts."""
    command = [sys.executable, "-c", NODES, ADDRESS]
    done = subprocess.run(command, env={**os.environ, **TOKEN}, capture_output=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {}


def workers(run: Path) -> int:
    """How many workers took the last step but one."""
    lines = ledger(run, last=6)
    return len({line["rank"] for line in lines if line["step"] == lines[-1]["step"] - 1})


@pytest.mark.usefixtures("head")
def test_a_node_joins_and_dies(tmp_path: Path) -> None:
    config = write_config(tmp_path, steps=10**6, num_workers=[1, 2])
    run = tmp_path / "runs" / "run"
    process = start_train(config, RAY_ADDRESS=ADDRESS, **TOKEN)
    wait_for(lambda: step_of(run) >= 40)
    assert workers(run) == 1
    with second_node() as node:
        grown = wait_for(lambda: workers(run) == 2)
        at = step_of(run)
        wait_for(lambda: step_of(run) >= at + 40)
        kill_group(node)
        shrunk = wait_for(lambda: workers(run) == 1)
    at = step_of(run)
    wait_for(lambda: step_of(run) >= at + 40)
    steps = stop(process, run)
    assert_nothing_lost(run, steps)
    print(f"\ntwo workers {grown:.0f} s after the node joined, one {shrunk:.0f} s after it died; ")
    print(f"{steps} steps, each once")


@pytest.mark.usefixtures("head")
def test_a_node_is_drained(tmp_path: Path) -> None:
    never = {"max_failures": 0, "checkpoint_every_steps": 10**6}  # a preemption is not a failure
    config = write_config(tmp_path, steps=10**6, num_workers=[1, 2], **never)
    run = tmp_path / "runs" / "run"
    with second_node() as node:
        process = start_train(config, RAY_ADDRESS=ADDRESS, **TOKEN)
        wait_for(lambda: workers(run) == 2)
        drain(nodes()[THERE])
        saved = wait_for(lambda: step_of(run) > 0)
        assert saved < GRACE_S
        at = checkpoint.newest(run)
        assert at is not None
        wait_for(lambda: workers(run) == 1)
        kill_group(node)
    steps = at.state.step + 100
    wait_for(lambda: ledger(run, last=1)[-1]["step"] >= steps)
    assert_nothing_lost(run, stop(process, run))
    print(
        f"\ndrained: saved after {saved:.0f} s at step {at.state.step}, continued with one worker"
    )


def drain(node: str) -> None:
    """Announce to Ray that a node will be taken away, as a cloud does before a preemption."""
    subprocess.run(
        [BIN / "ray", "drain-node", f"--address={ADDRESS}", f"--node-id={node}",
         "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot",
         f"--deadline-remaining-seconds={GRACE_S}"],
        env={**os.environ, **TOKEN}, check=True,
    )  # fmt: skip
