"""A process that accepts messages as fast as it can, or runs into a fault of its disk; started by the tests.

``python -m tests.shared.store.acceptor accept DIR`` prints the id of every acknowledged message until it is killed;
``full DIR`` and ``readonly DIR`` meet the fault and print as JSON what came of it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import sys
import time
from pathlib import Path

import msgspec

from shared.errors import StoreUnavailable, StoreUnusable
from shared.messages import Arrival
from shared.store import Store, open_store

#: far less than the files already have, so that hardly any write succeeds
FILE_LIMIT_BYTES = 65_536


class Report(msgspec.Struct, frozen=True):
    """What a fault did: messages accepted before and after it, how many waited then, the errors met."""

    before: int = 0
    refused: int = 0
    waiting_in_fault: int = 0
    after: int = 0
    waiting_after: int = 0
    error: str = ""


def arrival(number: int) -> Arrival:
    """Return message number ``number``, in one of 50 sessions."""
    session = f"a:b:{number % 50}"
    return Arrival(f"msg_{number}", session, "a", "ann", "x" * 500, b"{}", (f"k{number}",), 3600, time.time())


async def accept(store: Store) -> None:
    """Accept with 32 callers and print every id once it is acknowledged."""
    numbers = itertools.count()

    async def caller() -> None:
        for number in numbers:
            receipt = await store.inbox.accept(arrival(number))
            os.write(1, f"{receipt.message_id}\n".encode())

    await asyncio.gather(*(caller() for _ in range(32)))


async def full(store: Store) -> Report:
    """Accept until the files may not grow any more, then let them grow again."""
    before = refused = 0
    for number in range(200):
        await store.inbox.accept(arrival(number))
        before += 1
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT_BYTES, hard))
    for number in range(200, 400):
        try:
            await store.inbox.accept(arrival(number))
            before += 1
        except StoreUnavailable:
            refused += 1
    waiting_in_fault = await store.inbox.waiting()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    receipts = [await store.inbox.accept(arrival(number)) for number in range(400)]
    new = sum(not receipt.duplicate for receipt in receipts)
    return Report(before, refused, waiting_in_fault, new, await store.inbox.waiting())


async def main(what: str, directory: Path) -> None:
    """Do what the command line says."""
    store = open_store("", directory, inbox_limit=1_000_000)
    if what == "readonly" and os.geteuid() == 0:
        os.setuid(65534)
    try:
        await store.open()
    except StoreUnusable as error:
        os.write(1, msgspec.json.encode(Report(error=str(error))))
        return
    if what == "accept":
        await accept(store)
    if what == "full":
        os.write(1, msgspec.json.encode(await full(store)))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
