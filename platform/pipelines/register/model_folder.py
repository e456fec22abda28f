"""A model folder, of imported weights for example -> a version, scored first."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from derain.config.data import DataConfig
from derain.data.prepared.manifest import open_prepared
from derain.errors import UsageError
from derain.inference.predictor import NETWORK_FILE, load_model_folder
from derain.models import fingerprint
from derain.models.cost import cost
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.register.card import card
from derain.pipelines.register.scored import combined, first_rainy
from derain.tracking import registry
from derain.tracking.registry import Registered
from derain.tracking.runs import RunLog

SIDES = ("metrics", "input")
"""Of the derained and of the rainy images."""


def register_folder(
    folder: Path, name: str, on: Sequence[str], protocol: str, *, trust: bool
) -> Registered:
    """Score a model folder and register it, with an MLflow run of its own."""
    if not on:
        raise UsageError(
            f"{folder}: a model folder has no metrics, which a version needs to be compared. Give "
            "a prepared dataset to score it on: --on PREPARED."
        )
    network = load_model_folder(folder, trust=trust)
    result = evaluate(str(folder), on, protocols=[protocol], trust=trust)
    metrics, rainy = (_mean([item[side] for item in result["datasets"]]) for side in SIDES)
    datasets = [open_prepared(each) for each in on]
    with RunLog(f"register {folder.name}", tags={"kind": "register"}) as run:
        run.params({"model_folder": str(folder.absolute()), "protocol": protocol})
        for dataset in datasets:
            run.dataset(
                dataset.sha256(), dataset.folder.name, str(dataset.folder),
                context="validation", pairs=len(dataset),
            )  # fmt: skip
        run.metrics(0, metrics)
        run.flush()
        tags = {
            "train_manifest_sha256": "",
            "config_sha256": "",
            "eval_manifest_sha256": ",".join(it["manifest_sha256"] for it in result["datasets"]),
            "weights_sha256": fingerprint(network),
            "protocol": result["datasets"][0]["by_protocol"][protocol]["identity"],
            **{f"input_{key}": repr(value) for key, value in rainy.items()},
            **{key: str(value) for key, value in asdict(cost(network)).items()},
        }
        measured = {key: repr(value) for key, value in metrics.items()}
        scored_on = {"validation": ", ".join(dataset.folder.name for dataset in datasets)}
        architecture = json.loads((folder / NETWORK_FILE).read_text(encoding="utf-8"))["name"]
        return registry.register(
            folder,
            name,
            run_id=run.run_id,
            scores=metrics,
            evaluation_sha256=combined(result),
            tags=tags,
            example=first_rainy(datasets[0], DataConfig()),
            card=card(name, architecture, {**tags, **measured}, scored_on),
        )


def _mean(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of several datasets, each counting the same, as in the result of a run."""
    return {name: fmean(item[name] for item in metrics) for name in metrics[0]}
