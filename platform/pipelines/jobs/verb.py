"""`submit`, `logs`, `stop` and `status`: commands of derainctl as jobs of a Ray cluster."""

import contextlib
import os
import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain.errors import DerainError, StoppedError, UsageError
from derain.pipelines.jobs.client import about, job_server
from derain.pipelines.jobs.entry import STARTED, words_for
from derain.pipelines.jobs.follow import PAUSE_S, Print, Sorted, details_of, follow
from derain.pipelines.jobs.working_folder import fill
from derain.tracking.address import without_password

STORE = "MLFLOW_TRACKING_URI"
STOP_WAIT_S = 600
"""How long a stopped command may save before it is killed; Ray's default is 3 s."""
COMMAND = "command"
"""The key of a job's metadata that has its command as the user typed it."""
_SECRET = re.compile(r"PASSW|SECRET|TOKEN|CREDENTIAL|(ACCESS|API|PRIVATE)_?KEY", re.I)


@dataclass(frozen=True)
class Job:
    """A job of a cluster, as `--json` prints it."""

    id: str
    status: str
    """pending, running, stopped, succeeded or failed."""
    command: str
    started: float | None
    """Seconds since 1970."""
    seconds: float | None
    """How long it has been running, or did run."""
    exit_code: int | None
    """Of the command; None while it runs, and if it never started."""
    message: str
    """Why it failed, if Ray says so."""

    @property
    def code(self) -> int:
        """What a command that waited for this job exits with."""
        if self.status == "stopped":
            return StoppedError.exit_code
        if self.status == "failed":
            return self.exit_code or DerainError.exit_code
        return 0


def submit(
    command: Sequence[str],
    *,
    address: str | None,
    extras: Sequence[Path],
    variables: Sequence[str],
    results: Print,
    messages: Print,
    detach: bool,
) -> Job:
    """Start a command as a job, and unless `detach` print its log until it ends.

    The job carries this package, the command's config files and `extras`. It runs in this folder if
    the cluster's head has the same one, else in a temporary copy. `variables` are NAME=VALUE, or
    NAME for its value here. Raises UsageError for one that looks like a secret.
    """
    given = _variables(variables)
    name = f"derain-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    with job_server(address) as client, _mark(name) as mark:
        with tempfile.TemporaryDirectory(prefix="derain-job-") as folder:
            words = fill(Path(folder), command, extras)
            with about(name):
                client.submit_job(
                    entrypoint=shlex.join(words_for(words, mark=str(mark), variables=given)),
                    submission_id=name,
                    runtime_env={
                        "working_dir": folder,
                        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
                    },
                    metadata={COMMAND: shlex.join(command)},
                )
        messages(f"job {name}\n")
        try:
            if detach:
                return _started(client, name)
            return _finished(follow(client, name, results, messages))
        except KeyboardInterrupt:
            messages(
                f"job {name} goes on: `derainctl logs {name} --follow` shows it, `derainctl stop "
                f"{name}` ends it\n"
            )
            raise


def logs(
    name: str, *, address: str | None, following: bool, results: Print, messages: Print
) -> Job:
    """Print the log of a job: what there is, or with `following` until the job ends."""
    with job_server(address) as client:
        details = details_of(client, name)
        if following:
            return _finished(follow(client, name, results, messages))
        lines = Sorted(results, messages)
        with about(name):
            lines.add(client.get_job_logs(name))
        lines.end()
        return _job(details)


def stop(name: str, *, address: str | None) -> Job:
    """Ask a job to stop as SIGTERM does, and wait until it has saved and ended."""
    with job_server(address) as client:
        with about(name):
            client.stop_job(name)
        while not (details := details_of(client, name)).status.is_terminal():
            time.sleep(PAUSE_S)
        return _job(details)


def status(name: str | None, *, address: str | None) -> list[Job]:
    """All jobs that were submitted to the cluster, the newest first; or the one of a name."""
    with job_server(address) as client:
        if name is not None:
            return [_job(details_of(client, name))]
        jobs = [_job(details) for details in client.list_jobs() if details.submission_id]
    return sorted(jobs, key=lambda job: -(job.started or 0))


def _variables(names: Sequence[str]) -> list[str]:
    """NAME=VALUE of each variable, and of the address of the MLflow store if it is set."""
    given = {}
    for item in ([STORE] if os.environ.get(STORE) else []) + list(names):
        name, mark, value = item.partition("=")
        if not mark and name not in os.environ:
            raise UsageError(f"--env {name}: not set here. Give --env {name}=VALUE.")
        given[name] = value if mark else os.environ[name]
    for name, value in given.items():
        if _SECRET.search(name) or without_password(value) != value:
            raise UsageError(
                f"{name}: looks like a secret, and Ray shows the command line of a job to "
                "everybody who reaches its dashboard. Set it on the cluster's nodes, before Ray "
                "starts there"
                f"{f'; then submit without {STORE}' if name == STORE else ''}."
            )
    return [f"{name}={value}" for name, value in given.items()]


@contextlib.contextmanager
def _mark(name: str) -> Iterator[Path]:
    """A file in the working directory by which the job sees whether its machine has that folder."""
    mark = Path.cwd() / f".{name}"
    with contextlib.suppress(OSError):  # a folder that cannot be written to is no place for a job
        mark.touch(exist_ok=False)
    try:
        yield mark
    finally:
        with contextlib.suppress(OSError):
            mark.unlink()


def _started(client: Any, name: str) -> Job:
    """The job, once its command has found its folder."""
    while True:
        details = details_of(client, name)
        if details.status.is_terminal():
            return _finished(details)
        if details.status == "RUNNING" and STARTED in client.get_job_logs(name):
            return _job(details)
        time.sleep(PAUSE_S)


def _finished(details: Any) -> Job:
    """The job. Raises DerainError if its command never started."""
    job = _job(details)
    if job.status == "failed" and job.exit_code is None:
        raise DerainError(
            f"{job.id}: the job did not start: {' '.join(job.message.split())[:2000]}"
        )
    if job.exit_code == 127:
        raise DerainError(
            f"{job.id}: the cluster's head has no `python` on its PATH. Start Ray there with the "
            "environment activated that has Ray and this package's requirements."
        )
    return job


def _job(details: Any) -> Job:
    metadata = details.metadata or {}
    started = details.start_time and details.start_time / 1000
    ended = details.end_time / 1000 if details.end_time else time.time()
    return Job(
        id=details.submission_id,
        status=str(details.status.value).lower(),
        command=metadata.get(COMMAND, details.entrypoint),
        started=started,
        seconds=ended - started if started else None,
        exit_code=details.driver_exit_code,
        message=details.message or "",
    )
