"""Segments in the order that they are to be run, and how a journal brings back what was run.

What a journal says has started was started, whatever the search would do now: a sweep that has more
samples since, or that runs a failed trial again, might have chosen others.
"""

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any

from derain.config import Config
from derain.tune.journal import Event
from derain.tune.running.cohorts import common_ground
from derain.tune.search.algorithms import algorithm_of
from derain.tune.search.segments import Outcome, SearchAlgorithm, Segment


class Queue:
    """Segments of a search in the order that they are to be run, those that come again first."""

    def __init__(self, search: SearchAlgorithm) -> None:
        self._search = search
        self._again: deque[Segment] = deque()
        self.running: dict[str, Segment] = {}

    def take(self, key: str | None = None) -> Segment | None:
        """The next segment, or the one of that key; None where there is none now."""
        ready = self._search.ready
        if key is None and self._again:
            segment = self._again.popleft()
        elif key is not None or ready:
            segment = self._search.start(key or next(iter(ready)))
        else:
            return None
        self.running[segment.key] = segment
        return segment

    def take_cohort(self, size: int) -> list[Segment]:
        """The next segment and those that may train beside it, up to `size`; none where none is.

        One that comes again comes alone: it may have failed for the company that it had.
        """
        again = bool(self._again)
        first = self.take()
        if first is None or again or size == 1 or not _may_join(first):
            return [first] if first else []
        ground = common_ground(first.trials[0].config)
        alike = (
            key
            for key, segment in self._search.ready.items()
            if _may_join(segment)
            and segment.until == first.until
            and common_ground(segment.trials[0].config) == ground
        )
        beside = [self.take(key) for key in list(itertools.islice(alike, size - 1))]
        return [first, *(segment for segment in beside if segment)]

    def give_back(self, key: str) -> None:
        """Run a segment that was taken again, before any new one."""
        self._again.append(self.running.pop(key))

    def give_all_back(self) -> None:
        """Run what was taken before what is ready, in the order in which it was taken."""
        self._search.ready = {**self.running, **self._search.ready}
        self.running = {}

    def done(self, key: str, outcomes: Sequence[Outcome]) -> None:
        """Tell the search what came of a segment."""
        self._search.tell(self.running.pop(key), outcomes)

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing is left to run."""
        return not (self.running or self._again or self._search.ready)


def restored(config: Config, events: Sequence[Event]) -> Queue:
    """The queue of a sweep whose journal has a plan, brought to where the journal ends.

    What has ended is told to the search in its order, except what failed and may be run again now.
    What was started and has not ended is run before anything new.
    """
    (planned,) = (event for event in events if event["event"] == "plan")
    queue = Queue(algorithm_of(config, ahead=planned["ahead"], known=_known(events)))
    ends, again = _ends(events), repeatable(config, events)
    for event in events:
        key = event.get("key", "")  # a segment's, where the event is of one
        if event["event"] == "started" and key not in queue.running:
            queue.take(key)
        elif event is ends.get(key) and key not in again:
            queue.done(key, [Outcome(**outcome) for outcome in event["outcomes"]])
    queue.give_all_back()
    return queue


def repeatable(config: Config, events: Sequence[Event]) -> set[str]:
    """Segments that failed for good in a way that may pass, where more retries are allowed now.

    None in a population, whose later generations were made without the member that failed.
    """
    assert config.sweep is not None
    if config.sweep.search == "pbt":
        return set()
    tries = attempts(events)
    return {
        key
        for key, end in _ends(events).items()
        if tries.get(key, 0) < config.sweep.retries
        and any(outcome["may_pass"] for outcome in end["outcomes"])
    }


def attempts(events: Sequence[Event]) -> dict[str, int]:
    """How often each segment has been run again."""
    found: dict[str, int] = {}
    for event in events:
        if event["event"] == "retried":
            found[event["key"]] = found.get(event["key"], 0) + 1
    return found


def described(segment: Segment) -> dict[str, Any]:
    """A segment for the journal."""
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
    """The end of every segment that has not been started again since."""
    last = {event["key"]: event for event in events if event["event"] in ("started", "ended")}
    return {key: event for key, event in last.items() if event["event"] == "ended"}


def _known(events: Sequence[Event]) -> dict[str, dict[str, Any]]:
    """The values of every point that has been started, the newest where they change."""
    return {
        trial["point"]: trial["params"]
        for event in events
        if event["event"] == "started"
        for trial in event["trials"]
    }


def _may_join(segment: Segment) -> bool:
    return len(segment.trials) == 1 and segment.copies is None
