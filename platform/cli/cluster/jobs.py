"""Commands about jobs of a Ray cluster: submit, logs, stop, status."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from derain.cli.cluster import jobs_output as output
from derain.cli.options import Json
from derain.cli.printed.results import Results
from derain.errors import UsageError

Address = Annotated[
    str | None,
    typer.Option(
        help="http://HOST:8265 of the cluster, or HOST:PORT, or auto. Default: RAY_ADDRESS."
    ),
]
Name = Annotated[str, typer.Argument(help="The job, as `submit` and `status` name it.")]
NOT_AS_JOBS = ("submit", "logs", "stop", "status", "ui")


def submit(
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND...", help="A command, such as: sweep configs/my.yaml"),
    ],
    address: Address = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when the command has started.")
    ] = False,
    extras: Annotated[
        list[Path] | None,
        typer.Option("--with", help="A file or folder to carry, such as plug-ins; repeatable."),
    ] = None,
    variables: Annotated[
        list[str] | None,
        typer.Option("--env", help="NAME or NAME=VALUE, for the command; repeatable. No secrets."),
    ] = None,
) -> None:
    """Run a command as a job of a Ray cluster: its log to stderr, its results to stdout."""
    command = command[1:] if command[0] == "derainctl" else command
    _check(command[0] if command else "", context)
    results = Results(as_json=False)
    from derain.pipelines.jobs import verb

    job = verb.submit(
        command, address=address, extras=extras or (), variables=variables or (), detach=detach,
        results=results.show_line, messages=_to_stderr,
    )  # fmt: skip
    if detach:
        results.show(None, job.id)
    raise typer.Exit(job.code)


def logs(
    name: Name,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Until the job ends, whose exit code it returns.")
    ] = False,
    address: Address = None,
) -> None:
    """Print the log of a job: the messages to stderr, the results to stdout."""
    results = Results(as_json=False)
    from derain.pipelines.jobs import verb

    job = verb.logs(
        name, address=address, following=follow, results=results.show_line, messages=_to_stderr
    )
    raise typer.Exit(job.code if follow else 0)


def stop(name: Name, address: Address = None, as_json: Json = False) -> None:
    """Stop a job: its command saves what it has, and can be resumed."""
    results = Results(as_json)
    from derain.pipelines.jobs import verb

    job = verb.stop(name, address=address)
    results.show(job, f"{job.id}: {job.status}")


def status(
    name: Annotated[str | None, typer.Argument(help="One job. Default: all.")] = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """List the jobs of a Ray cluster: state, age, command."""
    results = Results(as_json)
    from derain.pipelines.jobs import verb

    jobs = verb.status(name, address=address)
    results.show({"jobs": [asdict(job) for job in jobs]}, output.listed(jobs))


def _check(verb: str, context: typer.Context) -> None:
    """Raise UsageError unless `verb` is a command that can be a job."""
    assert context.parent is not None
    known = [
        name
        for name in context.parent.command.list_commands(context.parent)  # type: ignore[attr-defined]
        if name not in NOT_AS_JOBS
    ]
    if verb not in known:
        raise UsageError(f"{verb}: not a command for a job. Expected one of {', '.join(known)}.")


def _to_stderr(line: str) -> None:
    sys.stderr.write(line)
    sys.stderr.flush()
