"""One run in one process: trained, scored, and recorded in MLflow, alone or in a cohort."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from derain.config import Config
from derain.data.images.decode import encode_png
from derain.data.loading.cache_builder import cores
from derain.data.loading.loader import open_all, open_loader
from derain.data.loading.prefetch import feed
from derain.data.prepared.manifest import open_prepared
from derain.evaluation.gallery import gallery
from derain.evaluation.scoring import DatasetScores, overall, score_dataset
from derain.inference.predictor import Predictor
from derain.pipelines.train.progress import METRICS_FILE, rewind_metrics, write_metrics
from derain.pipelines.train.validation import Validation
from derain.storage.atomic import write_text
from derain.tracking.runs import RunLog
from derain.training import checkpoint
from derain.training.cohort import Cohort, Shared
from derain.training.factory import build_network, loss_of, restore_network, start_from
from derain.training.ledger import LEDGER
from derain.training.loop import Loop, Outcome, Report, Run, follow
from derain.training.process.device import pick_device
from derain.training.process.distributed import Rank
from derain.training.process.interrupt import Interrupt
from derain.training.routes import routes_of
from derain.training.trainer import Trainer
from derain.training.upload import Remote, Uploader

RESULT = "result.json"
PAUSED = "paused.json"
IDENTITY = "mlflow.json"
BESIDE = (LEDGER, METRICS_FILE, IDENTITY)
"""What is uploaded beside the checkpoints."""
SPOOL = "tracking"
"""A folder for what the MLflow store has not taken yet."""
GALLERY = "gallery.png"
GALLERY_IMAGES = 4


@dataclass(frozen=True)
class TrackingTarget:
    """Where a run is recorded: the MLflow store, and the parent run of a trial."""

    uri: str
    parent_run_id: str | None = None


def run_in_this_process(
    config: Config,
    target: TrackingTarget,
    rank: Rank,
    until: int | None = None,
    warned: Callable[[], bool] | None = None,
) -> None:
    """One process's part of a run, see `loop`."""
    torch.set_num_threads(config.train.cpu_threads or _cores_a_worker())
    loader = open_loader(config, rank=rank.number, world=rank.world)
    with feed(loader, config.data.loader_processes) as batch_at:
        mine = loop(config, target, rank, until, warned=warned)
        follow(mine, batch_at, config.train)


def run_cohort_in_this_process(
    configs: Sequence[Config], target: TrackingTarget, until: int | None = None
) -> dict[str, Exception]:
    """Several runs of one worker side by side, see `loop`; the errors of those that failed.

    All have the same batches, the same device and the same frozen modules.
    """
    first, alone = configs[0], Rank()
    torch.set_num_threads(first.train.cpu_threads or _cores_a_worker())
    shared = Shared()
    loops = {config.name: loop(config, target, alone, until, shared) for config in configs}
    cohort = Cohort(loops, shared)
    with feed(open_loader(first), first.data.loader_processes) as batch_at:
        cohort.follow(batch_at, first.train)
    return cohort.failed


def loop(
    config: Config,
    target: TrackingTarget,
    rank: Rank,
    until: int | None = None,
    shared: Shared | None = None,
    warned: Callable[[], bool] | None = None,
) -> Loop[None]:
    """Train on the batches that are sent, and on rank 0 score, record and write RESULT.

    Continues after the newest whole checkpoint in the run's folder, where there is one. Where
    `until` is a step before the last, pauses there and writes PAUSED: the figures at that step.
    `shared` is for a member of a cohort, `warned` see `Interrupt`.
    """
    began = time.monotonic()
    folder = config.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not rank.leads:
        yield from _run(config, rank, lambda *_: None, until, shared, warned).loop()
        return
    with (
        checkpoint.writing(folder),
        recorded(config, target) as record,
        _uploading(config) as uploader,
    ):

        def report(step: int, figures: Mapping[str, float]) -> None:
            write_metrics(folder, step, figures)
            record.metrics(step, figures)

        run = _run(config, rank, report, until, shared, warned)
        (folder / RESULT).unlink(missing_ok=True)  # of the shorter run that is trained on
        (folder / checkpoint.CONFIG).write_text(config.to_yaml(), encoding="utf-8")
        rewind_metrics(folder, run.resume.state.step if run.resume else 0)
        run.uploader = uploader
        outcome = yield from run.loop()
        scores = _score(config, outcome, record)
        if not outcome.finished:
            metrics, _ = overall(scores)
            report(outcome.steps, metrics)
            write_json(folder / PAUSED, {"step": outcome.steps, "metrics": metrics})
            record.pause()
            return
        result = _result(config, outcome, scores)
        result |= {"mlflow_run_id": record.run_id, "seconds": time.monotonic() - began}
        write_json(folder / RESULT, result)


