"""Celery's prefork pool with Redis as its broker and backend, started and measured from outside; a peer of ours."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from loadtests.gateway_process import ROOT

PYTHON = Path(os.environ.get("BENCH_PEERS_PYTHON") or ROOT / ".venv-peers" / "bin" / "python")
HOME = ROOT / "loadtests" / "peers"


class NoPeer(Exception):
    """Raised where it is not installed; the text says what is missing."""


class CeleryPeer:
    """A running worker with one process, and a client of it."""

    def __init__(self, client: subprocess.Popen[str]) -> None:
        self._client = client

    def one_by_one(self, count: int) -> Callable[[], Awaitable[float]]:
        """Return the measuring of the median microseconds of one call at a time."""
        return self._measure(f"one {count}")

    def rate(self, count: int, in_flight: int) -> Callable[[], Awaitable[float]]:
        """Return the measuring of calls a second with many on their way."""
        return self._measure(f"rate {count} {in_flight}")

    def _measure(self, asked: str) -> Callable[[], Awaitable[float]]:
        async def measure() -> float:
            assert self._client.stdin is not None
            assert self._client.stdout is not None
            self._client.stdin.write(asked + "\n")
            self._client.stdin.flush()
            return float(self._client.stdout.readline())

        return measure

    @classmethod
    @contextmanager
    def running(cls, directory: Path, cores: list[int]) -> Iterator[Self]:
        """Run Redis, a worker and a client, on any of the cores. Raises NoPeer."""
        redis = shutil.which("redis-server")
        if redis is None or not PYTHON.exists():
            raise NoPeer("Celery with Redis is not installed: `make peers` does it")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        taskset = shutil.which("taskset")
        free = (
            [taskset, "-c", ",".join(map(str, cores))] if taskset and cores else []
        )  # whatever this process is pinned to
        environment = os.environ | {"REDIS_URL": f"redis://127.0.0.1:{port}/0", "PYTHONPATH": str(HOME)}
        server = [*free, redis, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
        worker = [
            *free,
            str(PYTHON),
            "-m",
            "celery",
            "-A",
            "celery_app",
            "worker",
            "-P",
            "prefork",
            "-c",
            "1",
            "-l",
            "ERROR",
        ]
        client = [*free, str(PYTHON), str(HOME / "celery_app.py")]
        with _started(server), _until_listening(port), _started(worker, cwd=HOME, env=environment):
            pipe = subprocess.PIPE
            with subprocess.Popen(client, stdin=pipe, stdout=pipe, text=True, cwd=HOME, env=environment) as measuring:
                try:
                    yield cls(measuring)
                finally:
                    measuring.kill()


@contextmanager
def _started(command: list[str], cwd: Path = ROOT, env: dict[str, str] | None = None) -> Iterator[None]:
    """Run a program, in a process group of its own, as long as the context is open."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True, cwd=cwd, env=env) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _until_listening(port: int) -> Iterator[None]:
    """Wait until somebody listens."""
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    yield
