"""What the store's thread pays for a whole message as the database grows: sessions, rows, and one long history.

CPU of the store's own thread for accept, claim, settle, lease and record; the rows that are there already are written
by the engine itself. BENCH_ROWS (1,000,000) is the most there are, BENCH_MESSAGES how many are measured.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from loadtests.measuring import Samples, interleaved, print_table
from shared.messages import Arrival, Ended, TurnStatus
from shared.store import Store, open_store
from shared.store.engine import Database

ROWS = int(os.environ.get("BENCH_ROWS", "1000000"))
MESSAGES = int(os.environ.get("BENCH_MESSAGES", "150"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
#: messages of the transcript that each session of the past has left
HISTORY = 8
SAID = (b'{"role":"user","content":"as people write, a line or two"}', b'{"role":"assistant","content":"and so on"}')
HOST = "host"

PAST_SESSION = """
INSERT INTO sessions (session_key, platform, state, place, head, next_seq, updated_at)
VALUES (?, 'p', 'idle', 0, 1, 2, ?)
"""
PAST_MESSAGE = """
INSERT INTO inbox (session_key, seq, id, platform, user_id, text, reply, at, traceparent, state, settled_at)
VALUES (?, 1, ?, 'p', 'u', 'hello', x'7b7d', ?, '', 'done', ?)
"""
PAST_HISTORY = "INSERT INTO history (session_key, position, message, seq) VALUES (?, ?, ?, 1)"


def fill(database: Database, first: int, count: int, history: int) -> None:
    """Write sessions of the past, each with a message and its transcript."""
    now = time.time()
    keys = [f"p:past:{number:08}" for number in range(first, first + count)]
    database.run_each(PAST_SESSION, ((key, now) for key in keys))
    database.run_each(PAST_MESSAGE, ((key, f"msg_{key}", now, now) for key in keys))
    database.run_each(PAST_HISTORY, ((key, n, SAID[n % 2]) for key in keys for n in range(history)))


class Grown:
    """A store with a past, and its thread."""

    def __init__(self, store: Store, session: str | None) -> None:
        self._store = store
        self._session = session
        self._number = 0
        self._thread = next(t for t in reversed(threading.enumerate()) if t.name == "store-writer")

    async def measure(self) -> float:
        """Take messages from their acceptance to their record; return the thread's CPU microseconds for each."""
        before = self._cpu_us()
        for _ in range(MESSAGES):
            await self._one()
        return (self._cpu_us() - before) / MESSAGES

    async def _one(self) -> None:
        self._number += 1
        session = self._session or f"p:now:{self._number}"
        name = f"msg_now_{self._number}"
        await self._store.inbox.accept(Arrival(name, session, "p", "u", "hello", b"{}", (name,), 3600, time.time()))
        (claim,) = (await self._store.claims.claim(HOST, 8, 30)).claims
        await self._store.sessions.context(session, 100, 100_000, 2)
        await self._store.claims.settle(claim.ref, Ended(TurnStatus.REPLIED, "well", SAID))
        (reply,) = (await self._store.outbox.due(HOST, 8, 30)).replies
        await self._store.outbox.delivered(reply, "sent")

    def _cpu_us(self) -> float:
        return int(Path(f"/proc/self/task/{self._thread.native_id}/schedstat").read_text().split()[0]) / 1e3


async def grown(stack: AsyncExitStack, directory: Path, sessions: int, history: int, session: str | None) -> Grown:
    """Open a store and give it its past."""
    store = open_store("", directory / "data", inbox_limit=1000)
    await store.open()
    stack.push_async_callback(store.close)
    for first in range(0, sessions, 5000):
        await store.engine.run("", fill, first, min(5000, sessions - first), history)
    return Grown(store, session)


async def compare(sizes: Mapping[str, tuple[int, int, str | None]]) -> Samples:
    """Measure stores of these sizes in turns."""
    async with AsyncExitStack() as stack:
        sides: dict[str, Callable[[], Awaitable[float]]] = {}
        for name, (sessions, history, session) in sizes.items():
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            one = await grown(stack, directory, sessions, history, session)
            sides[name] = one.measure
        await interleaved(1, sides)
        return await interleaved(ROUNDS, sides)


def main() -> None:
    """Measure and print."""
    rows_each = HISTORY + 2
    counts = [count for count in (1000, 10_000, 100_000, 1_000_000) if count <= ROWS]
    by_rows = {f"{rows:,} rows, {rows // rows_each:,} sessions": (rows // rows_each, HISTORY, None) for rows in counts}
    print_table(
        f"CPU of the store's thread for a message of a new session, {ROUNDS} rounds", "us", uvloop.run(compare(by_rows))
    )
    by_history = {
        f"a history of {length:,}": (1, length, "p:past:00000000")
        for length in (2, 200, 2000, 20_000)
        if length <= ROWS
    }
    print_table(
        f"CPU of the store's thread for a message of one session, {ROUNDS} rounds",
        "us",
        uvloop.run(compare(by_history)),
    )


if __name__ == "__main__":
    main()
