"""Real servers for the tests of this folder; each is started once a module that asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.program import free_port
from tests.real.foreign import INSTALLED, SCRIPTS, ForeignServer, installed

#: of both slots together; each has half of it
CONTEXT_TOKENS = 4096
SLOTS = 2


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignServer]:
    """llama.cpp's server with a real small model."""
    directory, port = installed("llama"), free_port()
    command: list[str | Path] = [directory / "bin" / "python", SCRIPTS / "llama_server.py"]
    command += [str(port), str(CONTEXT_TOKENS), str(SLOTS), INSTALLED / "llama" / "gemma3.gguf"]
    with ForeignServer(command, port, "/health", tmp_path_factory.mktemp("llama")) as server:
        yield server
