"""Three raylets of unequal size, on which a run or a sweep is trained twice: undisturbed, and with
one of the raylets killed.

`python -m tests.soak.raylets train WORKERS FOLDER`, or `sweep share FOLDER`, or `sweep workers
FOLDER`; prints one JSON object. The GPUs are Ray's logical ones: it reserves them and sets
CUDA_VISIBLE_DEVICES. Torch has none, so that `device: auto` trains on the CPU, and gloo takes the
place of NCCL.
"""

import dataclasses
import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from derain.cluster import PATIENCE
from derain.config import Config
from derain.pipelines import nodes
from derain.pipelines.train.verb import train
from derain.training import checkpoint
from derain.tune.sweep import sweep
from tests.processes import children, command_line, wait_for
from tests.soak.stack import tree_of

SEEN = "DERAIN_SOAK_SEEN"
"""Names the folder for what the processes see."""
HEAD, LARGE, SMALL = (1, 0), (4, 3), (2, 2)
"""CPU cores and GPUs."""
KILL_AFTER = 20
"""Steps of the run, or of a trial, before a raylet is killed."""
TRAINING = ("RayTrainWorker", "ResourceTrainable")
"""In the names of processes that train."""
PATIENCE_S = 900
"""For what takes one minute on a machine that does nothing else."""
RATES = {f"rate-{number}": 1e-4 * number for number in range(1, 7)}
SWEEPS = {
    "share": {"sweep": {"gpu_fraction": 0.5, "concurrent": 4, "space": RATES}},
    "workers": {"sweep": {"concurrent": 2, "space": dict(list(RATES.items())[:3])}},
}
"""Several trials on a GPU, and several GPUs for a trial."""


def gloo_in_place_of_nccl() -> None:
    """In every process that Ray starts; what each process that trains sees goes to a file."""
    _after_import("ray.train.torch.config", _choose_gloo)
    _after_import("derain.pipelines.train.run", _note_what_is_seen)


def _choose_gloo(torch_config: Any) -> None:
    backend = torch_config._TorchBackend
    start = backend.on_start

    def on_start(self: Any, group: Any, config: Any) -> None:
        start(self, group, dataclasses.replace(config, backend="gloo"))

    backend.on_start = on_start


def _note_what_is_seen(run: Any) -> None:
    choose = run.pick_device

    def pick_device(train: Any) -> Any:
        place = {"node": ray.get_runtime_context().get_node_id(), "time": time.time()}
        place["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES")
        (Path(os.environ[SEEN]) / f"{os.getpid()}-{time.monotonic_ns()}.json").write_text(
            json.dumps(place)
        )
        return choose(train)

    run.pick_device = pick_device


def _after_import(name: str, patch: Callable[[Any], None]) -> None:
    """Call `patch` with a module once it is imported; importing it now would cost every process
    seconds."""
    if name in sys.modules:
        patch(sys.modules[name])
        return

    class Finder:
        def find_spec(self, wanted: str, *_: object) -> Any:
            if wanted != name:
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            load = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (load(module), patch(module))
            return spec

    sys.meta_path.insert(0, Finder())


