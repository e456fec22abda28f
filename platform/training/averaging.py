"""Whether the moving average of the weights has forgotten the initial ones when it is judged.

It starts with the initial weights, whose share after n steps is decay^n. Until that is small, the
average is not the network that was trained, and its metrics say nothing about it.
"""

import logging
from collections.abc import Iterable

from derain.config.training import TrainConfig

log = logging.getLogger(__name__)

SMALL = 0.01
"""Share of initial weights that is too small to see: 27.8 dB became 25.1 dB at a share of 0.13."""


def warn_of_initial_weights(trains: Iterable[TrainConfig], judged_at: int | None = None) -> None:
    """Log a warning for each decay whose average is judged too early.

    `judged_at` is the step at which a sweep first compares its trials; default: where a run is
    first judged by itself, by its patience, its best checkpoint, or at its end.
    """
    found = {(train.ema_decay, min(_first(train), judged_at or _first(train))) for train in trains}
    for decay, step in sorted((decay, step) for decay, step in found if decay is not None):
        share = decay**step
        if share > SMALL:
            log.warning(
                "train.ema_decay=%g: at step %d, where the average of the weights is judged, %.0f "
                "%% of it are still the initial weights, which makes its images and metrics worse "
                "than those of the trained weights. Give --set train.ema_decay=%g or less, "
                "null, or more steps.", decay, step, 100 * share, _largest(step),
            )  # fmt: skip


def _first(train: TrainConfig) -> int:
    judges = train.patience_evals is not None or train.use_checkpoint == "best"
    every = train.eval_every_steps if judges else None
    return min(train.steps, every or train.steps)


def _largest(step: int) -> float:
    """The largest decay that has forgotten the initial weights at a step, to two digits after its
    nines."""
    exact = SMALL ** (1 / step)
    nines = 10 ** max(1, -int(f"{1 - exact:e}".split("e")[1]))
    return max(0.01, int(exact * nines * 10) / (nines * 10))
