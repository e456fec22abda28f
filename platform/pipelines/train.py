"""One run: trained under Ray Train by 1 to N workers, scored, and recorded in MLflow."""

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from ray.train.torch import TorchTrainer
from torch import nn

from derain import checkpoint, cluster
from derain.checkpoint import Checkpoint
from derain.cohort import Cohort, Shared
from derain.config import Config, load_config
from derain.data.feed import feed
from derain.data.loader import open_all, open_loader
from derain.data.manifest import open_prepared
from derain.data.pictures import encode_png
from derain.errors import DerainError, OccupiedError, UsageError
from derain.interrupt import Interrupt
from derain.loop import Course, Outcome, Report, Run, follow
from derain.parallel import Rank
from derain.pipelines import faults
from derain.pipelines.evaluate import DatasetScores, gallery, overall, score_dataset
from derain.pipelines.prepare import check_data, with_data
from derain.pipelines.progress import FIGURES, watch
from derain.pipelines.validation import Validation
from derain.predictor import Predictor
from derain.routes import routes_of
from derain.tracking import store
from derain.tracking.runs import RunLog
from derain.trainer import Trainer, build_network, loss_of, pick_device, restore_network
from derain.upload import Remote, Uploader

log = logging.getLogger(__name__)

RESULT = "result.json"
PAUSED = "paused.json"
IDENTITY = "mlflow.json"
SPOOL = "tracking"
"""A folder for what the MLflow store has not taken yet."""
GALLERY = "gallery.png"
GALLERY_PICTURES = 4

MAY_CHANGE = frozenset(
    {
        "steps",
        "num_workers",
        "max_failures",
        "hang_timeout_s",
        "upload_to",
        "device",
        "cpu_threads",
        "log_every_steps",
        "eval_every_steps",
        "patience_evals",
        "use_checkpoint",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "on_nonfinite",
        "max_rollbacks",
        "spike_factor",
        "parallel",
        "compile",
        "micro_batch_size",
        "ledger",
    }
)
"""Keys of `train` that a resumed run may have otherwise: they do not change what a step does."""


@dataclass(frozen=True)
class Place:
    """Where a run is recorded: the MLflow store, and the parent run of a trial."""

    uri: str
    parent_run_id: str | None = None


def train(config: Config) -> dict[str, Any]:
    """One new run in `config.folder`; returns what `derainctl train --json` prints.

    Raises OccupiedError when the folder holds something already.
    """
    check_data(config)
    claim(config.folder)
    return _train(config)


def resume(config: Config) -> dict[str, Any]:
    """Continue the run in `config.folder` after its newest whole checkpoint.

    Raises UsageError when the config would train something else than the run did.
    """
    saved = checkpoint.newest(config.folder)
    if saved is None:
        log.info("train: %s has no checkpoint yet and begins again", config.name)
    else:
        _check_same_training(saved, config)
        log.info("train: resuming %s after step %d", config.name, saved.state.step)
    return _train(config)


def config_to_resume(config: Config, name: str, overrides: Mapping[str, Any]) -> Config:
    """The config that run `name` was started with, with this command's overrides on top."""
    folder = Path(config.output_dir) / name
    if not (folder / checkpoint.CONFIG).is_file() and config.train.upload_to is not None:
        Remote(config.train.upload_to, name).fetch(folder)
    if not (folder / checkpoint.CONFIG).is_file():
        raise UsageError(f"{folder}: there is no run to resume (no {checkpoint.CONFIG}).")
    saved = load_config(folder / checkpoint.CONFIG)
    _say_what_the_file_changes(config, saved, overrides)
    return saved.replaced({**overrides, "name": name, "output_dir": config.output_dir}, "--set")


def _say_what_the_file_changes(config: Config, saved: Config, given: Mapping[str, Any]) -> None:
    """A run goes on with the config that it began with; what the file says now is not that."""
    own = ("name", "output_dir", "profile", "sweep", "register")
    now, then = _flat(config.model_dump(mode="json")), _flat(saved.model_dump(mode="json"))
    for key in sorted({*now, *then}):
        mine = not key.startswith(own) and not any(_covers(name, key) for name in given)
        if mine and now.get(key) != then.get(key):
            log.warning(
                "%s: the run goes on with %s; the file's %s does not count. Give it with --set.",
                key, then.get(key), now.get(key),
            )  # fmt: skip


