"""A process of several that accept, claim and settle messages of the same sessions under one budget.

``python -m tests.shared.store.overlapping_process URL NUMBER SESSIONS BUDGET``: one message to each session, each turn
uses STEP_TOKENS where the budget lets it, until the process is told to end by the end of its input. Prints a line for
each message settled, with its tokens.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from shared.budgets import Budget, Budgets, BudgetWindow, Scope, Spend
from shared.messages import Arrival, Claim
from shared.store import Store, open_store
from shared.usage import NOTHING, Usage
from tests.shared.store.scratch import ended

STEP_TOKENS = 500
STEP = Usage(1, 0, STEP_TOKENS - 100, 100, models={"openai:m": Usage(1, 0, STEP_TOKENS - 100, 100)})
CLAIM_AT_ONCE, LEASE_S, PAUSE_S = 20, 30.0, 0.01


def budgets_of(tokens: int) -> Budgets:
    """Return the budget of one user's day, all messages being theirs."""
    return Budgets((Budget(Scope.USER, tokens, False, BudgetWindow.DAY),))


async def settle(store: Store, claim: Claim) -> None:
    """End a turn, with a step if the budget allows one."""
    usage = STEP if claim.allowance is not None and claim.allowance.covers(Spend()) else NOTHING
    await store.claims.settle(claim.ref, ended("hello", usage=usage))
    for message in claim.messages:
        sys.stdout.write(f"{message.id} {usage.tokens}\n")
        sys.stdout.flush()


async def accept(store: Store, number: int, sessions: int) -> None:
    """Accept a message to each session."""
    for session in range(sessions):
        name = f"{number}-{session}"
        key = f"a:b:{session}"
        await store.inbox.accept(Arrival(f"msg_{name}", key, "a", "ann", "hello", b"{}", (name,), 3600, time.time()))


async def work(store: Store, host: str, budgets: Budgets) -> None:
    """Claim and settle without an end."""
    while True:
        batch = await store.claims.claim(host, CLAIM_AT_ONCE, LEASE_S, budgets=budgets)
        await asyncio.gather(*(settle(store, claim) for claim in batch.claims))
        if not batch.claims:
            await asyncio.sleep(PAUSE_S)


async def main() -> None:
    """Run until the end of the input."""
    url, number, sessions, tokens = sys.argv[1], *map(int, sys.argv[2:5])
    store = open_store(url, Path("/nowhere"), inbox_limit=100_000)
    await store.open()
    working = asyncio.gather(accept(store, number, sessions), work(store, f"h{number}", budgets_of(tokens)))
    told = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        working.result()  # raises what went wrong
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())
