"""Detects a diverged run: metrics that are not finite, or a loss spike."""

import math
from collections.abc import Mapping

SETTLED_STEPS = 50
"""The average loss is not used before this many steps."""
MEMORY = 0.98
"""Weight of the past in the average, which covers about the last fifty steps."""


def divergence_reason(
    metrics: Mapping[str, float], average: float, step: int, spike_factor: float | None
) -> str | None:
    """Why the metrics of a step show divergence, as a sentence; None if they do not.

    `average` is the average loss of the steps before, see `updated_average`.
    """
    if not all(math.isfinite(value) for value in metrics.values()):
        return f"The loss of step {step} is not finite ({dict(metrics)})."
    loss = metrics["loss"]
    if spike_factor is not None and step > SETTLED_STEPS and loss > spike_factor * average:
        return (
            f"The loss of step {step} is {loss:.4g}, more than {spike_factor:g} times its average "
            f"of {average:.4g}."
        )
    return None


def updated_average(average: float, loss: float) -> float:
    """The running average after one more loss; `average` is NaN before the first."""
    return loss if math.isnan(average) else MEMORY * average + (1 - MEMORY) * loss