def _covers(name: str, key: str) -> bool:
    return key == name or key.startswith(f"{name}.")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def claim(folder: Path) -> None:
    """Make a folder ours for a new run or sweep.

    Raises OccupiedError that says what is there and what to do.
    """
    if folder.is_dir() and any(folder.iterdir()):
        if (folder / RESULT).is_file():
            raise OccupiedError(
                f"{folder}: holds a finished run. Give another --set name=..., or train it on "
                f"with --resume {folder.name} --set train.steps=..."
            )
        if (folder / checkpoint.CONFIG).is_file():
            raise OccupiedError(
                f"{folder}: holds an unfinished run. Continue it with --resume {folder.name}, "
                "or give another --set name=..."
            )
        raise OccupiedError(f"{folder}: not empty. Give another --set name=... or output_dir.")
    folder.mkdir(parents=True, exist_ok=True)


def run_in_this_process(
    config: Config,
    place: Place,
    rank: Rank,
    until: int | None = None,
    warned: Callable[[], bool] | None = None,
) -> None:
    """One process's part of a run, see `course`."""
    torch.set_num_threads(config.train.cpu_threads or _cores_a_worker(config))
    loader = open_loader(config, rank=rank.number, world=rank.world)
    with feed(loader, config.data.loader_processes) as batch_at:
        mine = course(config, place, rank, until, warned=warned)
        follow(mine, batch_at, config.train)


def run_cohort_in_this_process(
    configs: Sequence[Config], place: Place, until: int | None = None
) -> dict[str, Exception]:
    """Several runs of one worker side by side, see `course`; the errors of those that failed.

    All have the same batches, the same device and the same frozen modules.
    """
    first, alone = configs[0], Rank()
    torch.set_num_threads(first.train.cpu_threads or _cores_a_worker(first))
    shared = Shared()
    courses = {config.name: course(config, place, alone, until, shared) for config in configs}
    cohort = Cohort(courses, shared)
    with feed(open_loader(first), first.data.loader_processes) as batch_at:
        cohort.follow(batch_at, first.train)
    return cohort.failed


def course(
    config: Config,
    place: Place,
    rank: Rank,
    until: int | None = None,
    shared: Shared | None = None,
    warned: Callable[[], bool] | None = None,
) -> Course[None]:
    """Train on the batches that are sent, and on rank 0 score, record and write RESULT.

    Continues after the newest whole checkpoint in the run's folder, where there is one. Where
    `until` is a step before the last, pauses there and writes PAUSED: the figures at that step.
    `shared` is for a member of a cohort, `warned` see `Interrupt`.
    """
    began = time.monotonic()
    folder = config.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not rank.leads:
        yield from _run(config, rank, lambda *_: None, until, shared, warned).course()
        return
    (folder / RESULT).unlink(missing_ok=True)  # of the shorter run that is trained on
    (folder / checkpoint.CONFIG).write_text(config.to_yaml(), encoding="utf-8")
    with (
        checkpoint.writing(folder),
        _recorded(config, place) as record,
        (folder / FIGURES).open("a") as figures_file,
        _uploading(config) as uploader,
    ):
        figures_file.write("\n")  # ends a line that a kill may have torn

        def report(step: int, figures: Mapping[str, float]) -> None:
            figures_file.write(json.dumps({"step": step, **figures}) + "\n")
            figures_file.flush()
            record.metrics(step, figures)

        run = _run(config, rank, report, until, shared, warned)
        run.uploader = uploader
        outcome = yield from run.course()
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


def run_under_ray_train(config: Config, place: Place, until: int | None = None) -> None:
    """The run on `train.num_workers` workers of the connected Ray, as `run_in_this_process`."""
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "place": asdict(place),
            "until": until,
        },
        scaling_config=faults.scaling(config.train, gpu=wants_gpu(config)),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(config.folder / "ray"),
            failure_config=faults.failing(config.train),
        ),
    )
    faults.forget(config.folder)
    try:
        _interruptible(trainer.fit)
    except ray.train.TrainingFailedError as error:
        faults.check(config.folder, config.name)
        raise DerainError(f"Training failed: {error}") from error
    faults.check(config.folder, config.name)


def _interruptible(fit: Callable[[], object]) -> None:
    """Call `fit` beside the main thread, where Ray Train would take Ctrl-C and exit with 1."""
    done: Future[object] = Future()

    def call() -> None:
        try:
            done.set_result(fit())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    done.result()


def wants_gpu(config: Config) -> bool:
    """True when the run's workers need a GPU each; `auto` takes them where the cluster has any."""
    return config.train.device == "cuda" or (config.train.device == "auto" and cluster.gpus() > 0)


