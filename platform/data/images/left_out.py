"""An image that a command continues without: it is reported at the end, and others are not lost."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 5
"""How many images the log names; results have all of them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An image that was left out, and why."""

    path: str
    reason: str


def warn(command: str, left_out: Sequence[LeftOut]) -> None:
    """Log the first of the images that a command continued without, and how many there are."""
    for item in left_out[:SHOWN]:
        log.warning("%s: left out %s: %s", command, item.path, item.reason)
    if len(left_out) > SHOWN:
        log.warning("%s: and %d more", command, len(left_out) - SHOWN)


def because(path: str, error: Exception) -> LeftOut:
    """An image with the message of its error, without the name at its beginning."""
    return LeftOut(path, str(error).removeprefix(f"{path}: "))
