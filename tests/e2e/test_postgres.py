"""The gateway on a server's database: calls are answered, a server that is away is told of, and all goes on after."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx2

from loadtests.gateway_process import GatewayProcess
from tests.postgres_server import PostgresServer

WITHIN_S = 60


def call(url: str) -> httpx2.Response:
    """Ask the model something."""
    body = {"model": "offline", "messages": [{"role": "user", "content": "hello"}]}
    return httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=WITHIN_S)


def wait_for(condition: Callable[[], bool]) -> None:
    """Return once a condition holds."""
    until = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_gateway_on_a_server_answers_and_outlives_the_server(tmp_path: Path) -> None:
    server = PostgresServer(durable=True)
    try:
        settings = {"DATABASE_URL": server.url().replace("postgresql://", "postgres://"), "GATEHOUSE_WORKERS": "1"}
        with GatewayProcess(tmp_path, settings) as gateway:
            assert call(gateway.url).status_code == 200
            server.kill()
            wait_for(lambda: httpx2.get(f"{gateway.url}/readyz").status_code == 503)
            assert call(gateway.url).status_code == 503
            server.replace()  # by one that took over its address
            wait_for(lambda: httpx2.get(f"{gateway.url}/readyz").status_code == 200)
            answer = call(gateway.url)
            assert answer.status_code == 200
            assert "You said: hello" in answer.json()["choices"][0]["message"]["content"]
        assert not (tmp_path / "gatehouse.db").exists()
    finally:
        server.close()