def check_room(config: Config) -> None:
    """Raise UsageError where Ray would wait forever for the cores or GPUs of the workers."""
    gpu, workers = wants_gpu(config), config.train.min_workers
    if not cluster.fits(workers, gpu=gpu):
        kind, there = ("GPUs", cluster.gpus()) if gpu else ("CPU cores", cluster.cpus())
        raise UsageError(
            f"train.num_workers={workers} needs {workers} {kind}, Ray has {there} here. Name a "
            "cluster in RAY_ADDRESS, or give --set train.num_workers=... or train.device=cpu."
        )


def _train(config: Config) -> dict[str, Any]:
    with cluster.connected():
        config = with_data(config)
        check_room(config)
        place = Place(store.prepare_store())
        # Recorded here and in the worker: a worker that is killed cannot end its own MLflow run.
        with (
            faults.stopping_at_sigterm(config.folder),
            _recorded(config, place),
            watch({config.name: config.folder}, config.train.steps),
        ):
            run_under_ray_train(config, place)
        return read_json(config.folder / RESULT)


def _worker(payload: dict[str, Any]) -> None:
    """What Ray Train runs in every worker process."""
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size())
    config = Config.model_validate(payload["config"])
    if faults.was_noted(config.folder):
        return
    with faults.expected_errors_noted(config.folder, rank.world):
        run_in_this_process(
            config, Place(**payload["place"]), rank, payload["until"], faults.preemption_is_near
        )


def expected_error(error: BaseException) -> DerainError | None:
    """The error of ours that Ray wrapped, if it was one."""
    wrapped = list((getattr(error, "worker_failures", None) or {}).values())
    for inner in (*wrapped, getattr(error, "cause", None), error.__cause__):
        found = inner if isinstance(inner, DerainError) else inner and expected_error(inner)
        if found:
            return found
    return None


def _check_same_training(saved: Checkpoint, config: Config) -> None:
    then, now = _what_is_trained(saved.config), _what_is_trained(config)
    changed = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    if changed:
        raise UsageError(
            f"{config.folder}: cannot resume with another {', '.join(changed)}. "
            f"The run has {', '.join(f'{key}={then.get(key)}' for key in changed)}."
        )


def _what_is_trained(config: Config) -> dict[str, Any]:
    """The values that decide what a step does; the datasets are compared by their manifests."""
    tree = config.model_dump(mode="json")
    train = {key: value for key, value in tree["train"].items() if key not in MAY_CHANGE}
    parts = {"model": tree["model"], "loss": tree["loss"], "train": train}
    values = {f"{part}.{key}": value for part, keys in parts.items() for key, value in keys.items()}
    kept = ("mix", "shuffle", "stratify", "augment")
    values |= {f"data.{key}": tree["data"][key] for key in kept}
    return {**values, "seed": config.seed, "data.seed": config.data_seed}


def _run(
    config: Config,
    rank: Rank,
    report: Report,
    until: int | None,
    shared: Shared | None,
    warned: Callable[[], bool] | None,
) -> Run:
    """This process's loop, which goes on after the newest checkpoint where there is one."""
    return Run(
        config=config,
        trainer=_trainer(config, rank, shared),
        folder=config.folder,
        report=report,
        manifests=[open_prepared(folder).manifest.sha256() for folder in config.data.train],
        rank=rank,
        resume=checkpoint.newest(config.folder),
        until=until,
        validate=Validation(config, rank) if config.train.eval_every_steps else None,
        interrupt=Interrupt(config.folder, warned),
    )


def _trainer(config: Config, rank: Rank, shared: Shared | None) -> Trainer:
    network = build_network(config)
    if shared:
        shared.adopt(network)
    loss = loss_of(config, network)  # after that: it may look through the network's encoder
    if shared:
        shared.adopt(loss)
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
        grid = gallery([predictor.derain], pixels[0], GALLERY_PICTURES)
        (config.folder / GALLERY).write_bytes(encode_png(grid))
        record.picture(GALLERY, grid)
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
def _recorded(config: Config, place: Place) -> Iterator[RunLog]:
    """The MLflow run of this run: a new one, or the one that a resumed run began with."""
    note = config.folder / IDENTITY
    known = read_json(note)["run_id"] if note.is_file() else None
    with RunLog(
        config.name,
        uri=place.uri,
        parent_run_id=place.parent_run_id,
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
    uploader = Uploader(Remote(config.train.upload_to, config.name))
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


def _cores_a_worker(config: Config) -> int:
    return max(1, (os.cpu_count() or 1) // config.train.max_workers)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a JSON file so that its name shows either all of it or nothing."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
