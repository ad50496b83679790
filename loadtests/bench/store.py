"""Messages that the store accepts and settles a second, its engines side by side in one run, each committed with fsync.

A message is accepted, claimed and settled with history, todo list and reply, ``alone`` one after the other,
``together`` many at once. BENCH_TURNS and BENCH_ROUNDS bound it; BENCH_POSTGRES is the url of an empty database.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from loadtests.measuring import figure, interleaved, print_table
from shared.ids import new_message_id
from shared.messages import Arrival, Ended, TurnStatus, Usage
from shared.store import Store, open_store
from worker.agent.context import transcript

TURNS = int(os.environ.get("BENCH_TURNS", "1024"))
ALONE = max(1, TURNS // 16)
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
POSTGRES = os.environ.get("BENCH_POSTGRES", "")
MESSAGES = (transcript.user("a message as people write them, " * 6), transcript.assistant("an answer, " * 20, []))
TODO = b'[{"id":"1","content":"buy milk","status":"pending"}]'
OUTCOME = Ended(TurnStatus.REPLIED, "an answer", MESSAGES, TODO, Usage(1, 0, 900, 80), "", "")
LIMIT = 10**9


def arrival() -> Arrival:
    """Return a message of a session of its own, which nobody sent before."""
    session = f"bench:a:{new_message_id()}"
    return Arrival(
        id=new_message_id(),
        session=session,
        platform="bench",
        user=session,
        text="hello",
        reply=b"{}",
        dedupe=(session,),
        dedupe_ttl_s=600,
        at=time.time(),
    )


class Contender:
    """One engine: how many messages a second it takes and settles, together and alone."""

    def __init__(self, name: str, store: Store) -> None:
        self.name = name
        self.store = store
        #: statements, round trips and transactions of a server's engine, and the messages they were for
        self.counted: dict[str, list[float]] = {}

    async def accept_together(self) -> float:
        """Accept new messages at once; return how many a second. They are taken away again, unmeasured."""
        began = time.perf_counter()
        await asyncio.gather(*(self.store.inbox.accept(arrival()) for _ in range(TURNS)))
        rate = TURNS / (time.perf_counter() - began)
        await self._settle_all()
        return rate

    async def settle_together(self) -> float:
        """Claim and settle messages at once; return how many a second."""
        await asyncio.gather(*(self.store.inbox.accept(arrival()) for _ in range(TURNS)))
        began = time.perf_counter()
        before = self._count()
        await self._settle_all()
        self._note("claim and settle together", before, TURNS)
        return TURNS / (time.perf_counter() - began)

    async def whole_alone(self) -> float:
        """Accept, claim and settle one message after the other; return how many a second."""
        began = time.perf_counter()
        before = self._count()
        for _ in range(ALONE):
            await self.store.inbox.accept(arrival())
            await self._settle_all()
        self._note("all of it alone", before, ALONE)
        return ALONE / (time.perf_counter() - began)

    async def _settle_all(self) -> None:
        while claims := (await self.store.claims.claim("bench", 64, 600)).claims:
            await asyncio.gather(*(self.store.claims.settle(claim.ref, OUTCOME) for claim in claims))

    def _count(self) -> tuple[int, int, int]:
        """Return the statements, round trips and transactions so far."""
        traffic = getattr(self.store.engine, "traffic", None)
        return traffic() if traffic else (0, 0, 0)

    def _note(self, what: str, before: tuple[int, int, int], messages: int) -> None:
        spent = [(now - then) / messages for now, then in zip(self._count(), before, strict=True)]
        self.counted[what] = spent


async def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as place:
        contenders = [Contender("sqlite", open_store("", Path(place), inbox_limit=LIMIT))]
        if POSTGRES:
            contenders.append(Contender("postgresql", open_store(POSTGRES, Path(place), inbox_limit=LIMIT)))
        for contender in contenders:
            await contender.store.open()
        measures: dict[str, Callable[[], Awaitable[float]]] = {}
        for contender in contenders:
            measures[f"{contender.name}: accepts together"] = contender.accept_together
            measures[f"{contender.name}: claims and settles together"] = contender.settle_together
            measures[f"{contender.name}: accept, claim and settle alone"] = contender.whole_alone
        try:
            rates = await interleaved(ROUNDS, measures)
        finally:
            for contender in contenders:
                await contender.store.close()
    print_table(f"messages a second, each fsynced, {ROUNDS} rounds of {TURNS}", "/s", rates)
    for contender in contenders:
        for what, (statements, round_trips, transactions) in contender.counted.items():
            if statements:
                print(
                    f"  {contender.name}, {what}: {figure(statements)} statements, {figure(round_trips)} round trips "
                    f"and {figure(transactions)} transactions a message"
                )


if __name__ == "__main__":
    uvloop.run(main())
