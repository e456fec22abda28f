"""When has a run left the road? Figures that are not finite, and a loss that leaps."""

import math
from collections.abc import Mapping

SETTLED_STEPS = 50
"""The average means nothing before so many steps."""
MEMORY = 0.98
"""Share of the average that stays at each step: it looks back about fifty steps."""


def complaint(
    figures: Mapping[str, float], average: float, step: int, spike_factor: float | None
) -> str | None:
    """What is wrong with the figures of a step; None when they are as they should be.

    `average` is that of the losses before it, see `averaged`.
    """
    if not all(math.isfinite(value) for value in figures.values()):
        return f"The loss of step {step} is not finite ({dict(figures)})."
    loss = figures["loss"]
    if spike_factor is not None and step > SETTLED_STEPS and loss > spike_factor * average:
        return (
            f"The loss of step {step} is {loss:.4g}, over {spike_factor:g} times the {average:.4g} "
            "that it was on average."
        )
    return None


def averaged(average: float, loss: float) -> float:
    """The average with one more loss in it."""
    return loss if math.isnan(average) else MEMORY * average + (1 - MEMORY) * loss
