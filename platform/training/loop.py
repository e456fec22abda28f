"""A run: takes steps on batches, and produces metrics, a ledger and checkpoints.

Independent of Ray and MLflow: it reports through a callback.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from derain.config import Config
from derain.config.training import TrainConfig
from derain.data.loading.loader import Batch, Position
from derain.data.loading.prefetch import BatchAt
from derain.errors import DerainError, StoppedError, UsageError
from derain.evaluation.metric_names import psnr_name
from derain.plugins.identity import changed, identities
from derain.training import checkpoint, divergence
from derain.training.checkpoint import Checkpoint, State
from derain.training.ledger import Ledger
from derain.training.process.device import memory_metrics, pick_device, to_device
from derain.training.process.distributed import PendingSum, Rank
from derain.training.process.interrupt import Interrupt
from derain.training.process.watchdog import Watchdog
from derain.training.trainer import Trainer
from derain.training.upload import Uploader

log = logging.getLogger(__name__)

Report = Callable[[int, Mapping[str, float]], None]
"""Called on rank 0 with the number of completed steps and the metrics of the last one."""
Validate = Callable[[nn.Module], Mapping[str, float]]
"""Scores a network on the validation images; called on all ranks, returns the same on each."""
LEAST_MSE = 1e-10
"""Below it `train_psnr`, of the crops' channels in [0, 1], is 100 dB."""
ROLLBACK_LR_FACTOR = 0.5
"""Each rollback multiplies the learning rate by this."""


@dataclass(frozen=True)
class Outcome:
    """The result of a run that has finished or paused."""

    steps: int
    """Completed steps."""
    finished: bool
    """False for a run that paused before its last step."""
    resumed_from_step: int
    loss_first: float
    loss_last: float
    best: Mapping[str, float]
    """`step` and PSNR (`psnr_y` or `psnr_rgb`) of the best validation; empty without validation."""
    rollbacks: int
    checkpoint: Path
    weights_sha256: str
    seconds: float
    """Of training, over all resumes."""


