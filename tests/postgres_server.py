"""A real PostgreSQL server for tests: without Debian's a test fails where CI is set, and is skipped elsewhere.

One server a test process, started by the first test that needs it and ended with it; a database for each who asks.
"""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loadtests import postgres_server
from loadtests.postgres_server import MissingProgram


class PostgresServer(postgres_server.PostgresServer):
    """A running server; ``url`` makes a database of it."""

    def __init__(self, *, durable: bool = False, settings: tuple[str, ...] = ()) -> None:
        with needing_it():
            super().__init__(durable=durable, settings=settings)

    @contextmanager
    def program(self, name: str, settings: str) -> Iterator[None]:
        """Run a program that takes a file of settings beside the server, as the server's user."""
        with needing_it(), super().program(name, settings):
            yield


@contextmanager
def needing_it() -> Iterator[None]:
    """Say what to install where a program is missing."""
    try:
        yield
    except MissingProgram as error:
        told = f"{error} is not installed: apt-get install {error}"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)


@functools.cache
def shared_server() -> PostgresServer:
    """Return the server of this test process."""
    server = PostgresServer()
    atexit.register(server.close)
    return server
