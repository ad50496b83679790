"""A large database of an old release: the gateway listens while it is brought forward, and goes on after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import httpx2
import pytest

from loadtests.gateway_process import GatewayProcess
from loadtests.platform import RunningPlatform
from loadtests.sender import Sender
from shared.store.sql.schema import MIGRATIONS

ROWS = 30_000


def write_old_database(path: Path) -> None:
    """Write a database of the first schema with a message that waits behind a long history."""
    with closing(apsw.Connection(str(path))) as db:
        db.execute(MIGRATIONS[0])
        db.execute("PRAGMA synchronous = off; BEGIN")
        for table in ("", "o"):
            rows = (
                (f"standard:default:{table}{n % 100}", n, b'{"role":"user","content":"' + b"w" * 900 + b'"}')
                for n in range(ROWS)
            )
            db.executemany("INSERT INTO history VALUES (?, ?, ?)", rows)
        db.execute("PRAGMA user_version = 1; COMMIT")


@pytest.fixture
def gateway(tmp_path: Path, platform: RunningPlatform) -> Iterator[GatewayProcess]:
    write_old_database(tmp_path / "gatehouse.db")
    process = GatewayProcess(tmp_path, platform.environment() | {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "0"})
    yield process
    process.kill_tree()


def test_the_gateway_listens_while_it_migrates_and_goes_on_after_a_kill(
    gateway: GatewayProcess, platform: RunningPlatform
) -> None:
    gateway.launch()
    assert gateway.wait_for("migrating")["done"] == 1
    ready = httpx2.get(f"{gateway.url}/readyz", timeout=30)
    assert (ready.status_code, "migrating" in ready.json()["reason"]) == (503, True)
    assert httpx2.get(f"{gateway.url}/livez", timeout=30).status_code == 200
    request = Sender(platform.secrets).standard("1", "hello")
    answer = httpx2.post(gateway.url + request.path, content=request.body, headers=request.headers, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "migrating")
    assert int(answer.headers["retry-after"]) > 0
    gateway.kill_tree()

    gateway.launch()
    gateway.wait_for("started")
    assert gateway.terminate() == 0  # as a rule in its middle

    gateway.start()
    gateway.wait_for("migrated")
    answer = httpx2.post(gateway.url + request.path, content=request.body, headers=request.headers, timeout=30)
    assert answer.status_code == 200
    assert platform.wait(1, "standard", "1", within_s=30)
    messages = gateway.get("/v1/sessions/standard%3Adefault%3A1")["messages"]
    assert len(messages) == ROWS // 100 + 2
