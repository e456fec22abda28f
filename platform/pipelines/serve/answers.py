"""What a replica answers: a derained image, or why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Derained:
    """An image without rain, encoded as the one that came."""

    data: bytes
    media_type: str
    facts: Mapping[str, object]
    """`width`, `height`, `format`, `converted`."""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """Of `decode`, `queue` (waiting for the network), `forward`, `encode`."""


@dataclass(frozen=True)
class Refused:
    """Why a request gets no image, as HTTP says it."""

    status: int
    kind: str
    message: str
    retry_after_s: int | None = None


class RefusedError(Exception):
    """Carries a `Refused` to the place that answers."""

    def __init__(self, status: int, kind: str, message: str, retry_after_s: int | None = None):
        super().__init__(message)
        self.refused = Refused(status, kind, message, retry_after_s)
