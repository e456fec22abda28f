"""The interface of a search algorithm: the segments it hands out and the outcomes it receives."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from derain.tune.space import Trial


@dataclass(frozen=True)
class Segment:
    """A unit of work for one process: train these trials from where they are to step `until`."""

    trials: tuple[Trial, ...]
    until: int
    copies: tuple[str, int] | None = None
    """Trial name and step of the checkpoint to continue from; None: the trial's own newest."""

    @property
    def key(self) -> str:
        """Unique within a sweep."""
        return f"{'+'.join(trial.name for trial in self.trials)}@{self.until}"


@dataclass(frozen=True)
class Outcome:
    """The result of one trial of a segment."""

    trial: str
    status: Literal["finished", "paused", "failed", "interrupted"]
    """`paused`: at the segment's last step, before the run's. `interrupted`: another trial ended
    the process that they shared; such a trial is run again, and no search is told."""
    step: int
    metrics: Mapping[str, float] | None = None
    """On the validation images, of the weights at `step`."""
    result: Mapping[str, Any] | None = None
    """What a finished run wrote."""
    costs: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    may_pass: bool = False
    """Whether a failed trial could succeed if it is run again."""


class SearchAlgorithm(ABC):
    """Decides which segments to train next.

    An algorithm's state must be a function of the segments started and the outcomes received: a
    resumed sweep replays its journal into a new instance and continues as if uninterrupted.
    """

    ready: dict[str, Segment]
    """Segments that can be started now, by key, in the order in which they should start."""

    def start(self, key: str) -> Segment:
        """Remove a segment from `ready` and return it."""
        return self.ready.pop(key)

    @abstractmethod
    def tell(self, segment: Segment, outcomes: Sequence[Outcome]) -> None:
        """Take the final outcomes of a segment, after all retries; may add to `ready`."""


def by_key(segments: Iterable[Segment]) -> dict[str, Segment]:
    """Segments in their order, by key: the form of `SearchAlgorithm.ready`."""
    return {segment.key: segment for segment in segments}
