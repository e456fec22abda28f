"""derainctl: its commands in the order of --help, and what an error does to the exit code.

A command parses, loads the config, calls one verb and prints. Logs and progress go to stderr,
results to stdout. Heavy packages are imported by the command that needs them, so that --help
answers at once.
"""

import logging
import sys
from typing import Annotated, NoReturn, TextIO

import typer

from derain.cli import data, evaluation, inference, tracking, training
from derain.errors import DerainError

INTERRUPTED = 130

COMMANDS = (
    data.synthesize,
    data.datasets,
    data.prepare,
    data.verify,
    data.leaks,
    training.train,
    training.sweep,
    evaluation.evaluate,
    evaluation.density,
    inference.predict,
    inference.export,
    inference.import_,
    tracking.register,
    tracking.promote,
    tracking.models,
    tracking.sync,
    tracking.ui,
)

app = typer.Typer(
    help="Datasets, training and sweeps for image-deraining networks.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    app.command(command.__name__.rstrip("_"))(command)  # import_ is no keyword


@app.callback()
def common(
    debug: Annotated[bool, typer.Option(help="Show the traceback of expected errors.")] = False,
) -> None:
    """Options that come before the command."""
    _State.debug = debug
    _log_to_stderr()


def main() -> NoReturn:
    """Run a command; exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted."""
    try:
        app()
    except DerainError as error:
        if _State.debug:
            raise
        print(f"derainctl: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as ended:  # typer turns Ctrl-C into this
        if ended.code == INTERRUPTED:
            print("derainctl: interrupted", file=sys.stderr)
        raise
    sys.exit(0)


class _State:
    debug = False


class _ToStderr(logging.StreamHandler):
    """Follows sys.stderr, so that lines appear above a progress bar and not inside it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


def _log_to_stderr() -> None:
    logger = logging.getLogger("derain")
    logger.setLevel(logging.INFO)
    logger.handlers = [_ToStderr()]
