"""An evaluation as an MLflow run of its own: its metrics, datasets and files."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from derain.data.prepared.manifest import Prepared
from derain.evaluation.tables.methods import methods_of
from derain.pipelines.evaluate.report import images_of
from derain.tracking.runs import RunLog


def record(result: Mapping[str, Any], datasets: Mapping[str, Prepared]) -> str:
    """Write the run and return its id.

    A metric is called METHOD/DATASET/PROTOCOL/METRIC, or without METHOD if there is only one. The
    artifacts are the result itself, and the report, tables and gallery that were written.
    """
    names = [method.name for method in methods_of(result)]
    with RunLog(f"evaluation of {' and '.join(names)}", tags={"kind": "evaluation"}) as run:
        run.params({"methods": names, "protocols": result["protocols"]})
        for name, dataset in datasets.items():
            run.dataset(
                dataset.sha256(), name, str(dataset.folder), context="test", pairs=len(dataset)
            )
        run.metrics(0, dict(_metrics(result)))
        run.text("evaluation.json", json.dumps(result, indent=2))
        for file in filter(None, (result["report"], result["gallery"], *result["tables"])):
            run.file(file)
        if result["report"] and images_of(Path(result["report"])).is_dir():
            images = images_of(Path(result["report"]))
            run.folder(images, images.name)
        return run.run_id


def _metrics(result: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    methods = methods_of(result)
    for method in methods:
        prefix = f"{method.name}/" if len(methods) > 1 else ""
        for item in method.datasets:
            for protocol, found in item["by_protocol"].items():
                for metric, value in found["metrics"].items():
                    yield f"{prefix}{item['name']}/{protocol}/{metric}", value
