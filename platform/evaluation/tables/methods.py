"""The methods of an evaluation, as rows of tables need them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from derain.evaluation.tables.published_tables import PSNR, TRAINING, TRAINING_PAIRS, Metric

ENOUGH = 0.9
"""Share of Rain13K that a method must have seen, to be called trained on it: 5 % may validate."""
Item = Mapping[str, Any]
"""A dataset of a result of `evaluate`: `name`, `dataset`, `split`, `pictures`, `left_out`, and
`by_protocol`, which has `identity` (the protocol with its version), `metrics` and `input`."""


@dataclass(frozen=True)
class Method:
    """A model, or the results that another program wrote, with what was measured of it."""

    name: str
    datasets: Sequence[Item]
    trained_on: Sequence[Mapping[str, Any]] | None
    """`dataset`, `split` and, if known, `pairs` of its training data; None if nothing is known.
    `stated` is true for what was not recorded but stated by whoever scored it."""
    remarks: tuple[str, ...] = ()
    """Why nothing of it is comparable, such as results stored as JPEG."""

    @property
    def protocols(self) -> list[str]:
        """The protocols that it was measured under."""
        return [
            name for name, found in self._measured() if value_of(found["metrics"], PSNR) is not None
        ]

    @property
    def further_metrics(self) -> list[str]:
        """What else it was measured by, each with one value: niqe_live, lpips_alex, ..."""
        return [name for name, found in self._measured() if name in found["metrics"]]

    def _measured(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Everything that it was measured under or by, each once."""
        found = {name: it for item in self.datasets for name, it in item["by_protocol"].items()}
        return list(found.items())

    def identity(self, protocol: str) -> str:
        """A protocol with the version that its metrics were measured under."""
        found = (item["by_protocol"].get(protocol) for item in self.datasets)
        return next(each.get("identity", protocol) for each in found if each is not None)

    @property
    def states_training(self) -> bool:
        """Whether its training data was stated and not recorded."""
        return any(item.get("stated") for item in self.trained_on or ())

    def training_reason(self) -> str | None:
        """Why it is not comparable with methods that were trained on Rain13K; None if it is."""
        if self.trained_on is None:
            return "its training data is not known; the quoted methods were trained on Rain13K"
        places = {(it["dataset"], it["split"]) for it in self.trained_on}
        pairs = [it.get("pairs", TRAINING_PAIRS) for it in self.trained_on]
        if places == {TRAINING} and sum(pairs) >= ENOUGH * TRAINING_PAIRS:
            return None
        named = ", ".join(
            f"{it['dataset']}/{it['split']}"
            + (f" ({it['pairs']:,} pairs)" if "pairs" in it else "")
            for it in self.trained_on
        )
        return f"trained on {named}; the quoted methods were trained on Rain13K"


def methods_of(result: Mapping[str, Any]) -> list[Method]:
    """The model of a result of `evaluate`, if it has one, and the methods under `results`."""
    found = []
    if result.get("model") is not None:
        found.append(_method(result.get("name") or row_name(result["model"]), result))
    return found + [_method(item["name"], item) for item in result.get("results", ())]


def _method(name: str, described: Mapping[str, Any]) -> Method:
    remarks = tuple(described.get("remarks", ()))
    return Method(name, described["datasets"], described.get("trained_on"), remarks)


def row_name(model: str) -> str:
    """A model as its row is called.

    `net@champion` of models:/net@champion; of a checkpoint the name of its run, of RUN/last and
    RUN/best with that word; of other folders and files their own name.
    """
    if model.startswith(("models:/", "runs:/")):
        return model.partition(":/")[2]
    path = PurePath(model)
    if path.name in ("best", "last") and path.parent.name:
        return f"{path.parent.name}/{path.name}"
    return path.parent.parent.name if path.parent.name == "checkpoints" else path.name or model


def row_names(methods: Sequence[str]) -> list[str]:
    """Models and other methods as their rows are called: by their whole name where two would have
    one row name."""
    names = [row_name(method) for method in methods]
    return [
        name if names.count(name) == 1 else whole
        for name, whole in zip(names, methods, strict=True)
    ]


def value_of(metrics: Mapping[str, float], metric: Metric) -> float | None:
    """A metric among those of one protocol: `psnr_y` or `psnr_rgb`, for example."""
    names = [name for name in metrics if name.partition("_")[0] == metric.prefix]
    return metrics[names[0]] if names else None
