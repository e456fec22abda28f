"""A run or a sweep as `derainctl runs` lists it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the files in a run's or a sweep's folder say of it; keys of `derainctl runs --json`."""

    name: str
    """Its path below the folder that was listed."""
    kind: Literal["run", "sweep"]
    folder: Path
    state: State
    """A stopped one can go on: it was asked to stop or was killed. A trial that its search has
    stopped is stopped, too."""
    step: int
    """The newest step with metrics or a checkpoint; of a sweep the sum over its trials."""
    steps: int | None
    """The last step; None if the config cannot be read."""
    best: Mapping[str, Any] | None
    """The largest PSNR on validation images: `metric`, `value`, `step`, and `trial` of a sweep.
    None before the first validation."""
    trials: Mapping[str, int] | None = None
    """The number of trials of a sweep in all (`planned`) and by state."""
    began: float | None
    """Time of the first command, in seconds since 1970 (UTC)."""
    updated: float
    """Time at which a file was last written."""
    age_s: float
    """Seconds since then."""
    eta_s: float | None = None
    """Seconds that a running one still needs at its latest speed; None if nobody can tell yet."""
    error: str | None = None
    """Why a failed one failed."""
