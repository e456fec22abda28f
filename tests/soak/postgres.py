"""A PostgreSQL of its own in a folder, for soak tests. Debian's packages have the programs."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.processes import free_port

USER = "postgres"
"""PostgreSQL refuses to run as root."""


class Postgres:
    """A server with a password for whoever comes by TCP; it can be killed and started again."""

    def __init__(self) -> None:
        self._programs = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        owner = pwd.getpwnam(USER)
        os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self._data = self.folder / "data"
        self.port = free_port()
        self.password = secrets.token_hex(16)
        access = ("--auth-local=peer", "--auth-host=scram-sha-256")
        self._call("initdb", f"--pgdata={self._data}", "--encoding=UTF8", *access)
        with (self._data / "postgresql.conf").open("a") as config:
            config.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\n"
                f"unix_socket_directories = '{self.folder}'\n"
            )
        self.start()
        self._sql(f"CREATE ROLE mlflow LOGIN PASSWORD '{self.password}'")

    def create_database(self, name: str) -> None:
        self._sql(f"CREATE DATABASE {name} OWNER mlflow")

    def start(self) -> None:
        log = self.folder / "log"
        self._call("pg_ctl", f"--pgdata={self._data}", f"--log={log}", "--wait", "start")

    def kill(self) -> None:
        """As when the machine loses its power: no connection is ended, nothing is written."""
        self._call("pg_ctl", f"--pgdata={self._data}", "--mode=immediate", "--wait", "stop")

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def _sql(self, statement: str) -> None:
        options = ("--quiet", f"--host={self.folder}", f"--port={self.port}", "--dbname=postgres")
        self._call("psql", *options, "--set=ON_ERROR_STOP=1", text=statement)  # by stdin

    def _call(self, program: str, *options: str, text: str = "") -> None:
        subprocess.run(
            [self._programs / program, *options], cwd="/", user=USER, group=USER, extra_groups=(),
            input=text, text=True, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip


def programs() -> Path:
    """The folder of initdb and pg_ctl."""
    if os.geteuid() != 0:
        pytest.fail(f"this soak test becomes the user {USER}: run it as root, or leave it out")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.fail(
            "initdb: not found. This soak test needs PostgreSQL; on Debian and Ubuntu the package "
            "postgresql has it."
        )
    return found[-1].parent
