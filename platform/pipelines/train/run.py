"""One process's part of a run: trained, scored and recorded in MLflow, alone or in a cohort."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from derain.config import Config
from derain.data.loading.loader import Loader, open_all_pixels, open_loader
from derain.data.loading.prefetch import prefetch
from derain.data.prepared.manifest import Prepared
from derain.data.prepared.roles import open_training, open_validation
from derain.evaluation.scoring import overall
from derain.pipelines.train.metrics_file import append_metrics, rewind_metrics
from derain.pipelines.train.recording import TrackingTarget, recorded
from derain.pipelines.train.result import (
    CheckpointScores,
    mlflow_metrics,
    mlflow_test_metrics,
    result_of,
    score_test,
)
from derain.pipelines.train.run_folder import PAUSED, RESULT, UPLOADED, write_json
from derain.pipelines.train.validation import Validation
from derain.pipelines.watching.gauges import Gauges
from derain.pipelines.watching.system_metrics import system_metrics
from derain.storage.cores import available_cores
from derain.tracking.runs import RunLog
from derain.training import checkpoint
from derain.training.cohort import Cohort, SharedModules
from derain.training.factory import build_network, loss_of, start_from
from derain.training.loop import Outcome, Report, Run, drive
from derain.training.process.device import pick_device
from derain.training.process.distributed import Rank
from derain.training.process.interrupt import Interrupt
from derain.training.routes import routes_of, takes_routes
from derain.training.trainer import Trainer
from derain.training.upload import Remote, Uploader


def run_in_this_process(
    config: Config,
    target: TrackingTarget,
    rank: Rank,
    until: int | None = None,
    preemption_near: Callable[[], bool] | None = None,
) -> None:
    """One process's part of a run, see `open_run`."""
    torch.set_num_threads(config.train.cpu_threads or _cores_per_worker())
    loader = rank.wait_for_all(lambda: _open_data(config, rank), pick_device(config.train))
    with prefetch(loader, config.data.loader_processes) as batch_at:
        session = open_run(config, target, rank, until, preemption_near=preemption_near)
        drive(session, batch_at, config.train)


def _open_data(config: Config, rank: Rank) -> Loader:
    """The loader of this rank. Tars of another machine are decoded before, those of the validation
    images too, for which a node that joins with cold caches may need an hour."""
    if config.train.eval_every_steps or rank.leads:
        open_all_pixels(open_validation(config.data), config.data, at_once=True)
    return open_loader(config, rank=rank.number, world=rank.world)


def run_cohort_in_this_process(
    configs: Sequence[Config], target: TrackingTarget, until: int | None = None
) -> dict[str, Exception]:
    """Several runs in one worker side by side, see `open_run`; returns the errors of failed runs.

    All have the same batches, the same device and the same frozen modules.
    """
    first, alone = configs[0], Rank()
    torch.set_num_threads(first.train.cpu_threads or _cores_per_worker())
    shared = SharedModules()
    members = {config.name: open_run(config, target, alone, until, shared) for config in configs}
    cohort = Cohort(members, shared)
    with prefetch(open_loader(first), first.data.loader_processes) as batch_at:
        cohort.drive(batch_at, first.train)
    return cohort.failed


@contextlib.contextmanager
def open_run(
    config: Config,
    target: TrackingTarget,
    rank: Rank,
    until: int | None = None,
    shared: SharedModules | None = None,
    preemption_near: Callable[[], bool] | None = None,
) -> Iterator[Run]:
    """A run that takes its steps in the block; after it, rank 0 scores, records and writes RESULT.

    Continues from the newest complete checkpoint in the run's folder, if any. If `until` is a step
    before the last, the run pauses there and writes PAUSED, with the metrics at that step. `shared`
    is for a member of a cohort; for `preemption_near` see `Interrupt`.
    """
    began = time.monotonic()
    folder = config.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not rank.leads:
        with _build_run(config, rank, lambda *_: None, until, shared, preemption_near) as run:
            yield run
        return
    with (
        checkpoint.write_lock(folder, checkpoint.LOST_TIMEOUT_S),
        recorded(config, target) as record,
        system_metrics(record.system_metrics),
        _uploading(config) as uploader,
    ):
        report = _Report(config, record, Gauges(config))
        run = _build_run(config, rank, report, until, shared, preemption_near)
        (folder / RESULT).unlink(missing_ok=True)  # it had fewer steps, and training continues
        (folder / checkpoint.CONFIG).write_text(config.to_yaml(), encoding="utf-8")
        rewind_metrics(folder, run.resume.state.step if run.resume else 0)
        run.uploader = uploader
        with run:
            yield run
        _conclude(config, run.outcome(), report, began, is_trial=target.parent_run_id is not None)


