"""A real PostgreSQL server for tests: Debian's, on a free port, its data in a temporary folder, its role no superuser.

Nothing is fsynced: what a kill of the server does to data is for those who start theirs with ``durable``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from loadtests.parent_death import ends_with_parent
from loadtests.program import free_port

ROLE = "gatehouse"
START_S = 60
LOOPBACK = "127.0.0.1"


class MissingProgram(RuntimeError):
    """Raised where a program of Debian's is not installed; whoever wants it says what then."""


class PostgresServer:
    """A running server; ``url`` makes a database of it.

    In a network namespace it is started by the command ``prefix`` and has an ``address`` of its own.
    Raises MissingProgram.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        settings: tuple[str, ...] = (),
        address: str = LOOPBACK,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self._binaries = _binaries()
        self._directory = Path(tempfile.mkdtemp(prefix="gatehouse-postgres-"))
        self._durable = durable
        self._settings = settings
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._prefix = prefix
        self.address = address
        self.port = free_port()
        self.last_url = ""
        self._user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(self._directory, "postgres", "postgres")
        self._run(
            "initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        if address != LOOPBACK:
            with (self._data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {address.rpartition('.')[0]}.0/24 trust\n")
        self.start()
        with self.connect("postgres", "postgres") as opened:
            opened.execute(f"CREATE ROLE {ROLE} LOGIN NOSUPERUSER".encode())

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        fast = () if self._durable else ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
        settings = (
            f"port={self.port}",
            f"listen_addresses={self.address}",
            "unix_socket_directories=",
            "shared_buffers=32MB",
            "max_connections=80",
            *fast,
            *self._settings,
        )
        options = [word for setting in settings for word in ("-c", setting)]
        command = [*ends_with_parent(), str(self._binaries / "postgres"), "-D", str(self._data), *options]
        user = self._user
        if self._prefix:  # entering a namespace needs root, so the user changes inside
            command = [*self._prefix, "setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
            user = {}
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **user,  # type: ignore[call-overload]
            )
        until = time.monotonic() + START_S
        while True:
            try:
                self.connect("postgres", "postgres").close()
            except psycopg.OperationalError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise RuntimeError((self._directory / "log").read_text()) from None
                time.sleep(0.05)
            else:
                return

    def connect(self, database: str, role: str) -> psycopg.Connection[tuple[object, ...]]:
        """Return a connection of the test's own."""
        return psycopg.connect(f"postgresql://{role}@{self.address}:{self.port}/{database}", autocommit=True)

    def url(self) -> str:
        """Return the url of a new, empty database."""
        name = f"test_{next(self._numbers)}"
        with self.connect("postgres", "postgres") as opened:
            opened.execute(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE template0".encode())
        self.last_url = f"postgresql://{ROLE}@{self.address}:{self.port}/{name}"
        return self.last_url

    def cpu_s(self) -> float:
        """Return the CPU seconds of all its processes so far, those that have ended too (Linux)."""
        assert self._process is not None
        spent = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(") ")[2].split()
                own = int(path.parent.name) == self._process.pid
                if own or int(fields[1]) == self._process.pid:  # its parent
                    spent += sum(map(int, fields[11 : 15 if own else 13]))  # user, system, and of children that ended
        return spent / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def program(self, name: str, settings: str) -> Iterator[None]:
        """Run a program that takes a file of settings beside the server, as the server's user."""
        path = self._directory / f"{name}.ini"
        path.write_text(settings)
        path.chmod(0o644)
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if found is None:
            raise MissingProgram(name)
        with (self._directory / f"{name}.log").open("ab") as log:
            command = [*ends_with_parent(), str(found), str(path)]
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._user)  # type: ignore[call-overload]
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    def encrypt(self, certificate: Path, key: Path) -> None:
        """Start the server anew, with these for connections that ask for TLS."""
        self._stop()
        for source, name in ((certificate, "server.crt"), (key, "server.key")):
            copy = self._data / name
            shutil.copyfile(source, copy)
            copy.chmod(0o600)
            if self._user:
                shutil.chown(copy, "postgres", "postgres")
        self._settings = (*self._settings, "ssl=on")
        self.start()

    def ask_for_password(self, role: str, password: str) -> None:
        """Let a role in with this password alone."""
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {role} all scram-sha-256\n{rules.read_text()}")
        with self.connect("postgres", "postgres") as opened:
            opened.execute(f"ALTER ROLE {role} PASSWORD '{password}'".encode())
            opened.execute("SELECT pg_reload_conf()")

    def replace(self) -> None:
        """Put another server, which has a copy of its data, in the place of one that was killed."""
        copy = self._directory / "copy"
        subprocess.run(["cp", "-a", str(self._data), str(copy)], check=True)
        shutil.rmtree(self._data)
        copy.rename(self._data)
        self.start()

    def kill(self) -> None:
        """Kill the server with all its sessions, as a power cut does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _stop(self) -> None:
        """End the server in order: what a kill may take, its last commits, is kept."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End the server and remove its data."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self, program: str, *words: str) -> None:
        command = [str(self._binaries / program), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **self._user)  # type: ignore[call-overload]


def _binaries() -> Path:
    """Return where the server's programs are. Raises MissingProgram."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if on_path := shutil.which("postgres"):
        return Path(on_path).resolve().parent
    raise MissingProgram("postgresql")
