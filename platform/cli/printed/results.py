"""Results on the real stdout, as text or as one JSON document."""

import dataclasses
import errno
import io
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import typer
from rich.console import Console, RenderableType

PLAIN_WIDTH = 10_000
"""Width in characters of tables for files and pipes, so large that no row wraps."""


class Results:
    """The real stdout, kept for results: from now on all other prints go to stderr."""

    of_command: ClassVar["Results | None"] = None
    """Those of the running command, once it has got that far."""

    def __init__(self, as_json: bool) -> None:
        Results.of_command = self
        self._as_json = as_json
        self._shown = False
        if sys.stdout is not None:  # the caller did not close it
            sys.stdout.flush()
        # Names of files may be any bytes, which a reader gets back unchanged.
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogateescape")
        os.dup2(2, 1)
        self.on_terminal = self._stream.isatty()

    def show(self, value: Any, text: RenderableType) -> None:
        """Print `value` as one JSON document if --json was given, otherwise `text`.

        A table is fitted to the terminal; in a file or a pipe each row is one line.
        """
        self._shown = True
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        if self._as_json:
            text = json.dumps(value, indent=2, default=os.fspath)
        if not isinstance(text, str) and not self.on_terminal:
            text = plain(text)
        try:
            if isinstance(text, str):
                print(text.rstrip("\n"), file=self._stream)
            else:
                console = Console(file=self._stream, markup=False, highlight=False)
                console.print(text, crop=False)
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def show_bytes(self, data: bytes) -> None:
        """Write a file to stdout. Raises OSError if it is closed: the file would be lost."""
        self._shown = True
        if sys.stdout is None:
            raise OSError(errno.EBADF, "closed", "standard output")
        try:
            self._stream.buffer.write(data)
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def show_line(self, line: str) -> None:
        """Write a line of another command's results to stdout."""
        self.show_bytes(line.encode("utf-8", "surrogateescape"))

    def show_failure(self, failure: Mapping[str, Any]) -> None:
        """Print a failure as the JSON document, unless the command has printed its own."""
        if self._as_json and not self._shown:
            self.show({"error": failure}, "")

    def _give_up(self, error: OSError) -> NoReturn:
        """End silently, as Unix tools do, if the reader has gone; otherwise name what refused."""
        # Python would try to write the rest once more at its end, and print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(128 + signal.SIGPIPE)
        raise OSError(error.errno, error.strerror, "standard output") from error


def plain(table: RenderableType, width: int = PLAIN_WIDTH) -> str:
    """A table as text without colours: one line per row, nothing truncated."""
    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False)
    with console.capture() as printed:
        console.print(table, highlight=False)
    return "\n".join(line.rstrip() for line in printed.get().splitlines())
