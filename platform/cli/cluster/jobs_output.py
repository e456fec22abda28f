"""What `status` prints."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table

from derain.storage.amounts import duration

WHY_LENGTH = 300


def listed(jobs: Sequence[Any]) -> RenderableType:
    """A row for each job, and why those that failed did."""
    if not jobs:
        return "no job; `derainctl submit -- COMMAND...` starts one"
    table = Table("job", "state", Column("time", justify="right"), "command", box=None)
    for job in jobs:
        code = f" ({job.exit_code})" if job.exit_code else ""
        seconds = "" if job.seconds is None else duration(job.seconds)
        table.add_row(job.id, f"{job.status}{code}", seconds, job.command)
    reasons = [
        f"{job.id}: {' '.join(job.message.split())[-WHY_LENGTH:]}"
        for job in jobs
        if job.status == "failed" and job.message
    ]
    return Group(table, *reasons)