def _run(
    config: Config,
    rank: Rank,
    report: Report,
    until: int | None,
    shared: Shared | None,
    warned: Callable[[], bool] | None,
) -> Run:
    """This process's loop, which goes on after the newest checkpoint where there is one."""
    rank.barrier()  # rank 0 has the lock: nobody writes checkpoints while the ranks look for them
    return Run(
        config=config,
        trainer=_trainer(config, rank, shared),
        folder=config.folder,
        report=report,
        manifests=_manifests(config.data.train),
        held_out=_manifests(config.data.eval),
        rank=rank,
        resume=checkpoint.newest(config.folder),
        until=until,
        validate=Validation(config, rank) if config.train.eval_every_steps else None,
        interrupt=Interrupt(config.folder, warned),
    )


def _manifests(folders: Sequence[str]) -> list[str]:
    return [open_prepared(folder).manifest.sha256() for folder in folders]


def _trainer(config: Config, rank: Rank, shared: Shared | None) -> Trainer:
    network = build_network(config)
    if config.train.start_from is not None and checkpoint.newest(config.folder) is None:
        start_from(checkpoint.load(config.train.start_from), network)
    if shared:
        shared.share_frozen(network)
    loss = loss_of(config, network)  # after that: it may look through the network's encoder
    if shared:
        shared.share_frozen(loss)
    device = pick_device(config.train)
    return Trainer(
        config, network, loss, device=device, rank=rank, routes=_routes(config, network, device)
    )


def _routes(config: Config, network: nn.Module, device: torch.device) -> np.ndarray | None:
    datasets = [open_prepared(folder) for folder in config.data.train]
    return routes_of(
        network, datasets, open_all(datasets, config.data), config.data.cache_dir, device
    )


def _score(config: Config, outcome: Outcome, record: RunLog) -> list[DatasetScores]:
    """Score the run's checkpoint on the held-out datasets; a finished run gets a gallery too."""
    network = restore_network(checkpoint.load(outcome.checkpoint), trust=True)  # its own
    predictor = Predictor(network, pick_device(config.train))
    datasets = [open_prepared(folder) for folder in config.data.eval]
    pixels = open_all(datasets, config.data)
    scores = [
        score_dataset(predictor.levels, dataset, pairs, config.eval.protocol)
        for dataset, pairs in zip(datasets, pixels, strict=True)
    ]
    if outcome.finished:
        grid = gallery([predictor.derain], pixels[0], GALLERY_IMAGES)
        (config.folder / GALLERY).write_bytes(encode_png(grid))
        record.image(GALLERY, grid)
        metrics, given = overall(scores)
        record.metrics(outcome.steps, metrics)
        record.metrics(outcome.steps, {f"input_{name}": value for name, value in given.items()})
    return scores


def _result(config: Config, outcome: Outcome, scores: Sequence[DatasetScores]) -> dict[str, Any]:
    metrics, given = overall(scores)
    return {
        "run": config.name,
        "folder": str(config.folder),
        "steps": outcome.steps,
        "train_seconds": outcome.seconds,
        "resumed_from_step": outcome.resumed_from_step,
        "best": dict(outcome.best),
        "rollbacks": outcome.rollbacks,
        "loss": {"first": outcome.loss_first, "last": outcome.loss_last},
        "metrics": metrics,
        "input": given,
        "protocol": config.eval.protocol,
        "datasets": [asdict(item) for item in scores],
        "checkpoint": str(outcome.checkpoint),
        "weights_sha256": outcome.weights_sha256,
    }


@contextlib.contextmanager
def recorded(config: Config, target: TrackingTarget) -> Iterator[RunLog]:
    """The MLflow run of this run: a new one, or the one that a resumed run began with."""
    note = config.folder / IDENTITY
    known = read_json(note)["run_id"] if note.is_file() else None
    with RunLog(
        config.name,
        uri=target.uri,
        parent_run_id=target.parent_run_id,
        run_id=known,
        spool=config.folder / SPOOL,
    ) as record:
        if known is None:
            write_json(note, {"run_id": record.run_id})
            record_inputs(config, record)
        yield record


@contextlib.contextmanager
def _uploading(config: Config) -> Iterator[Uploader | None]:
    """Copies checkpoints to `train.upload_to`, and waits at the end for the last one."""
    if config.train.upload_to is None:
        yield None
        return
    uploader = Uploader(Remote(config.train.upload_to, config.name, BESIDE))
    try:
        yield uploader
    finally:
        uploader.close()


def record_inputs(config: Config, record: RunLog) -> None:
    """What a run or a sweep began with: its resolved config and the datasets, by their digests."""
    record.params(config.model_dump(mode="json", exclude={"sweep"}))
    record.text(checkpoint.CONFIG, config.to_yaml())
    for context, folders in (("train", config.data.train), ("eval", config.data.eval)):
        for folder in folders:
            manifest = open_prepared(folder).manifest
            record.dataset(
                manifest.sha256(), Path(folder).name, folder, context=context, pairs=manifest.pairs
            )


def _cores_a_worker() -> int:
    """The node's cores, shared among its workers: torchrun's variable, which Ray Train sets too."""
    return max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a JSON file so that its name shows either all of it or nothing."""
    write_text(path, json.dumps(tree, indent=2) + "\n", durable=False)
