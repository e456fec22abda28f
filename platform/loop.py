"""The loop of one run: batches in; positions, figures, ledger and checkpoints out.

Knows nothing of Ray or MLflow: it reports through a callback.
"""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from derain import checkpoint, ledger
from derain.checkpoint import Checkpoint, State
from derain.config import Config, TrainConfig
from derain.data.feed import BatchAt
from derain.data.loader import Batch, Position
from derain.errors import DerainError, UsageError
from derain.parallel import Rank
from derain.trainer import Trainer, fingerprints, learning_rate, place

Returned = TypeVar("Returned")
Report = Callable[[int, Mapping[str, float]], None]
"""Called on rank 0 with the number of steps that are done and the figures of the last one."""


Course = Generator[Position, Batch[Tensor], Returned]
"""A run that asks for the batch at a position, is sent it, and goes on: what drives it may drive
others on the same batches (see `cohort.py`)."""


@dataclass(frozen=True)
class Outcome:
    """What a run leaves that is finished, or paused on its way."""

    steps: int
    """Steps that are done."""
    resumed_from_step: int
    loss_first: float
    loss_last: float
    checkpoint: Path
    weights_sha256: str
    seconds: float


def follow(course: Course[Returned], batch_at: BatchAt, train: TrainConfig) -> Returned:
    """Drive one course to its end on the batches that it asks for."""
    try:
        position = next(course)
        while True:
            position = course.send(place(batch_at(position), train))
    except StopIteration as end:
        return end.value


@dataclass
class Run:
    """The loop: batches in; positions, figures, ledger and checkpoints out."""

    config: Config
    trainer: Trainer
    folder: Path
    report: Report
    manifests: Sequence[str]
    rank: Rank = field(default_factory=Rank)
    resume: Checkpoint | None = None
    until: int | None = None
    """Pause after this many steps, with a checkpoint; None, or more than there are: to the end."""

    def course(self) -> Course[Outcome]:
        """Train until `train.steps`, or `until`, are done, on the batches that are sent.

        Raises DerainError when the loss is no longer finite; the checkpoints stay as they were.
        """
        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        first, position = self._beginning()
        saved: Path | None = None
        with self._ledger(first) as consumed:
            for step in range(first, self._last):
                batch = yield position
                values = self.trainer.step(step, batch)
                consumed(step, position.epoch, batch.ids)
                position = batch.following
                done = step + 1
                saves = self._due(done, self.config.train.checkpoint_every_steps)
                if saves or step == first or self._due(done, self.config.train.log_every_steps):
                    self._figures(done, values, batch.share, began, done - first)
                if saves:
                    saved = self._save(done, position)
        if saved is None:  # resumed when all was done
            assert self.resume is not None
            saved = self.resume.folder
        return Outcome(
            steps=max(first, self._last),
            resumed_from_step=first,
            loss_first=self._loss_first,
            loss_last=self._loss_last,
            checkpoint=saved,
            weights_sha256=checkpoint.load(saved).weights_sha256() if self.rank.leads else "",
            seconds=time.monotonic() - began,
        )

    @property
    def _last(self) -> int:
        return min(self.until or self.config.train.steps, self.config.train.steps)

    def _beginning(self) -> tuple[int, Position]:
        """Steps that are done and the position of the next one."""
        self._loss_first = self._loss_last = math.nan
        if self.resume is None:
            return 0, Position()
        state = self.resume.state
        if tuple(self.manifests) != tuple(state.manifests):
            raise UsageError(
                f"{self.resume.folder}: was trained on {', '.join(state.manifests)}, data.train is "
                f"now {', '.join(self.manifests)}. Resume on the same prepared datasets."
            )
        self.trainer.restore(self.resume)
        self._loss_first, self._loss_last = state.loss["first"], state.loss["last"]
        return state.step, Position(state.epoch, state.offset, state.step)

    def _due(self, done: int, every: int) -> bool:
        return done % every == 0 or done == self._last

    def _figures(self, done: int, values: Tensor, share: float, began: float, steps: int) -> None:
        """Report the figures of a step, averaged over the ranks."""
        means = self.rank.mean(values.float(), share).tolist()
        figures = dict(zip(self.trainer.term_names, means, strict=True))
        if not all(math.isfinite(value) for value in means):
            raise DerainError(
                f"The loss of step {done} is not finite ({figures}). Earlier checkpoints are "
                "whole; try a smaller train.lr or a train.clip_norm."
            )
        self._loss_last = means[0]
        if math.isnan(self._loss_first):
            self._loss_first = means[0]
        figures["lr"] = learning_rate(self.config.train, done - 1)
        figures["steps_per_s"] = steps / (time.monotonic() - began)
        if self.rank.leads:
            self.report(done, figures)

    def _save(self, done: int, position: Position) -> Path:
        state = State(
            step=done,
            epoch=position.epoch,
            offset=position.offset,
            seed=self.config.seed,
            config_sha256=self.config.digest(),
            manifests=tuple(self.manifests),
            frozen=fingerprints(self.trainer.network),
            loss={"first": self._loss_first, "last": self._loss_last},
            running_error=self.trainer.running_error,
        )
        path = self.folder / "checkpoints" / f"step-{done:08d}"
        if self.rank.leads:
            path = self.trainer.save(self.folder, state)
            checkpoint.prune(self.folder, self.config.train.keep_checkpoints)
        self.rank.barrier()
        return path

    def _ledger(self, first: int) -> contextlib.AbstractContextManager[ledger.Write]:
        if self.config.train.ledger:
            return ledger.opened(self.folder, first, self.rank)
        return contextlib.nullcontext(lambda *_: None)
