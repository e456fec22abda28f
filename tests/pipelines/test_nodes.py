"""Machines of unequal size: what fits on one, what fits nowhere, and what is waited for."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from derain.config import Config
from derain.errors import UsageError
from derain.pipelines import nodes
from derain.pipelines.nodes import Node
from derain.pipelines.train.workers import check_resources, needs
from derain.tune.running.capacity import trials_at_once, with_cpu_threads

HEAD, GPUS = Node("head", cpus=128, gpus=0), Node("gpus", cpus=16, gpus=8)


def sweep(**values: Any) -> Config:
    tree = {
        "name": "unequal",
        "model": {"name": "prenet"},
        "train": {"steps": 1, "batch_size": 64, **values.pop("train", {})},
        "sweep": {"space": {"train.lr": {"grid": [1e-3]}}, **values},
    }
    return Config.model_validate(tree)


@pytest.fixture
def mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster whose many cores are on another machine than its GPUs."""
    monkeypatch.setattr(nodes, "nodes", lambda: [HEAD, GPUS])
    monkeypatch.setattr(nodes.cluster, "gpus", lambda: 8)
    monkeypatch.setattr(nodes.cluster, "cpus", lambda: 144)


@pytest.mark.usefixtures("mixed")
def test_threads_are_those_of_the_machine_with_the_gpus() -> None:
    planned = with_cpu_threads(sweep())
    assert (trials_at_once(planned), needs(planned)) == (8, (2, 1))
    assert sum(node.room(*needs(planned)) for node in (HEAD, GPUS)) == 8
    shared = with_cpu_threads(sweep(gpu_fraction=0.5))
    assert (trials_at_once(shared), needs(shared)) == (16, (1, 0.5))
    one = with_cpu_threads(sweep(concurrent=1))
    assert needs(one) == (16, 1)
    on_cores = with_cpu_threads(sweep(train={"device": "cpu"}, concurrent=9))
    assert needs(on_cores) == (16, 0)  # eight on the head, one beside the GPUs


@pytest.mark.usefixtures("ray_cluster", "mixed")
def test_what_fits_on_no_machine_is_refused_with_what_each_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # other machines may join, but no autoscaler is there
    monkeypatch.setattr(nodes, "may_grow", lambda: False)
    wide = sweep(train={"cpu_threads": 18})
    with pytest.raises(UsageError) as raised:
        check_resources(wide)
    for part in ("18 CPU cores and 1 GPUs on one machine", str(HEAD), str(GPUS)):
        assert part in str(raised.value)
    monkeypatch.setattr(nodes, "may_grow", lambda: True)
    check_resources(wide)
    check_resources(sweep(train={"num_workers": 20}))  # more machines may join


@pytest.mark.parametrize(
    ("needed", "room"),
    [((1, 0), 16), ((3, 0), 5), ((1, 1), 8), ((4, 1), 4), ((1, 0.3), 16), ((0, 0.1), 80)],
)
def test_room_of_a_machine(needed: tuple[float, float], room: int) -> None:
    assert GPUS.room(*needed) == room


@pytest.mark.soak
def test_three_raylets() -> None:
    """In a process of its own, as this one may be connected to another Ray."""
    script = Path(__file__).with_name("three_raylets.py")
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "waiting for a worker with 3 CPU and 1 GPU" in done.stderr
    assert "has 2 CPU cores and 1 GPUs" in done.stderr
