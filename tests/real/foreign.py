"""Servers of others, each a process group of its own on a free loopback port: started, killed, started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import httpx2
import pytest

from loadtests.parent_death import ends_with_parent

ROOT = Path(__file__).parents[2]

#: where `make test-real` installs them
INSTALLED = ROOT / ".venv-real"
SCRIPTS = Path(__file__).parent / "scripts"


def installed(name: str) -> Path:
    """Return where a server is installed; without it a test is skipped, and fails where CI is set."""
    directory = INSTALLED / name
    if not (directory / ".made").exists():
        reason = f"{name} is not in {INSTALLED.name}: `make test-real` installs it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return directory


def wait_until(condition: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait until a condition holds; it is looked at ten times a second."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.1)


class ForeignServer:
    """One server: its command, its port, the path that answers 200 when it is ready, and where it writes."""

    def __init__(
        self,
        command: Sequence[str | Path],
        port: int,
        ready: str,
        directory: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [str(word) for word in command]
        self._ready = ready
        self._directory = directory
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(directory), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def output(self) -> Path:
        """Everything it printed."""
        return self._directory / f"{Path(self._command[0]).name}-{self.url.rpartition(':')[2]}.log"

    def start(self, within_s: float = 90) -> None:
        """Start it, and wait until it is ready."""
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [*ends_with_parent(), *self._command],
                cwd=self._directory,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        wait_until(self._is_ready, within_s, f"{self._command[0]} is ready; see {self.output}")

    def kill(self) -> None:
        """Kill it and all that it started, as ``kill -9`` does."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def _is_ready(self) -> bool:
        assert self._process is not None
        status = self._process.poll()
        assert status is None, f"{self._command[0]} ended with {status}:\n{self.output.read_text()[-4000:]}"
        with contextlib.suppress(httpx2.TransportError, TimeoutError):
            return httpx2.get(self.url + self._ready, timeout=2).status_code == 200
        return False
