"""The queue of segments to run, and how it is restored from a journal.

Restoring starts exactly the segments that the journal says were started, even if the search would
choose others now, because samples were added or a failed trial is run again.
"""

import itertools
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from derain.config import Config
from derain.tune.journal import Event
from derain.tune.running.cohorts import cohort_key
from derain.tune.search.algorithms import algorithm_of
from derain.tune.search.base import Outcome, SearchAlgorithm, Segment


class Queue:
    """The segments of a search in the order in which to run them; retries come first."""

    def __init__(self, search: SearchAlgorithm) -> None:
        self._search = search
        self._retries: deque[Segment] = deque()
        self.running: dict[str, Segment] = {}

    def take(self, key: str | None = None) -> Segment | None:
        """Start the next segment, or the one with this key; None if none can be started now."""
        ready = self._search.ready
        if key is None and self._retries:
            segment = self._retries.popleft()
        elif key is not None or ready:
            segment = self._search.start(key or next(iter(ready)))
        else:
            return None
        self.running[segment.key] = segment
        return segment

    def take_cohort(self, size: int) -> list[Segment]:
        """Start the next segment and up to `size` - 1 others that may train in the same process.

        Empty if none can be started now. A retry runs alone: another member of its cohort may have
        caused the failure.
        """
        is_retry = bool(self._retries)
        first = self.take()
        if first is None:
            return []
        if is_retry or size == 1 or not _may_join(first):
            return [first]
        shared = cohort_key(first.trials[0].config)
        candidates = (
            key
            for key, segment in self._search.ready.items()
            if _may_join(segment)
            and segment.until == first.until
            and cohort_key(segment.trials[0].config) == shared
        )
        others = [self.take(key) for key in list(itertools.islice(candidates, size - 1))]
        return [first, *(segment for segment in others if segment)]

    def retry(self, key: str) -> None:
        """Run a started segment again, before any new one."""
        self._retries.append(self.running.pop(key))

    def restart_all(self) -> None:
        """Put the started segments back, before the ready ones, in the order of their start."""
        self._search.ready = {**self.running, **self._search.ready}
        self.running = {}

    def done(self, key: str, outcomes: Sequence[Outcome]) -> None:
        """Tell the search the final outcomes of a started segment."""
        self._search.tell(self.running.pop(key), outcomes)

    @property
    def finished(self) -> bool:
        """Whether nothing is running and nothing is left to run."""
        return not (self.running or self._retries or self._search.ready)


def restore_queue(config: Config, events: Sequence[Event]) -> Queue:
    """The queue of a sweep at the point where its journal, which has a plan, ends.

    Outcomes are passed to the search in the order of the journal, except failures that are retried
    now. What was started and has not ended runs before anything new.
    """
    (plan,) = (event for event in events if event["event"] == "plan")
    queue = Queue(algorithm_of(config, ahead=plan["ahead"], known=_started_points(events)))
    ends, to_retry = _ends(events), retryable(config, events)
    for event in events:
        key = event.get("key", "")  # only events about a segment have one
        if event["event"] == "started" and key not in queue.running:
            queue.take(key)
        elif event is ends.get(key) and key not in to_retry:
            queue.done(key, [Outcome(**outcome) for outcome in event["outcomes"]])
    queue.restart_all()
    return queue


def retryable(config: Config, events: Sequence[Event]) -> set[str]:
    """Keys of segments that failed, could succeed if run again, and have retries left.

    Empty for PBT, whose later generations were created without the member that failed.
    """
    assert config.sweep is not None
    if config.sweep.search == "pbt":
        return set()
    retries = count_retries(events)
    return {
        key
        for key, end in _ends(events).items()
        if retries.get(key, 0) < config.sweep.retries
        and any(outcome["may_pass"] for outcome in end["outcomes"])
    }


def count_retries(events: Sequence[Event]) -> dict[str, int]:
    """How often each segment has been retried, by key."""
    return Counter(event["key"] for event in events if event["event"] == "retried")


def to_journal(segment: Segment) -> dict[str, Any]:
    """A segment as a "started" event of the journal has it."""
    return {
        "key": segment.key,
        "trials": [
            {"name": trial.name, "point": trial.point, "params": trial.params}
            for trial in segment.trials
        ],
        "until": segment.until,
        "copies": segment.copies,
    }


def _ends(events: Sequence[Event]) -> dict[str, Event]:
    """The "ended" event of every segment that has not been started again since, by key."""
    last = {event["key"]: event for event in events if event["event"] in ("started", "ended")}
    return {key: event for key, event in last.items() if event["event"] == "ended"}


def _started_points(events: Sequence[Event]) -> dict[str, dict[str, Any]]:
    """The values of every point that was started, by name; the newest if they changed."""
    return {
        trial["point"]: trial["params"]
        for event in events
        if event["event"] == "started"
        for trial in event["trials"]
    }


def _may_join(segment: Segment) -> bool:
    """Whether a segment may be a member of a cohort."""
    return len(segment.trials) == 1 and segment.copies is None
