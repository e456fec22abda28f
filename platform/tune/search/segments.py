"""What a search algorithm hands out (segments of trials), is told (outcomes) and must be."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from derain.tune.space import Trial


@dataclass(frozen=True)
class Segment:
    """A unit of work for one process: trials side by side, from where they are to a step."""

    trials: tuple[Trial, ...]
    until: int
    copies: tuple[str, int] | None = None
    """Name of the trial and step of its checkpoint that this one goes on from, not its own."""

    @property
    def key(self) -> str:
        """Unique in a sweep."""
        return f"{'+'.join(trial.name for trial in self.trials)}@{self.until}"


@dataclass(frozen=True)
class Outcome:
    """What came of one trial of a segment."""

    trial: str
    status: Literal["finished", "paused", "failed"]
    """`paused`: at the segment's step, before the run's last."""
    step: int
    metrics: Mapping[str, float] | None = None
    """On data.eval, of the weights at `step`."""
    result: Mapping[str, Any] | None = None
    """What the finished run wrote."""
    costs: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    may_pass: bool = False
    """Whether the failed trial could pass when it is run again."""


class SearchAlgorithm(Protocol):
    """What comes next; `ready` is what can be handed out now, in this order, by key.

    It is told what came of each segment and may then have more ready. No algorithm keeps a state
    that its history does not give back, so a resumed sweep tells a new one the journal and goes on
    as if nothing had happened.
    """

    ready: dict[str, Segment]

    def start(self, key: str) -> Segment:
        """Hand out a segment that is ready."""
        return self.ready.pop(key)

    def tell(self, segment: Segment, outcomes: Sequence[Outcome]) -> None:
        """Learn what came of a segment, for good: retries are over."""


def by_key(segments: Iterable[Segment]) -> dict[str, Segment]:
    """What `ready` holds."""
    return {segment.key: segment for segment in segments}