class Raylets:
    """The cluster, to which this process is connected as the driver."""

    def __init__(self, seen: Path) -> None:
        seen.mkdir()
        os.environ.update({**PATIENCE, SEEN: str(seen)})
        self._cluster = _started()
        os.environ["RAY_ADDRESS"] = self._cluster.address
        ray.init(
            self._cluster.address, configure_logging=False, log_to_driver=False,
            runtime_env={"worker_process_setup_hook": gloo_in_place_of_nccl},
        )  # fmt: skip

    def close(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()

    def kill_one(self, gpus: int) -> dict[str, Any]:
        """SIGKILL for the raylet with most of the training, never for the driver's own.

        If the others have fewer than `gpus` GPUs then, a machine of its size joins ten seconds
        later.
        """
        victim = max(self._cluster.worker_nodes, key=lambda node: len(_training(node)))
        died = {"size": victim.size, "processes": len(_training(victim)), "replaced": False}
        assert died["processes"], "no other raylet than the head trains"
        left = sum(node.gpus for node in nodes.nodes()) - victim.size[1]
        self._cluster.remove_node(victim, allow_graceful=False)  # Ray may list it for a while
        if left < gpus:
            time.sleep(10)
            # With it, Ray sets a signal handler, which is refused outside of the main thread.
            self._cluster._shutdown_at_exit = False
            _add(self._cluster, victim.size)
            died["replaced"] = True
        return died


def _started(tries: int = 5) -> Cluster:
    """Ray gives a raylet half a minute to start, which is too short on a loaded machine."""
    for left in reversed(range(tries)):
        cluster = Cluster()
        try:
            for size in (HEAD, LARGE, SMALL):
                _add(cluster, size)
            return cluster
        except Exception:  # Ray raises plain ones
            cluster.shutdown()
            if not left:
                raise
    raise AssertionError


def _add(cluster: Cluster, size: tuple[int, int]) -> None:
    node = cluster.add_node(num_cpus=size[0], num_gpus=size[1], include_dashboard=False)
    node.size = size


def _training(node: Any) -> list[int]:
    (raylet,) = node.all_processes["raylet"]
    found = children(raylet.process.pid)
    return [pid for pid in found if any(name in command_line(pid) for name in TRAINING)]


def disturbed(
    raylets: Raylets, gpus: int, folders: list[Path], work: Callable[[], dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Do the work, and kill a raylet once `folders` have taken KILL_AFTER steps; returns the result
    and how it went."""
    told: dict[str, Any] = {}

    def disturb() -> None:
        wait_for(
            lambda: sum(_steps(folder) >= KILL_AFTER for folder in folders) > len(folders) / 3,
            PATIENCE_S,
        )
        before = {folder: _steps(folder) for folder in folders}
        told.update(raylets.kill_one(gpus))
        killed = time.monotonic()
        wait_for(
            lambda: all(_has_gone_on(folder, at) for folder, at in before.items() if at), PATIENCE_S
        )
        told["all_go_on_after_s"] = round(time.monotonic() - killed)

    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()
    result = work()
    thread.join(30)
    return result, told


def _steps(folder: Path) -> int:
    return max(checkpoint.steps(folder), default=0)


def _has_gone_on(folder: Path, step: int) -> bool:
    return _steps(folder) > step or (folder / "result.json").is_file()


def config_of(folder: Path, name: str, **values: Any) -> Config:
    """The small run of the other soak tests, under `device: auto`."""
    tree = tree_of(folder, steps=200, checkpoint_every_steps=10, device="auto")
    tree |= {"name": name}
    if "sweep" in values:
        space = values["sweep"]["space"]
        tree["sweep"] = {**values["sweep"], "space": {"train.lr": {"grid": space}}, "cohort": "off"}
    tree["train"] |= values.get("train", {})
    return Config.model_validate(tree)


def run_twice(folder: Path, raylets: Raylets, workers: int) -> dict[str, Any]:
    """A run on several workers: weights of both, and how it went."""
    whole, killed = (
        config_of(folder, name, train={"num_workers": workers}) for name in ("whole", "killed")
    )
    expected = train(whole)
    found, told = disturbed(raylets, workers, [killed.folder], lambda: train(killed))
    keys = ("steps", "weights_sha256", "metrics")
    told["resumed_from_step"] = found["resumed_from_step"]
    return {"told": told, "pairs": [[{k: it[k] for k in keys} for it in (expected, found)]]}


def sweep_twice(folder: Path, raylets: Raylets, kind: str) -> dict[str, Any]:
    """A sweep: results of its trials in both, and how it went."""
    train = {"num_workers": 2} if kind == "workers" else {}
    whole, killed = (
        config_of(folder, name, train=train, **SWEEPS[kind]) for name in ("whole", "killed")
    )
    expected = sweep(whole)
    folders = [killed.folder / name for name in SWEEPS[kind]["sweep"]["space"]]
    found, told = disturbed(raylets, 1, folders, lambda: sweep(killed))
    keys = ("name", "status", "steps", "weights_sha256", "metrics")
    pairs = zip(expected["trials"], found["trials"], strict=True)
    return {
        "told": told,
        "pairs": [[{k: it.get(k) for k in keys} for it in pair] for pair in pairs],
    }


def main(what: str, which: str, place: str) -> None:
    folder = Path(place)
    raylets = Raylets(folder / "seen")
    try:
        if what == "train":
            done = run_twice(folder, raylets, int(which))
        else:
            done = sweep_twice(folder, raylets, which)
    finally:
        raylets.close()
    seen = [json.loads(path.read_text()) for path in sorted((folder / "seen").iterdir())]
    print(json.dumps({**done, "seen": seen}))


if __name__ == "__main__":
    main(*sys.argv[1:])
