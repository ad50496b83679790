"""Settled turns a second, and how many of them share a transaction: each writes history, todo list and reply.

One at a time is a commit a turn, as a store without group commit makes. BENCH_TURNS and BENCH_ROUNDS bound it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from loadtests.measuring import figure, interleaved, print_table
from shared.ids import new_message_id
from shared.messages import Arrival, Claim, Ended, TurnStatus, Usage
from shared.store import Store
from shared.store.sqlite.engine import SqliteEngine
from worker.agent.context import transcript

TURNS = int(os.environ.get("BENCH_TURNS", "1024"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
AT_ONCE = (1, 8, 64, 256)
MESSAGES = (transcript.user("a message as people write them, " * 6), transcript.assistant("an answer, " * 20, []))
TODO = b'[{"id":"1","content":"buy milk","status":"pending"}]'
OUTCOME = Ended(TurnStatus.REPLIED, "an answer", MESSAGES, TODO, Usage(), "", "")


async def claims_of(store: Store) -> tuple[Claim, ...]:
    """Accept one message in each of so many new sessions, and claim them all."""
    arrivals = [arrival(f"bench:a:{new_message_id()}") for _ in range(TURNS)]
    await asyncio.gather(*(store.inbox.accept(one) for one in arrivals))
    return (await store.claims.claim("bench", TURNS, 600)).claims


def arrival(session: str) -> Arrival:
    """Return a message that nobody sent before."""
    return Arrival(
        id=new_message_id(),
        session=session,
        platform="bench",
        user="ana",
        text="hello",
        reply=b"{}",
        dedupe=(session,),
        dedupe_ttl_s=600,
        at=time.time(),
    )


class Contender:
    """Settles turns, so many at once; remembers how many shared a transaction."""

    def __init__(self, store: Store, engine: SqliteEngine, at_once: int) -> None:
        self._store = store
        self._engine = engine
        self._at_once = at_once
        self.shared: list[float] = []

    async def measure(self) -> float:
        """Settle the turns of new sessions; return turns a second."""
        claims = await claims_of(self._store)
        waiting = iter(claims)

        async def settle_next() -> None:
            for claim in waiting:
                await self._store.claims.settle(claim.ref, OUTCOME)

        commits, began = self._engine.writer.commits, time.perf_counter()
        await asyncio.gather(*(settle_next() for _ in range(self._at_once)))
        took_s = time.perf_counter() - began
        self.shared.append(len(claims) / (self._engine.writer.commits - commits))
        return len(claims) / took_s


async def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as place:
        engine = SqliteEngine(Path(place) / "gatehouse.db", time.time)
        store = Store(engine, 10**9)
        await store.open()
        try:
            contenders = {at_once: Contender(store, engine, at_once) for at_once in AT_ONCE}
            measures: dict[str, Callable[[], Awaitable[float]]] = {
                f"{at_once} at once": contender.measure for at_once, contender in contenders.items()
            }
            rates = await interleaved(ROUNDS, measures)
        finally:
            await store.close()
    print_table(f"turns settled a second, each fsynced, {ROUNDS} rounds of {TURNS}", "/s", rates)
    for at_once, contender in contenders.items():
        print(f"  {at_once} at once: {figure(statistics.median(contender.shared))} turns share a transaction")


if __name__ == "__main__":
    uvloop.run(main())
