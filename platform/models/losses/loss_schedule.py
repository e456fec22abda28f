"""Dynamic loss schedules (DLS): the powers of the error and their weights during training."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from derain.models.shapes import ImageBatch

ScheduleKind = Literal[
    "constant", "power_anneal", "power_anneal_rev", "convex_mix", "progress_adaptive"
]
KINDS: tuple[str, ...] = ScheduleKind.__args__  # type: ignore[attr-defined]


class Power(NamedTuple):
    """One power of the error and its weight."""

    weight: float
    exponent: float


class Statistics(NamedTuple):
    """Moving average of the mean absolute error: now, and at the start of training."""

    error: float
    first_error: float


@dataclass(frozen=True)
class LossSchedule:
    """The loss L = sum_i w_i mean (e^2 + eps^2)^(p_i / 2), e = output - clean, and its w_i and p_i.

    With progress s in [0, 1] and c(s) = (1 + cos(pi s)) / 2, which falls from 1 to 0:

        constant           p = start
        power_anneal       p = end + (start - end) c(s)
        power_anneal_rev   p = start + (end - start) c(s)
        convex_mix         powers start and end, with weights c(s) and 1 - c(s)
        progress_adaptive  p = end + (start - end) min(1, error / first_error)

    With the defaults `power_anneal` moves from p = 2, the squared error, to p = 1, the Charbonnier
    loss: dL/de = p e (e^2 + eps^2)^(p/2 - 1), so large errors are removed first, and small errors
    keep their gradient at the end. It is smooth at e = 0 for every p.

    `normalize` divides each power by p r^(p - 1), r = `reference_error` in [0, 1]: an error of r
    then has a gradient of 1 for every p, so a limit on the gradient norm keeps its meaning.

    Not stated in the paper: the formula. CLIP-RPN (arXiv 2506.01366) says only that its dynamic
    loss schedule ("DLS") acts through the gradients and outperforms fixed l1 and l2. None of these
    schedules is the paper's.

    Raises ValueError for an unknown kind or a number that is not greater than 0.
    """

    kind: ScheduleKind = "power_anneal"
    start: float = 2.0
    end: float = 1.0
    normalize: bool = False
    reference_error: float = 0.05
    eps: float = 1e-3

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for name in ("start", "end", "reference_error", "eps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)}")

    def __call__(
        self, progress: float | None, statistics: Statistics | None = None
    ) -> tuple[Power, ...]:
        """The powers at `progress`, the completed share of the run's steps, in [0, 1].

        Raises ValueError if an argument that the kind needs is None or out of range.
        """
        if self.kind == "constant":
            return (Power(1.0, self.start),)
        if self.kind == "progress_adaptive":
            return (Power(1.0, self._exponent(_remaining_error(statistics))),)
        falling = _cosine(progress)
        if self.kind == "convex_mix":
            return (Power(falling, self.start), Power(1.0 - falling, self.end))
        start_share = falling if self.kind == "power_anneal" else 1.0 - falling
        return (Power(1.0, self._exponent(start_share)),)

    def loss(
        self,
        output: ImageBatch,
        clean: ImageBatch,
        progress: float | None = None,
        statistics: Statistics | None = None,
    ) -> Float[Tensor, ""]:
        """L for NCHW RGB in [0, 1], in float32 (in float16 the squares of small errors vanish)."""
        powers = [
            Power(weight / self._scale(exponent), exponent)
            for weight, exponent in self(progress, statistics)
        ]
        return _sum_of_powers(output, clean, powers, self.eps)

    def _exponent(self, start_share: float) -> float:
        return self.end + (self.start - self.end) * start_share

    def _scale(self, exponent: float) -> float:
        return exponent * self.reference_error ** (exponent - 1) if self.normalize else 1.0


@dataclass(frozen=True)
class OwnSchedule:
    """The same loss with the powers that a function of the user's gives: progress in [0, 1) ->
    (weight, exponent) of each."""

    powers: Callable[[float], Sequence[tuple[float, float]]]
    eps: float = 1e-3
    kind: str = "own"

    def loss(
        self,
        output: ImageBatch,
        clean: ImageBatch,
        progress: float | None = None,
        statistics: Statistics | None = None,  # noqa: ARG002, as of LossSchedule
    ) -> Float[Tensor, ""]:
        """L for NCHW RGB in [0, 1], in float32. Raises ValueError without `progress`."""
        if progress is None:
            raise ValueError("This schedule needs a progress in [0, 1], got None")
        powers = [Power(*power) for power in self.powers(progress)]
        return _sum_of_powers(output, clean, powers, self.eps)


@dataclass
class RunningError:
    """Moving average of the mean absolute error, for the schedule `progress_adaptive`.

    `first_error` is the average after `warmup` updates, because a single batch is too noisy. All
    fields are plain numbers: save them in the checkpoint, and update with the mean over all ranks,
    so that every rank has the same powers.
    """

    decay: float = 0.99
    warmup: int = 20
    updates: int = 0
    error: float = 0.0
    first_error: float = 0.0

    @property
    def statistics(self) -> Statistics:
        """The current and the first average."""
        return Statistics(self.error, self.first_error)

    def update(self, error: float) -> Statistics:
        """Add one step's mean |output - clean| and return the new statistics."""
        self.updates += 1
        # a plain mean at first: a moving average that starts at 0 would be too low
        rate = max(1.0 - self.decay, 1.0 / self.updates)
        self.error += rate * (error - self.error)
        if self.updates <= self.warmup:
            self.first_error = self.error
        return self.statistics


def _sum_of_powers(
    output: ImageBatch, clean: ImageBatch, powers: Sequence[Power], eps: float
) -> Float[Tensor, ""]:
    squared = (output.float() - clean.float()).square() + eps**2
    terms = [weight * squared.pow(exponent / 2).mean() for weight, exponent in powers]
    return torch.stack(terms).sum()


def _cosine(progress: float | None) -> float:
    """c(s): falls from 1 to 0 along half a cosine."""
    if progress is None or not 0.0 <= progress <= 1.0:
        raise ValueError(f"This schedule needs a progress in [0, 1], got {progress}")
    return (1.0 + math.cos(math.pi * progress)) / 2


def _remaining_error(statistics: Statistics | None) -> float:
    """The current error as a share of the first one, in [0, 1]."""
    if statistics is None:
        raise ValueError("progress_adaptive needs the statistics of a RunningError, got None")
    if statistics.first_error <= 0.0:
        return 1.0
    return min(1.0, max(0.0, statistics.error / statistics.first_error))
