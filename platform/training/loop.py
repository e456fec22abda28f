"""The loop of one run: batches in; positions, figures, ledger and checkpoints out.

Knows nothing of Ray or MLflow: it reports through a callback.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from derain.config import Config
from derain.config.training import TrainConfig
from derain.data.loading.loader import Batch, Position
from derain.data.loading.prefetch import BatchAt
from derain.errors import DerainError, StoppedError, UsageError
from derain.training import checkpoint, divergence
from derain.training.checkpoint import Checkpoint, State
from derain.training.ledger import Ledger
from derain.training.process.device import pick_device, to_device
from derain.training.process.distributed import Rank, Underway
from derain.training.process.interrupt import Interrupt
from derain.training.process.watchdog import Watchdog
from derain.training.trainer import Trainer, learning_rate
from derain.training.upload import Uploader

log = logging.getLogger(__name__)

Returned = TypeVar("Returned")
Report = Callable[[int, Mapping[str, float]], None]
"""Called on rank 0 with the number of steps that are done and the figures of the last one."""
Validate = Callable[[nn.Module], Mapping[str, float]]
"""Scores a network on the held-out images; called on all ranks, returns the same on each."""
METRIC = "psnr_y"
"""Of the validation figures, the one that says which checkpoint is the best."""
ROLLBACK_RATE = 0.5
"""What a rollback makes of the learning rate."""

Loop = Generator[Position, Batch[Tensor], Returned]
"""A run that asks for the batch at a position, is sent it, and goes on: what drives it may drive
others on the same batches (see `cohort.py`)."""


@dataclass(frozen=True)
class Outcome:
    """What a run leaves that is finished, or paused on its way."""

    steps: int
    """Steps that are done."""
    finished: bool
    """False where it was paused: there is more to do."""
    resumed_from_step: int
    loss_first: float
    loss_last: float
    best: Mapping[str, float]
    """`step` and `psnr_y` of the best validation; empty where there was none."""
    rollbacks: int
    checkpoint: Path
    weights_sha256: str
    seconds: float


def follow(loop: Loop[Returned], batch_at: BatchAt, train: TrainConfig) -> Returned:
    """Drive one loop to its end on the batches that it asks for."""
    try:
        position = next(loop)
        while True:
            position = loop.send(to_device(batch_at(position), train))
    except StopIteration as end:
        return end.value


@dataclass
class Run:
    """One run, of which a State is all that there is to know: it can end and begin anywhere."""

    config: Config
    trainer: Trainer
    folder: Path
    report: Report
    manifests: Sequence[str]
    """sha256 of those of the training datasets."""
    rank: Rank = field(default_factory=Rank)
    resume: Checkpoint | None = None
    until: int | None = None
    """Pause after this many steps, with a checkpoint; None, or more than there are: to the end."""
    validate: Validate | None = None
    interrupt: Interrupt = field(default_factory=Interrupt)
    uploader: Uploader | None = None
    held_out: Sequence[str] = ()
    """sha256 of the manifests of the datasets that `validate` scores."""

    def __post_init__(self) -> None:
        """Raise UsageError where the run would go on with other data."""
        if self.resume is not None:
            state = self.resume.state
            self._check_same("data.train", state.manifests, self.manifests)
            if state.best:  # and patience: they go by figures of the same images
                self._check_same("data.eval", state.held_out, self.held_out)

    def _check_same(self, key: str, then: Sequence[str], now: Sequence[str]) -> None:
        if tuple(then) != tuple(now):
            raise UsageError(
                f"{self.folder}: {key} had the manifests {', '.join(then)}, it now has "
                f"{', '.join(now)}. Resume on the same prepared datasets."
            )

    def loop(self) -> Loop[Outcome]:
        """Train until `train.steps`, or `until`, are done, or patience is at its end, on the
        batches that are sent.

        Raises DerainError when the loss is no longer finite, or StoppedError when the run was asked
        to stop; the checkpoints are whole.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._began, self._steps_here = time.monotonic(), 0
        self._state = self._beginning()
        self._running: list[tuple[int, list[str], Underway]] = []
        self._stopping = self._saving = False
        first = self._state.step
        with (
            Watchdog(self.folder, self.rank.number, self.config.train.hang_timeout_s) as watchdog,
            self._ledger() if self.config.train.ledger else contextlib.nullcontext() as ledger,
        ):
            self._watchdog = watchdog
            self._notes: Ledger | None = ledger
            while not self._ended():
                at = Position(self._state.epoch, self._state.offset, self._state.step)
                self._step((yield at))
        return self._outcome(first)

    def _beginning(self) -> State:
        """Where the run stands: at its beginning, or where the checkpoint was written."""
        self._check_agreement(self.resume)
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
            )
        self.trainer.restore(self.resume)
        return replace(self.resume.state, config_sha256=self.config.digest())

    def _check_agreement(self, saved: Checkpoint | None) -> None:
        """Raise UsageError on all ranks where they do not go on from the same checkpoint."""
        if not self.rank.all_equal(saved.sha256() if saved else "", pick_device(self.config.train)):
            found = f"that of step {saved.state.step}" if saved else "none"
            raise UsageError(
                f"{self.folder}: the workers do not find the same newest checkpoint; worker "
                f"{self.rank.number} found {found}. All of them must see the same output_dir."
            )

    def _ended(self) -> bool:
        """True after the last step of this time, or once patience is at its end."""
        return self._state.step >= self._last or self._out_of_patience()

    def _out_of_patience(self) -> bool:
        train, best = self.config.train, self._state.best
        if not (train.patience_evals and train.eval_every_steps and best):
            return False
        without_gain = (self._state.step - best["step"]) // train.eval_every_steps
        return without_gain >= train.patience_evals

    @property
    def _last(self) -> int:
        return min(self.until or self.config.train.steps, self.config.train.steps)

    def _step(self, batch: Batch[Tensor]) -> None:
        """One step, and what is due after it."""
        self._watchdog.beat()
        state = self._state
        scale = ROLLBACK_RATE**state.rollbacks
        figures = self.trainer.step(state.step, batch, scale)
        if self._notes is not None:
            self._notes.write(state.step, state.epoch, batch.ids)
        done, following = state.step + 1, batch.following
        self._state = replace(state, step=done, epoch=following.epoch, offset=following.offset)
        self._steps_here += 1
        self._hand_in(done, figures, batch.share)
        try:
            self._after(done)
        except _DivergedError as reason:
            self._roll_back(str(reason))

    def _hand_in(self, done: int, figures: Mapping[str, Tensor], share: float) -> None:
        """Send a step's figures to the other ranks, with this one's wishes; nobody waits for them
        here, the next step begins while they travel."""
        values = [value.float() * share for value in figures.values()]
        for wish in (self.interrupt.stop(), self.interrupt.due()):
            values.append(values[0].new_full((), float(wish)))
        self._running.append((done, list(figures), self.rank.send(torch.stack(values))))

    def _after(self, done: int) -> None:
        """What follows a step: figures, validation, a checkpoint, each where it is due."""
        train = self.config.train
        saves = self._due(done, train.checkpoint_every_steps) or self._saving or self._stopping
        evaluates = train.eval_every_steps is not None and self._due(done, train.eval_every_steps)
        logs = saves or evaluates or self._steps_here == 1
        if not (logs or self._due(done, train.log_every_steps)):
            self._settle(waiting=1)
            return
        figures = self._settle(waiting=0)
        figures["lr"] = learning_rate(train, done - 1) * ROLLBACK_RATE**self._state.rollbacks
        figures["steps_per_s"] = self._steps_here / (time.monotonic() - self._began)
        if (saves or evaluates) and not self.trainer.is_finite():
            raise _DivergedError(f"The weights after step {done} are not finite.")
        if evaluates:
            figures |= self._validated(done)
        if self.rank.leads:
            self.report(done, figures)
        if saves or self._state.best.get("step") == done or self._ended():
            self._save()

    def _due(self, done: int, every: int) -> bool:
        return done % every == 0 or done == self._last

    def _settle(self, waiting: int) -> dict[str, float]:
        """Look at the figures of all steps but the `waiting` latest; returns the last ones' means.

        Raises _DivergedError where they are not as they should be.
        """
        means: dict[str, float] = {}
        while len(self._running) > waiting:
            done, names, values = self._running.pop(0)
            *numbers, stop, due = values.tolist()
            means = dict(zip(names, numbers, strict=True))
            self._stopping = self._stopping or stop > 0
            self._saving = self._saving or (due > 0 and self.interrupt.save())
            self._check(done, means)
        return means

    def _check(self, done: int, means: Mapping[str, float]) -> None:
        loss = self._state.loss
        wrong = divergence.complaint(means, loss["average"], done, self.config.train.spike_factor)
        if wrong:
            raise _DivergedError(wrong)
        first = means["loss"] if math.isnan(loss["first"]) else loss["first"]
        average = divergence.averaged(loss["average"], means["loss"])
        loss = {"first": first, "last": means["loss"], "average": average}
        self._state = replace(self._state, loss=loss)

    def _validated(self, done: int) -> dict[str, float]:
        """The scores of this moment, which may be the best so far."""
        assert self.validate is not None
        with self.trainer.averaged() as network:
            scores = dict(self.validate(network))
        if scores[METRIC] > self._state.best.get(METRIC, -math.inf):
            best = {"step": done, METRIC: scores[METRIC]}
            self._state = replace(self._state, best=best)
        return scores

    def _save(self) -> None:
        """Write a checkpoint, and stop where that was asked for."""
        state = replace(
            self._state,
            running_error=self.trainer.running_error,
            held_out=tuple(self.held_out),
        )
        path = self.trainer.save(self.folder, state)
        if self.rank.leads:
            self._tidy(path)
        self.rank.barrier()
        self._saving = False
        if self._stopping and not self._ended():
            raise StoppedError(
                f"{self.config.name}: stopped as asked; the checkpoint of step {self._state.step} "
                f"is written. Continue with --resume {self.config.name}."
            )

    def _tidy(self, newest: Path) -> None:
        """Hand the newest checkpoint to the uploader, and keep the best and the last few."""
        keep = self.config.train.keep_checkpoints
        spared = {int(self._state.best["step"])} if self._state.best else set()
        if self.uploader is not None:
            self.uploader.put(newest, spared, keep)
            spared = spared | self.uploader.steps()
        checkpoint.prune(self.folder, self._state.step, keep, spared)

    def _roll_back(self, reason: str) -> None:
        """Go on from the last checkpoint at half the rate. Raises DerainError where that ends."""
        train, rollbacks = self.config.train, self._state.rollbacks + 1
        if train.on_nonfinite == "stop":
            raise DerainError(
                f"{reason} Earlier checkpoints are whole; try a smaller train.lr, a "
                "train.clip_norm, or train.on_nonfinite=rollback."
            )
        saved = checkpoint.newest(self.folder)
        self._check_agreement(saved)
        if saved is None or rollbacks > train.max_rollbacks:
            why = "there is no checkpoint to go back to" if saved is None else "rolled back before"
            raise DerainError(f"{reason} It was not rolled back: {why} ({rollbacks - 1} times).")
        log.warning("%s Back to step %d, at half the rate.", reason, saved.state.step)
        self._running.clear()
        self.trainer.restore(saved)
        self._state = replace(saved.state, rollbacks=rollbacks)
        if self._notes is not None:
            self._notes.rewind(saved.state.step)

    def _ledger(self) -> Ledger:
        opened = Ledger(self.folder, self.rank)
        opened.rewind(self._state.step)
        return opened

    def _outcome(self, first: int) -> Outcome:
        state = self._state
        chosen = state.step
        if self.config.train.use_checkpoint == "best" and state.best:
            chosen = int(state.best["step"])
        path = checkpoint.folder_of(self.folder, chosen)
        return Outcome(
            steps=state.step,
            finished=state.step >= self.config.train.steps or self._out_of_patience(),
            resumed_from_step=first,
            loss_first=state.loss["first"],
            loss_last=state.loss["last"],
            best=state.best,
            rollbacks=state.rollbacks,
            checkpoint=path,
            weights_sha256=checkpoint.load(path).weights_sha256() if self.rank.leads else "",
            seconds=time.monotonic() - self._began,
        )


class _DivergedError(Exception):
    """Figures or weights of a step are not as they should be."""
