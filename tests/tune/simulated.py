"""Simulates a sweep without training: which segments run, and their outcomes, as in a journal."""

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from derain.config import Config
from derain.tune.journal import Event
from derain.tune.running.queue import restore_queue, to_journal
from derain.tune.search.base import Outcome, Segment

LR = {"train.lr": {"loguniform": [1e-5, 1e-1]}}


def config(space: dict[str, Any], search: str, **sweep: Any) -> Config:
    return Config.model_validate(
        {
            "name": "search",
            "seed": 5,
            "model": {"name": "fclip_unet", "encoder_weights": "random"},
            "train": {"steps": 64},
            "sweep": {"space": space, "search": search, **sweep},
        }
    )


def psnr(segment: Segment) -> float:
    """A PSNR that is highest at a learning rate of 1e-3 and rises with the steps."""
    (trial,) = segment.trials
    return 30 + segment.until / 64 - abs(math.log10(trial.config.train.lr) + 3)


def outcome(segment: Segment, steps: int) -> Outcome:
    (trial,) = segment.trials
    finished = segment.until == steps
    return Outcome(
        trial.name,
        "finished" if finished else "paused",
        segment.until,
        {"psnr_y": psnr(segment), "ssim_y": 0.9},
        costs={"parameters": 1.0 / trial.config.train.lr},
    )


class SimulatedSweep:
    """A sweep without training; `ended` has every segment that ran, in order, and its outcome.

    `events`: the journal of a sweep to resume. `shuffle_seed`: end running segments in random
    order; default: first in, first out.
    """

    def __init__(
        self,
        config: Config,
        at_once: int = 2,
        shuffle_seed: int | None = None,
        events: list[Event] | None = None,
    ) -> None:
        self.config, self.at_once = config, at_once
        self.events = list(events or [{"event": "plan", "ahead": 2 * at_once}])
        self.queue = restore_queue(config, self.events)
        self.ended: list[tuple[Segment, Outcome]] = []
        self.rng = np.random.default_rng(shuffle_seed) if shuffle_seed is not None else None

    def run(
        self,
        limit: int = 10**9,
        fails: Callable[[Segment], bool] = lambda _: False,
        may_pass: bool = False,
    ) -> None:
        """Run until `limit` segments have ended, leaving others running; no failure is retried."""
        while not self.queue.finished and len(self.ended) < limit:
            self.start()
            keys = list(self.queue.running)
            key = keys[0] if self.rng is None else str(self.rng.choice(keys))
            segment = self.queue.running[key]
            result = outcome(segment, self.config.train.steps)
            if fails(segment):
                name = segment.trials[0].name
                result = Outcome(name, "failed", 0, error="broken", may_pass=may_pass)
            self.events.append({"event": "ended", "key": key, "outcomes": [asdict(result)]})
            self.queue.done(key, [result])
            self.ended.append((segment, result))

    def start(self) -> None:
        """Start segments until `at_once` are running."""
        while len(self.queue.running) < self.at_once and (segment := self.queue.take()):
            self.events.append({"event": "started", **to_journal(segment)})

    def values(self) -> dict[str, tuple[float, tuple[str, int] | None]]:
        """Learning rate and copied checkpoint of every segment that ended, by key."""
        return {s.key: (s.trials[0].config.train.lr, s.copies) for s, _ in self.ended}
