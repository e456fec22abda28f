"""derainctl: the commands in the order of --help, and the exit codes of errors.

A command parses its options, loads the config, calls one function and prints the result. Logs and
progress go to stderr, results to stdout. Each command imports the heavy packages that it needs, so
that --help stays fast.
"""

import io
import logging
import os
import re
import signal
import sys
from importlib.metadata import version
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from derain.cli import configs, data, evaluation, inference, runs, tracking, training
from derain.cli.cluster import jobs
from derain.cli.cluster.doctor import doctor
from derain.cli.printed.results import Results
from derain.storage.refusals import expected

INTERRUPTED = 130
_EMPTY_OPTION = re.compile(r"--[a-z][a-z-]*=")

COMMANDS = (
    data.synthesize,
    data.datasets,
    data.prepare,
    data.verify,
    data.leaks,
    configs.init,
    configs.config,
    training.train,
    training.sweep,
    runs.runs,
    runs.watch,
    runs.cache,
    evaluation.evaluate,
    evaluation.leaderboard,
    evaluation.density,
    inference.predict,
    inference.serve,
    inference.export,
    inference.import_,
    tracking.register,
    tracking.promote,
    tracking.demote,
    tracking.models,
    tracking.sync,
    tracking.ui,
    doctor,
    jobs.submit,
    jobs.logs,
    jobs.stop,
    jobs.status,
)


class _Commands(TyperGroup):
    """All commands; an expected error, or what the machine refuses, becomes one message and its
    exit code, and with --json a document on stdout too. Any other exception is a bug and keeps its
    traceback."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """In the order of COMMANDS; typer puts those with commands of their own last."""
        return [_name(command) for command in COMMANDS]

    explained = False
    """Whether the user has been told why the command ended."""
    failed = False
    """Whether the command itself has raised what Python is to print with a traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an empty argument: as a path it would be the working directory."""
        for number, word in enumerate(() if ctx.resilient_parsing else args, 1):
            if not word or _EMPTY_OPTION.fullmatch(word):
                found = f"Argument {number}" + (f" ({word})" if word else "")
                raise typer.BadParameter(
                    f"{found} is empty. Is a variable of the shell not set? Leave it out, or give "
                    "a value.",
                    ctx,
                )
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        Results.of_command, _Commands.explained, _Commands.failed = None, False, False
        try:
            return super().invoke(ctx)
        except Exception as error:
            explained = expected(error)
            if explained is None or ctx.params["debug"]:
                _Commands.failed = True
                raise
            print(f"derainctl: {explained}", file=sys.stderr)
            _Commands.explained = True
            if Results.of_command:
                kind, code = type(explained).__name__, explained.exit_code
                failure = {"kind": kind, "message": str(explained), "exit_code": code}
                Results.of_command.show_failure(failure)
            raise typer.Exit(explained.exit_code) from error


def _name(command: Any) -> str:
    if isinstance(command, typer.Typer):
        return str(command.info.name)
    return command.__name__.rstrip("_")  # `import` is a keyword of Python


HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    cls=_Commands,
    context_settings=HELP,
    help="Datasets, training and sweeps for image-deraining networks.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    if isinstance(command, typer.Typer):  # one with commands of its own
        app.add_typer(command, context_settings=HELP)
    else:
        app.command(_name(command), context_settings=HELP)(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"derain-platform {version('derain-platform')}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[  # noqa: ARG001, _Commands reads it
        bool, typer.Option(help="Show tracebacks of expected errors too.")
    ] = False,
    version: Annotated[  # noqa: ARG001, its callback shows it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Options before the command."""
    _log_to_stderr()


def main() -> NoReturn:
    """Run a command; exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted."""
    _occupy_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # both are None if the caller closed them
            stream.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    # Ray reads it when it is imported; its 30 s are too short on a machine that is fully in use.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    try:
        try:
            app()
        finally:  # --help and --version print through Python's own stdout
            if sys.stdout is not None:
                sys.stdout.flush()
    except SystemExit as ended:
        if ended.code == INTERRUPTED and not _Commands.explained:  # typer's after Ctrl-C
            print("derainctl: interrupted", file=sys.stderr)
        raise
    except OSError as error:
        if _Commands.failed:
            raise
        # Python would try to write the rest once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(128 + signal.SIGPIPE)
        print(f"derainctl: standard output: {error.strerror}.", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def _occupy_closed_streams() -> None:
    """Put the null device where the caller closed stdin, stdout or stderr: the next file that is
    opened would take the place, and what a library prints would land in it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


class _ToStderr(logging.StreamHandler):
    """Follows sys.stderr, which a progress bar replaces to have lines appear above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


def _log_to_stderr() -> None:
    logger = logging.getLogger("derain")
    logger.setLevel(logging.INFO)
    logger.handlers = [_ToStderr()]