@dataclass(frozen=True)
class _Report:
    """Writes the metrics of a step into the run's folder and its MLflow run, and shows them."""

    config: Config
    record: RunLog
    gauges: Gauges

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        append_metrics(self.config.folder, step, metrics)
        self.record.metrics(step, metrics)
        self.gauges.show(step, metrics)


def _conclude(
    config: Config, outcome: Outcome, report: _Report, began: float, *, is_trial: bool
) -> None:
    """Score the run, and write RESULT if it has finished or PAUSED if not.

    Test images are left to the sweep for its trials: it scores those of the best, once.
    """
    record = report.record
    scored = CheckpointScores(config, outcome.checkpoint)
    scores = scored.of("validation")
    if not outcome.finished:
        metrics, _ = overall(scores)
        report(outcome.steps, metrics)
        write_json(config.folder / PAUSED, {"step": outcome.steps, "metrics": metrics})
        record.pause()
        return
    scored.record_gallery(record)
    record.metrics(outcome.steps, mlflow_metrics(scores))
    test = None if is_trial else score_test(config, outcome.checkpoint)
    if test is not None:
        record.metrics(outcome.steps, mlflow_test_metrics(test))
    result = result_of(config, outcome, scores, test)
    result |= {"mlflow_run_id": record.run_id, "seconds": time.monotonic() - began}
    write_json(config.folder / RESULT, result)


def _build_run(
    config: Config,
    rank: Rank,
    report: Report,
    until: int | None,
    shared: SharedModules | None,
    preemption_near: Callable[[], bool] | None,
) -> Run:
    """This process's run, which continues from the newest checkpoint, if any."""
    rank.barrier()  # rank 0 has the lock: nobody writes checkpoints while the ranks look for them
    return Run(
        config=config,
        trainer=_build_trainer(config, rank, shared),
        folder=config.folder,
        report=report,
        manifests=_digests(open_training(config.data)),
        held_out=_digests(open_validation(config.data)),
        rank=rank,
        resume=checkpoint.newest(config.folder),
        until=until,
        validate=Validation(config, rank) if config.train.eval_every_steps else None,
        interrupt=Interrupt(config.folder, preemption_near),
    )


def _digests(datasets: Sequence[Prepared]) -> list[str]:
    return [dataset.sha256() for dataset in datasets]


def _build_trainer(config: Config, rank: Rank, shared: SharedModules | None) -> Trainer:
    network = build_network(config)
    if config.train.start_from is not None and checkpoint.newest(config.folder) is None:
        start_from(checkpoint.load(config.train.start_from), network)
    if shared:
        shared.share_frozen(network)
    loss = loss_of(config, network)  # after sharing: it may use the network's encoder
    if shared:
        shared.share_frozen(loss)
    device = pick_device(config.train)
    return Trainer(
        config, network, loss, device=device, rank=rank, routes=_routes(config, network, device)
    )


def _routes(config: Config, network: nn.Module, device: torch.device) -> np.ndarray | None:
    """The expert of each training image, for which all of them are decoded before the first step;
    None for a network that takes no routes."""
    if not takes_routes(network):
        return None
    datasets = open_training(config.data)
    pixels = open_all_pixels(datasets, config.data)
    return routes_of(network, datasets, pixels, config.data.cache_dir, device)


@contextlib.contextmanager
def _uploading(config: Config) -> Iterator[Uploader | None]:
    """Copies checkpoints to `train.upload_to`, and at the end waits for the last one."""
    if config.train.upload_to is None:
        yield None
        return
    uploader = Uploader(Remote(config.train.upload_to, config.name, UPLOADED))
    try:
        yield uploader
    finally:
        uploader.close()


def _cores_per_worker() -> int:
    """The node's cores, divided among its workers: Ray Train sets torchrun's LOCAL_WORLD_SIZE."""
    return max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
