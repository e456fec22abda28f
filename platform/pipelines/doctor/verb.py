"""`doctor`: all checks, each under its time limit."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from derain.config import Config
from derain.pipelines.doctor import machine, nodes, stores
from derain.pipelines.doctor.check import Check, within
from derain.pipelines.train.checks import caught, check_before_start
from derain.storage.output_paths import check_folder
from derain.training.process.device import pick_device

Looks = list[tuple[float, str, Callable[[], list[Check]]]]


def doctor(config: Config | None = None) -> dict[str, Any]:
    """What this machine and, if RAY_ADDRESS is set, its cluster have and lack.

    With a config its output folder, device (without a cluster), data and weights are checked too,
    as `train` does it before it starts. Returns what `derainctl doctor --json` prints.
    """
    looks = _of_machine(config)
    if config is not None:
        looks += _of_config(config)
    if os.environ.get("RAY_ADDRESS"):
        folder = Path(config.output_dir if config else "runs").absolute()
        looks.append((150.0, "ray", partial(nodes.checks, {"output_dir on the nodes": folder})))
    found = [check for limit, name, look in looks for check in within(limit, name, look)]
    return {"checks": [check.__dict__ for check in found]}


def _of_machine(config: Config | None) -> Looks:
    cache = config.data.cache_dir if config else None
    return [
        (10.0, "python", machine.python),
        (90.0, "torch", machine.torch_and_gpus),
        (10.0, str(machine.SHM), machine.shared_memory),
        (20.0, "cache", partial(machine.cache_disk, cache)),
        (10.0, "clock", machine.clock),
        (60.0, "mlflow", stores.mlflow_store),
    ]


def _of_config(config: Config) -> Looks:
    data = config.data
    paths = [*data.train, *data.validation, *data.test]
    folder = partial(check_folder, Path(config.output_dir))
    looks: Looks = [
        (60.0, "object store", partial(stores.object_stores, paths)),
        (10.0, "output_dir", partial(_passes, "output_dir", folder)),
    ]
    if not os.environ.get("RAY_ADDRESS"):  # on a cluster the workers' machines have the device
        device = partial(pick_device, config.train)
        looks.append((90.0, "device", partial(_passes, "device", device)))
    return [
        *looks,
        (300.0, "config", partial(_passes, "config", partial(check_before_start, [config]))),
    ]


def _passes(name: str, check: Callable[[], object]) -> list[Check]:
    """A check that the commands make themselves; its message says what to do."""
    return list(_told(name, check)) or [Check(name, "ok", "as a run needs it")]


def _told(name: str, check: Callable[[], object]) -> Iterator[Check]:
    for error in caught(check):
        for line in str(error).splitlines():
            yield Check(name, "fail", line, "Change what the message names.")
