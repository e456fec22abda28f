"""A sweep without its work: what is run and what comes of it, as the journal would have it."""

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from derain.config import Config
from derain.tune.journal import Event
from derain.tune.running.queue import described, restored
from derain.tune.search.segments import Outcome, Segment

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


def figure(segment: Segment) -> float:
    """A PSNR that is best at a rate of 1e-3 and rises with the steps."""
    (trial,) = segment.trials
    return 30 + segment.until / 64 - abs(math.log10(trial.config.train.lr) + 3)


def outcome(segment: Segment, steps: int) -> Outcome:
    (trial,) = segment.trials
    done = segment.until == steps
    return Outcome(
        trial.name,
        "finished" if done else "paused",
        segment.until,
        {"psnr_y": figure(segment), "ssim_y": 0.9},
        costs={"parameters": 1.0 / trial.config.train.lr},
    )


class Driven:
    """A sweep without its work: every segment that was run, in order, and what came of it.

    `events`: the journal of one that is resumed.
    """

    def __init__(
        self,
        config: Config,
        at_once: int = 2,
        shuffled: int | None = None,
        events: list[Event] | None = None,
    ) -> None:
        self.config, self.at_once = config, at_once
        self.events = list(events or [{"event": "plan", "ahead": 2 * at_once}])
        self.queue = restored(config, self.events)
        self.ended: list[tuple[Segment, Outcome]] = []
        self.chance = np.random.default_rng(shuffled) if shuffled is not None else None

    def run(
        self,
        limit: int = 10**9,
        fails: Callable[[Segment], bool] = lambda _: False,
        may_pass: bool = False,
    ) -> None:
        """Until `limit` have ended, others are under way then; those that fail have no retry."""
        while not self.queue.finished and len(self.ended) < limit:
            self.start()
            keys = list(self.queue.running)
            key = keys[0] if self.chance is None else str(self.chance.choice(keys))
            segment = self.queue.running[key]
            result = outcome(segment, self.config.train.steps)
            if fails(segment):
                name = segment.trials[0].name
                result = Outcome(name, "failed", 0, error="broken", may_pass=may_pass)
            self.events.append({"event": "ended", "key": key, "outcomes": [asdict(result)]})
            self.queue.done(key, [result])
            self.ended.append((segment, result))

    def start(self) -> None:
        """As many as run at once."""
        while len(self.queue.running) < self.at_once and (segment := self.queue.take()):
            self.events.append({"event": "started", **described(segment)})

    def values(self) -> dict[str, tuple[float, tuple[str, int] | None]]:
        """Of the segments that were run, by key: the rate, and what was copied."""
        return {s.key: (s.trials[0].config.train.lr, s.copies) for s, _ in self.ended}
