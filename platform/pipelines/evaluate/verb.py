"""`evaluate`: metrics of models on prepared datasets, per image, and those of the rainy input."""

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from derain.data.prepared.manifest import Prepared, open_prepared
from derain.data.prepared.naming import distinct_names
from derain.errors import DataError, DerainError, UsageError
from derain.evaluation.lpips import Lpips, LpipsFiles
from derain.evaluation.own_metric import check_metric
from derain.evaluation.tables.files import write_tables
from derain.evaluation.tables.methods import row_names
from derain.pipelines.evaluate.detectors import DownstreamSpec, load_downstream
from derain.pipelines.evaluate.gallery import write_evaluation_gallery
from derain.pipelines.evaluate.measures import has_clean, identity_of, split_names
from derain.pipelines.evaluate.methods import Method, ModelMethod
from derain.pipelines.evaluate.record import record
from derain.pipelines.evaluate.report import images_of, write_report
from derain.pipelines.evaluate.results_method import ResultsMethod
from derain.pipelines.evaluate.summary import summary
from derain.pipelines.evaluate.training_data import trained_on
from derain.pipelines.evaluate.work.parts import Parts, write_table
from derain.pipelines.evaluate.work.records import Record, row_of
from derain.pipelines.evaluate.work.run import Cost, Work, score
from derain.pipelines.evaluate.work.scorer import Task
from derain.pipelines.progress import progress
from derain.storage.atomic import write_text
from derain.storage.locks import locked
from derain.storage.output_paths import check_file, check_folder

log = logging.getLogger(__name__)

IMAGES = "images.parquet"
RESULT = "evaluation.json"


def evaluate(
    models: str | Sequence[str],
    prepared: Sequence[str],
    *,
    results: Mapping[str, Path] | None = None,
    stated: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    protocols: Sequence[str] = ("rain13k",),
    report: str | Path | None = None,
    tables: str | Path | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    gallery: str | Path | None = None,
    downstream: DownstreamSpec | None = None,
    lpips: LpipsFiles | None = None,
    metrics: Sequence[str] = (),
    track: bool = False,
    device: str = "auto",
    trust: bool = False,
    stride: int | None = None,
) -> dict[str, Any]:
    """Score models on prepared datasets; returns what `derainctl evaluate --json` prints.

    The result has the metrics of the first model; further ones are listed under `results`, each
    like the first. So are `results`, folders of images that other programs wrote, by the names of
    their methods; with them `models` may be empty, and `model` is None. `stated` is what methods
    were trained on where that was not recorded, by their names in tables.

    Each model runs once for all `protocols`; `metrics` are those of the first. `report` is a
    Markdown file to write, with a folder of the best and the worst images of each dataset under the
    first protocol. `tables` is a folder for the published tables with our rows. `out` is a folder
    for `images.parquet` and `evaluation.json`; a second call with it scores only what the first has
    not. With one of `workers` images are scored in this process, with more on Ray; None takes as
    many as pay off. `gallery` is an HTML file to write. With `downstream` each dataset has the
    agreement of what a detector or segmenter finds, see `evaluation.downstream`; with `lpips` it
    has LPIPS. `metrics` are classes of the user's, `module:Name`, see `plugins.protocols`; their
    values are under `by_protocol`. With `track` all of this is recorded as an MLflow run, and
    `run_id` is its id. `device`, `trust` and `stride` are those of `derain.load`.

    A dataset without clean images is measured by NIQE and BRISQUE.

    An image that cannot be scored, or a dataset that cannot be read, is listed under `left_out`,
    and the others are scored. Raises DataError, before anything is scored, for a path that is not a
    prepared dataset of pairs; DerainError if no image could be scored.
    """
    full, no_reference = split_names(protocols)
    images = images_of(Path(report)) if report else None
    _check_places(files=(report, gallery), folders=(out, tables, images))
    datasets = _open_all(prepared)
    others = [ResultsMethod(name, path, datasets) for name, path in (results or {}).items()]
    stated = stated or {}
    named = [models] if isinstance(models, str) else models
    names = _distinct([*named, *(other.name for other in others)])
    _check_stated(stated, names)
    networks = [ModelMethod(name, device, trust=trust, stride=stride) for name in named]
    methods: list[Method] = [*networks, *others]
    if downstream:
        load_downstream(downstream, "cpu")  # before anything is scored: is it one?
    if lpips:
        Lpips(lpips.backbone, lpips.heads)
    for metric in metrics:
        check_metric(metric)
    task = Task(tuple(methods), datasets, full, no_reference, downstream, lpips, tuple(metrics))
    cost = Cost()
    with _alone(Path(out) if out else None) as folder:
        records = _score_all(task, folder, workers, device, cost)
        result = {
            "protocols": list(protocols),
            **_described(task, names, records, stated),
            "tables": [],
            "cost": {**asdict(cost), "images_per_s": cost.images_per_s},
            "out": str(folder.absolute()) if folder else None,
            "report": str(Path(report).absolute()) if report else None,
            "gallery": str(Path(gallery).absolute()) if gallery else None,
            "run_id": None,
        }
        if folder:
            _write(folder, task, records, result)
    if tables:
        result["tables"] = [str(path.absolute()) for path in write_tables(result, tables)]
    if gallery:
        write_evaluation_gallery(Path(gallery).absolute(), task, names, records)
    if report:
        derain = networks[0].derain if networks else None
        write_report(Path(report).absolute(), result, derain, datasets)
    if track:
        result["run_id"] = record(result, datasets)
    return result


