"""Moves a live gateway to PostgreSQL and back, and measures the pause: ``python -m loadtests.moving [rows …]``.

A database is filled with so many rows; a gateway runs on it under traffic of the Standard Webhooks kind; ``migrate
--follow`` runs beside it, is killed with SIGKILL three times on its way and called again. Then the gateway is stopped,
and started on the other database as soon as ``migrate`` has ended. The pause is from the SIGTERM to the first webhook
that is accepted again; of it the moving is from the end of the gateway to the end of ``migrate``. What was accepted
has to be answered once each and in the order of its session, or this ends with status 1.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx2
import msgspec

from loadtests.gateway_process import ROOT, GatewayProcess
from loadtests.platform import RunningPlatform, running_platform
from loadtests.postgres_server import PostgresServer
from loadtests.sender import Sender
from shared.store import open_store
from shared.store.engine import Database

SIZES = (10_000, 100_000, 1_000_000)
#: rows of history that a session of the filling has
HISTORY = 20
#: messages a second while it moves, and the sessions that they come from
RATE, SESSIONS = 40, 20
KILLS = 3


class Pause(msgspec.Struct, frozen=True):
    """What one move took, in seconds."""

    way: str
    rows: int
    #: copy and verification beside the gateway, its kills included
    beside_s: float
    #: from the SIGTERM to the next webhook that was accepted
    pause_s: float
    #: of it, from the end of the old gateway to the end of the move
    moving_s: float
    accepted: int
    answered: int


class Traffic:
    """One thread that sends a steady stream of messages, and goes on sending one until it is taken."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.accepted: list[tuple[str, str]] = []
        self.taken_at: list[float] = []
        self._sender = Sender()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Send no more."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._ending.is_set():
            session, text = f"live{number % SESSIONS}", f"message {number}"
            request = self._sender.standard(session, text)
            while not self._is_taken(request.path, request.headers, request.body):
                if self._ending.is_set():
                    return
                time.sleep(0.02)
            self.accepted.append((session, text))
            self.taken_at.append(time.monotonic())
            number += 1
            time.sleep(1 / RATE)

    def _is_taken(self, path: str, headers: dict[str, str], body: bytes) -> bool:
        try:
            return httpx2.post(self.url + path, headers=headers, content=body, timeout=5).status_code == 200
        except (httpx2.HTTPError, OSError):
            return False


async def fill(url: str, rows: int) -> None:
    """Fill a database with sessions that rest and have a history."""
    store = open_store(url, Path(), inbox_limit=10**6)
    await store.open()
    sessions = max(rows // (HISTORY + 1), 1)

    def job(database: Database, first: int, last: int) -> None:
        keys = [f"standard:rest:{number}" for number in range(first, last)]
        database.run_each(
            "INSERT INTO sessions (session_key, platform, state, place, head, next_seq, updated_at, version) "
            "VALUES (?, 'standard', 'idle', 0, 1, 2, 1.0, 1)",
            [(key,) for key in keys],
        )
        database.run_each(
            "INSERT INTO history (session_key, position, message) VALUES (?, ?, ?)",
            [(key, place, os.urandom(150)) for key in keys for place in range(HISTORY)],
        )

    for first in range(0, sessions, 1000):
        await store.engine.run("", job, first, min(first + 1000, sessions))
    await store.close()


def moving(source: str, target: str) -> subprocess.Popen[bytes]:
    """Start a move that follows the gateway."""
    command = [sys.executable, "-m", "gateway", "migrate", "--follow", "--from", source, "--to", target]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_until_it_follows(process: subprocess.Popen[bytes]) -> None:
    """Wait until nothing is left but to catch up."""
    assert process.stderr is not None
    for line in process.stderr:
        if b"following" in line:
            return
    raise RuntimeError(f"the move has ended with {process.wait()}")


def move(
    way: str,
    rows: int,
    source: str,
    target: str,
    gateways: tuple[GatewayProcess, GatewayProcess],
    platform: RunningPlatform,
) -> Pause:
    """Move one gateway's database to another under traffic."""
    old, new = gateways
    platform.forget()
    old.start()
    traffic = Traffic(old.url)
    began = time.monotonic()
    for _ in range(KILLS):
        process = moving(source, target)
        time.sleep(random.uniform(1.0, 4.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = moving(source, target)
    wait_until_it_follows(process)
    beside_s = time.monotonic() - began
    stopped = time.monotonic()
    old.terminate()
    ended = time.monotonic()
    if process.wait(120):
        raise RuntimeError("the move has failed")
    moved = time.monotonic()
    new.start()
    traffic.url = new.url
    new.wait_until(lambda: traffic.taken_at[-1] > moved + 1.0, 60, "webhooks are accepted again")
    traffic.end()
    pause_s = max(
        later - earlier
        for earlier, later in zip(traffic.taken_at, traffic.taken_at[1:], strict=False)
        if later > stopped
    )
    platform.wait(len(traffic.accepted), "standard", within_s=120)
    time.sleep(1.0)  # for a second reply, if there is one
    replies = [
        (reply.conversation.removeprefix("standard:default:"), reply.text) for reply in platform.received("standard")
    ]
    new.terminate()
    check(traffic.accepted, replies)
    return Pause(way, rows, beside_s, pause_s, moved - ended, len(traffic.accepted), len(replies))


def check(accepted: list[tuple[str, str]], replies: list[tuple[str, str]]) -> None:
    """Raise RuntimeError where a message has not one reply, or those of a session came in another order."""
    found = Counter(text[text.index("message") :] for _, text in replies)
    for _, text in accepted:
        if found[text] != 1:
            raise RuntimeError(f"{text!r} was answered {found[text]} times")
    for session in {session for session, _ in replies}:
        numbers = [int(text.split()[-1]) for name, text in replies if name == session]
        if numbers != sorted(numbers):
            raise RuntimeError(f"replies of {session} came in another order: {numbers}")


def main(sizes: tuple[int, ...]) -> None:
    """Measure both ways at every size."""
    with running_platform() as platform:
        server = PostgresServer(durable=True)
        try:
            for rows in sizes:
                with tempfile.TemporaryDirectory() as name:
                    print(*both_ways(Path(name), rows, server, platform), sep="\n", flush=True)
        finally:
            server.close()


def both_ways(directory: Path, rows: int, server: PostgresServer, platform: RunningPlatform) -> list[Pause]:
    """Move to the server and back to another file."""
    settings = {**platform.environment(), "GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "0"}
    urls = [f"sqlite:///{directory}/first.db", server.url(), f"sqlite:///{directory}/second.db"]
    asyncio.run(fill(urls[0], rows))
    gateways = []
    for number, url in enumerate(urls):
        (directory / str(number)).mkdir()
        gateways.append(GatewayProcess(directory / str(number), {**settings, "DATABASE_URL": url}))
    try:
        there = move("to PostgreSQL", rows, urls[0], urls[1], (gateways[0], gateways[1]), platform)
        back = move("back", rows, urls[1], urls[2], (gateways[1], gateways[2]), platform)
    finally:
        for gateway in gateways:
            gateway.kill_tree()
    return [there, back]


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or SIZES)
