"""The newest metrics of runs for Prometheus, through what Ray exports on each node."""

import re
from collections.abc import Mapping

import ray
from ray.util.metrics import Gauge

from derain.config import Config

PREFIX = "derain_"
"""Ray puts `ray_` before it."""
TAGS = ("run", "folder")


class Gauges:
    """A gauge for each metric of a run; each process that trains has its own.

    They keep their last value until the process ends, which a sweep keeps for other trials.
    """

    def __init__(self, config: Config) -> None:
        self._tags = {"run": config.name, "folder": str(config.folder)}
        self._gauges: dict[str, Gauge] = {}

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step; nothing without a connected Ray."""
        if not ray.is_initialized():
            return
        for name, value in {"step": step, **metrics}.items():
            if name not in self._gauges:
                known = PREFIX + re.sub(r"\W", "_", name)
                about = f"`{name}` of a run's newest logged step"
                self._gauges[name] = Gauge(known, description=about, tag_keys=TAGS)
            self._gauges[name].set(value, tags=self._tags)
