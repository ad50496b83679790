"""Runs one of this folder's servers as its own process for as long as a context is open."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent


class Program(msgspec.Struct, frozen=True):
    """A server that listens: its url, without a trailing slash, and its process id."""

    url: str
    pid: int


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def running_program(module: str) -> Iterator[Program]:
    """Start ``python -m module`` on a free port; it is killed when the context ends, however it ends."""
    command = [sys.executable, "-m", module, "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("listening on "), f"{module} did not start"
            yield Program(line.removeprefix("listening on ").strip(), process.pid)
        finally:
            process.kill()