def _check_places(files: Iterable[str | Path | None], folders: Iterable[str | Path | None]) -> None:
    """Raise an error if something cannot be written where it was asked for."""
    for file in files:
        if file:
            check_file(Path(file))
    for folder in folders:
        if folder:
            check_folder(Path(folder))


def _described(
    task: Task,
    names: Sequence[str],
    records: Mapping[Work, Sequence[Record]],
    stated: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """The metrics of the first model, and under `results` those of all other methods."""
    found: dict[str, Any] = {"model": None, "datasets": [], "left_out": [], "trained_on": None}
    others: list[dict[str, Any]] = []
    for number, (name, method) in enumerate(zip(names, task.methods, strict=True)):
        item: dict[str, Any] = {**_summaries(task, number, records), "trained_on": stated.get(name)}
        if isinstance(method, ResultsMethod):
            others.append({**method.described(), **item})
            continue
        item |= {"model": method.name, "name": name}
        item["trained_on"] = trained_on(method.name) or item["trained_on"]
        if number:
            others.append(item)
        else:
            found |= item
    return {**found, "results": others}


def _distinct(methods: Sequence[str]) -> list[str]:
    """The names of the methods in tables. Raises UsageError for a method that is given twice."""
    names = row_names(methods)
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"{name}: two methods have this name. Give each once, or another name."
            )
    return names


def _check_stated(stated: Iterable[str], names: Sequence[str]) -> None:
    """Raise UsageError for a name of --trained-on that no method has."""
    for name in stated:
        if name not in names:
            raise UsageError(f"--trained-on {name}=...: the methods are {', '.join(names)}.")


@contextlib.contextmanager
def _alone(out: Path | None) -> Iterator[Path | None]:
    """Hold the lock of the folder, so that two calls do not score the same images."""
    if out is None:
        yield None
        return
    waiting = partial(log.info, "evaluate: waiting for another evaluation that uses %s", out)
    with locked(out / ".lock", on_wait=waiting):
        yield out


def _score_all(
    task: Task, out: Path | None, workers: int | None, device: str, cost: Cost
) -> dict[Work, list[Record]]:
    """The records of all images, those that an earlier call has kept in `out` included."""
    works = [(number, name) for number in range(len(task.methods)) for name in task.datasets]
    parts = {work: Parts(out, _identity(task, work, device)) for work in works} if out else {}
    found = {work: parts[work].read() if out else {} for work in works}
    missing = {
        (method, name): [at for at in range(len(task.datasets[name])) if at not in kept]
        for (method, name), kept in found.items()
    }
    kept, total = sum(map(len, found.values())), sum(map(len, missing.values()))
    if kept:
        log.info("evaluate: %d images were scored before, %d are missing", kept, total)
    with contextlib.ExitStack() as stack:
        for part in parts.values():
            stack.callback(part.write)
        advance = stack.enter_context(progress(total, "evaluate"))
        for work, record in score(task, missing, workers, device, cost):
            found[work][record.number] = record
            if out:
                parts[work].add(record)
            advance()
    return {work: list(records.values()) for work, records in found.items()}


def _identity(task: Task, work: Work, device: str) -> dict[str, Any]:
    """What the metrics of a method on a dataset depend on."""
    method, name = work
    return {
        "method": task.methods[method].identity(name),
        "manifest_sha256": task.datasets[name].sha256(),
        "protocols": [identity_of(each) for each in task.names_for(name)],
        "downstream": task.downstream.identity() if task.downstream else None,
        **({"lpips": task.lpips.identity()} if task.lpips else {}),
        "device": [device, task.methods[method].device],
        "versions": {"derain-platform": version("derain-platform"), "torch": torch.__version__},
    }


def _summaries(
    task: Task, method: int, records: Mapping[Work, Sequence[Record]]
) -> dict[str, list[dict[str, Any]]]:
    """`datasets` with their metrics, and `left_out`: dataset, key (or None) and reason."""
    scored: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for name, dataset in task.datasets.items():
        try:
            item = summary(name, dataset, records[method, name], task.names_for(name))
        except DerainError as error:
            if len(task.datasets) == 1:
                raise
            left_out.append({"dataset": name, "key": None, "reason": str(error)})
            continue
        left_out += [{"dataset": name, **image} for image in item["left_out"]]
        scored.append(item)
    if not scored:
        reasons = "\n".join(item["reason"] for item in left_out)
        raise DerainError(f"No dataset could be scored.\n{reasons}")
    return {"datasets": scored, "left_out": left_out}


def _write(
    out: Path, task: Task, records: Mapping[Work, Sequence[Record]], result: Mapping[str, Any]
) -> None:
    """Write every image's metrics as a table, in the order of methods and datasets, and the result
    as JSON."""
    rows = [
        row_of(
            record,
            model=task.methods[method].name,
            dataset=name,
            manifest_sha256=task.datasets[name].sha256(),
        )
        for (method, name), items in records.items()
        for record in sorted(items, key=lambda record: record.number)
    ]
    write_table(out / IMAGES, rows)
    write_text(out / RESULT, json.dumps(result, indent=2) + "\n", durable=False)


def _open_all(folders: Sequence[str]) -> dict[str, Prepared]:
    """The datasets by distinct names. Raises DataError that names every one that cannot be used."""
    opened, problems = {}, []
    for name, folder in zip(distinct_names(folders), folders, strict=True):
        try:
            opened[name] = open_prepared(folder)
            has_clean(opened[name])
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return opened