@dataclass(repr=False, eq=False)
class Run:
    """One run. Used in a `with` block, in which it takes its steps (see `drive`).

    Everything that changes during a run is in its State, so it can stop and resume at any step.
    """

    config: Config
    trainer: Trainer
    folder: Path
    report: Report
    manifests: Sequence[str]
    """SHA-256 of the manifests of the training datasets."""
    rank: Rank = field(default_factory=Rank)
    resume: Checkpoint | None = None
    until: int | None = None
    """Pause after this many steps, with a checkpoint. None, or more than `train.steps`: train to
    the end."""
    validate: Validate | None = None
    interrupt: Interrupt = field(default_factory=Interrupt)
    uploader: Uploader | None = None
    held_out: Sequence[str] = ()
    """SHA-256 of the manifests of the datasets that `validate` scores."""

    _resources: contextlib.ExitStack = field(init=False, default_factory=contextlib.ExitStack)
    _state: State = field(init=False)
    _watchdog: Watchdog = field(init=False)
    _ledger: Ledger | None = field(init=False, default=None)
    _pending: list[tuple[int, list[str], PendingSum]] = field(init=False, default_factory=list)
    """Steps whose metrics have not been checked yet: step, names and values."""
    _began: float = field(init=False)
    _seconds_before: float = field(init=False)
    _first_step: int = field(init=False)
    _steps_here: int = field(init=False, default=0)
    _stopping: bool = field(init=False, default=False)
    _saving: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Raise UsageError if the run would resume on different data."""
        if self.resume is not None:
            state = self.resume.state
            self._check_same("data.train", state.manifests, self.manifests)
            if state.best:  # best and patience compare metrics of the same images
                self._check_same("data.validation", state.held_out, self.held_out)

    def _check_same(self, key: str, before: Sequence[str], now: Sequence[str]) -> None:
        if tuple(before) != tuple(now):
            raise UsageError(
                f"{self.folder}: {key} had the manifests {', '.join(before)}, it now has "
                f"{', '.join(now)}. Resume on the same prepared datasets."
            )

    def __enter__(self) -> Self:
        """Start the run, or resume it from `resume`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._began = time.monotonic()
        self._state = self._initial_state()
        self._first_step = self._state.step
        self._seconds_before = self._state.seconds
        train = self.config.train
        with contextlib.ExitStack() as stack:
            watchdog = Watchdog(self.folder, self.rank.number, train.hang_timeout_s)
            self._watchdog = stack.enter_context(watchdog)
            if train.ledger:
                self._ledger = stack.enter_context(Ledger(self.folder, self.rank))
                self._ledger.rewind(self._first_step)
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def ended(self) -> bool:
        """True after the last step (`train.steps` or `until`), or when patience has run out."""
        return self._state.step >= self._last_step or self._out_of_patience()

    @property
    def position(self) -> Position:
        """The position in the data whose batch the next step needs."""
        return Position(self._state.epoch, self._state.offset, self._state.step)

    def step(self, batch: Batch[Tensor]) -> None:
        """Train on the batch at `position`; then log, validate and save if due.

        Raises DerainError when training has diverged, and StoppedError when the run was asked to
        stop; all written checkpoints are complete.
        """
        self._watchdog.beat()
        state = self._state
        lr_scale = ROLLBACK_LR_FACTOR**state.rollbacks
        metrics = self.trainer.step(state.step, batch, lr_scale)
        if self._ledger is not None:
            self._ledger.write(state.step, state.epoch, batch.ids)
        done, following = state.step + 1, batch.following
        self._state = replace(state, step=done, epoch=following.epoch, offset=following.offset)
        self._steps_here += 1
        self._start_sum(done, metrics, batch.share)
        try:
            self._finish_step(done)
        except _DivergedError as reason:
            self._roll_back(str(reason))

    def outcome(self) -> Outcome:
        """The result, once the run has ended."""
        state = self._state
        step = state.step
        if self.config.train.use_checkpoint == "best" and state.best:
            step = int(state.best["step"])
        path = checkpoint.folder_of(self.folder, step)
        return Outcome(
            steps=state.step,
            finished=state.step >= self.config.train.steps or self._out_of_patience(),
            resumed_from_step=self._first_step,
            loss_first=state.loss["first"],
            loss_last=state.loss["last"],
            best=state.best,
            rollbacks=state.rollbacks,
            checkpoint=path,
            weights_sha256=checkpoint.load(path).weights_sha256() if self.rank.leads else "",
            seconds=self._seconds,
        )

    def _initial_state(self) -> State:
        """A new state, or that of the checkpoint, with which the trainer is restored."""
        self._check_same_checkpoint(self.resume)
        plugins = identities(self.config.plugins)
        if self.resume is None:
            return State(
                step=0,
                epoch=0,
                offset=0,
                seed=self.config.seed,
                config_sha256=self.config.digest(),
                manifests=tuple(self.manifests),
                frozen=self.trainer.frozen,
                loss={"first": math.nan, "last": math.nan, "average": math.nan},
                plugins=plugins,
            )
        self.trainer.restore(self.resume)
        if self.rank.leads and (change := changed(self.resume.state.plugins, plugins)):
            log.warning("%s: %s", self.config.name, change)
        return replace(self.resume.state, config_sha256=self.config.digest(), plugins=plugins)

    def _check_same_checkpoint(self, saved: Checkpoint | None) -> None:
        """Raise UsageError, on all ranks, if they would not resume from the same checkpoint."""
        if not self.rank.all_equal(saved.sha256() if saved else "", pick_device(self.config.train)):
            found = f"the one of step {saved.state.step}" if saved else "none"
            raise UsageError(
                f"{self.folder}: the workers do not find the same newest checkpoint; worker "
                f"{self.rank.number} found {found}. All of them must see the same output_dir."
            )

    @property
    def _seconds(self) -> float:
        """Trained for, over all resumes."""
        return self._seconds_before + time.monotonic() - self._began

    @property
    def _last_step(self) -> int:
        return min(self.until or self.config.train.steps, self.config.train.steps)

    def _out_of_patience(self) -> bool:
        train, best = self.config.train, self._state.best
        if not (train.patience_evals and train.eval_every_steps and best):
            return False
        # Steps with an evaluation, as the best one may be the end of an earlier part of the run.
        every, last_best = train.eval_every_steps, int(best["step"])
        return self._state.step // every - last_best // every >= train.patience_evals

    def _start_sum(self, done: int, metrics: Mapping[str, Tensor], share: float) -> None:
        """Start summing a step's metrics and this rank's interrupts over the ranks.

        Nothing waits for the sums here: they are read after the next step, or when logging is due.
        """
        values = [value.float() * share for value in metrics.values()]
        for flag in (self.interrupt.stop_requested(), self.interrupt.check_due()):
            values.append(values[0].new_full((), float(flag)))
        self._pending.append((done, list(metrics), self.rank.start_sum(torch.stack(values))))

    def _finish_step(self, done: int) -> None:
        """Check, log, validate and save after a step, each if due."""
        train = self.config.train
        saves = self._due(done, train.checkpoint_every_steps) or self._saving or self._stopping
        validates = train.eval_every_steps is not None and self._due(done, train.eval_every_steps)
        logs = saves or validates or self._steps_here == 1
        if not (logs or self._due(done, train.log_every_steps)):
            self._check_pending(keep=1)
            return
        metrics = self._check_pending(keep=0)
        metrics["train_psnr"] = -10 * math.log10(max(metrics.pop("train_mse"), LEAST_MSE))
        factor = ROLLBACK_LR_FACTOR**self._state.rollbacks
        metrics["lr"] = self.trainer.learning_rate(done - 1) * factor
        metrics["steps_per_s"] = self._steps_here / (time.monotonic() - self._began)
        metrics |= memory_metrics(pick_device(train))
        if (saves or validates) and not self.trainer.is_finite():
            raise _DivergedError(f"The weights after step {done} are not finite.")
        if validates:
            metrics |= self._validation_metrics(done)
        if self.rank.leads:
            self.report(done, metrics)
        if saves or self._state.best.get("step") == done or self.ended:
            self._save()

    def _due(self, done: int, every: int) -> bool:
        return done % every == 0 or done == self._last_step

    def _check_pending(self, keep: int) -> dict[str, float]:
        """Check the metrics of all pending steps but the `keep` latest; returns the last checked.

        Raises _DivergedError.
        """
        means: dict[str, float] = {}
        while len(self._pending) > keep:
            done, names, pending = self._pending.pop(0)
            *values, stop, check_due = pending.tolist()
            means = dict(zip(names, values, strict=True))
            self._stopping = self._stopping or stop > 0
            self._saving = self._saving or (check_due > 0 and self.interrupt.save_requested())
            self._check_loss(done, means)
        return means

    def _check_loss(self, done: int, means: Mapping[str, float]) -> None:
        loss = self._state.loss
        factor = self.config.train.spike_factor
        reason = divergence.divergence_reason(means, loss["average"], done, factor)
        if reason:
            raise _DivergedError(reason)
        first = means["loss"] if math.isnan(loss["first"]) else loss["first"]
        average = divergence.updated_average(loss["average"], means["loss"])
        loss = {"first": first, "last": means["loss"], "average": average}
        self._state = replace(self._state, loss=loss)

    def _validation_metrics(self, done: int) -> dict[str, float]:
        """Validate now, and note the result if its PSNR is the highest so far."""
        assert self.validate is not None
        with self.trainer.validation_network() as network:
            metrics = dict(self.validate(network))
        psnr = psnr_name(metrics)
        if metrics[psnr] > self._state.best.get(psnr, -math.inf):
            best = {"step": done, psnr: metrics[psnr]}
            self._state = replace(self._state, best=best)
        return metrics

    def _save(self) -> None:
        """Write a checkpoint. Raises StoppedError if the run was asked to stop."""
        state = replace(
            self._state,
            running_error=self.trainer.running_error,
            held_out=tuple(self.held_out),
            seconds=self._seconds,
        )
        path = self.trainer.save(self.folder, state)
        if self.rank.leads:
            self._upload_and_prune(path)
        self.rank.barrier()
        self._saving = False
        if self._stopping and not self.ended:
            raise StoppedError(
                f"{self.config.name}: stopped as requested; the checkpoint of step "
                f"{self._state.step} is written. Continue with --resume {self.config.name}."
            )

    def _upload_and_prune(self, newest: Path) -> None:
        """Queue the newest checkpoint for upload; keep the best one and the last few."""
        keep = self.config.train.keep_checkpoints
        pinned = {int(self._state.best["step"])} if self._state.best else set()
        if self.uploader is not None:
            self.uploader.put(newest, pinned, keep)
            pinned = pinned | self.uploader.pending_steps()
        checkpoint.prune(self.folder, self._state.step, keep, pinned)

    def _roll_back(self, reason: str) -> None:
        """Continue from the last checkpoint at half the learning rate.

        Raises DerainError if the config says to stop, or if that is not possible any more.
        """
        train, rollbacks = self.config.train, self._state.rollbacks + 1
        if train.on_nonfinite == "stop":
            raise DerainError(
                f"{reason} Earlier checkpoints are intact. Try a smaller train.lr, a "
                "train.clip_norm, or train.on_nonfinite=rollback."
            )
        saved = checkpoint.newest(self.folder)
        self._check_same_checkpoint(saved)
        if saved is None or rollbacks > train.max_rollbacks:
            why = (
                "there is no checkpoint yet" if saved is None else "train.max_rollbacks is reached"
            )
            raise DerainError(
                f"{reason} Not rolled back: {why} (rolled back {rollbacks - 1} times)."
            )
        log.warning("%s Rolling back to step %d at half the rate.", reason, saved.state.step)
        self._pending.clear()
        self.trainer.restore(saved)
        now = self._state  # the checkpoint may be of before a resume with another config
        self._state = replace(
            saved.state,
            rollbacks=rollbacks,
            config_sha256=now.config_sha256,
            plugins=now.plugins,
        )
        if self._ledger is not None:
            self._ledger.rewind(saved.state.step)


def drive(session: AbstractContextManager[Run], batch_at: BatchAt, train: TrainConfig) -> None:
    """Train one run to its end; `session` is the run itself, or opens and closes it."""
    with session as run:
        while not run.ended:
            run.step(to_device(batch_at(run.position), train))


class _DivergedError(Exception):
    """The loss or weights of a step are not finite, or the loss spiked."""
