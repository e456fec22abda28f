"""Following a job's log until the job ends: its results to stdout, the rest to stderr."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from derain.errors import DerainError
from derain.pipelines.jobs.client import about
from derain.pipelines.jobs.entry import RESULT

log = logging.getLogger(__name__)

PAUSE_S = 1.0
PATIENCE_S = 300.0
"""How long a cluster may be silent before following it ends; the job may go on all the same."""

Print = Callable[[str], None]


class Sorted:
    """Divides a log, which comes in pieces, into the lines of results and of messages."""

    def __init__(self, results: Print, messages: Print) -> None:
        self._results, self._messages = results, messages
        self._rest = ""
        self.characters = 0
        """How many characters of the log have come."""

    def add(self, piece: str) -> None:
        """Print the lines that a piece of the log completes."""
        self.characters += len(piece)
        *lines, self._rest = (self._rest + piece).split("\n")
        for line in lines:
            self._print(f"{line}\n")

    def end(self) -> None:
        """Print the last line, if it has no end."""
        if self._rest:
            self._print(self._rest)

    def _print(self, line: str) -> None:
        mark = RESULT.decode()
        if line.startswith(mark):
            self._results(line.removeprefix(mark))
        else:
            self._messages(line)


def follow(client: Any, job: str, results: Print, messages: Print) -> Any:
    """Print the log of a job from its beginning until the job has ended; returns Ray's details.

    A connection that breaks is made anew, without a line twice or lost. Raises UsageError if there
    is no such job, and DerainError if the cluster does not answer for `PATIENCE_S`.
    """
    lines = Sorted(results, messages)
    heard = time.monotonic()
    while True:
        try:
            asyncio.run(_tail(client, job, lines))
            details = details_of(client, job)
            heard = time.monotonic()
            if details.status.is_terminal():
                lines.add(client.get_job_logs(job)[lines.characters :])
                lines.end()
                return details
        except (OSError, RuntimeError) as error:  # what Ray, requests and aiohttp raise for it
            if time.monotonic() > heard + PATIENCE_S:
                raise DerainError(
                    f"{job}: the cluster has not answered for {PATIENCE_S:.0f} s "
                    f"({' '.join(str(error).split())}). `derainctl logs {job}` shows it once it "
                    "does."
                ) from error
            log.debug("%s: %s; connecting again", job, error)
        time.sleep(PAUSE_S)


async def _tail(client: Any, job: str, lines: Sorted) -> None:
    """Print what the log has beyond the characters that were printed."""
    known = lines.characters
    async for piece in client.tail_job_logs(job):
        new = piece[known:]
        known = max(0, known - len(piece))
        lines.add(new)


def details_of(client: Any, job: str) -> Any:
    """Ray's details of a job. Raises UsageError if there is none of that name."""
    with about(job):
        return client.get_job_info(job)
