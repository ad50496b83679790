"""The spending of the port: what sessions have used, and who spends the budgets."""

from __future__ import annotations

from shared.budgets import Account, Budgets
from shared.store.engine import Database, Engine
from shared.store.sql.tables import spending
from shared.usage import Usage

#: rows removed in one transaction at most
EXPIRE_LIMIT = 500


class Spending:
    """What was used, by whom; claims write it."""

    def __init__(self, engine: Engine) -> None:
        self._run = engine.run

    async def usage(self, session: str) -> Usage:
        """Return what a session has used in its life, as far as its turns are settled; nothing for a new session."""
        return await self._run(session, spending.usage, session)

    async def accounts(self, budgets: Budgets, limit: int = 20) -> list[Account]:
        """Return every budget with who has spent most of it in its window that is now, and what is held."""
        return await self._run("", _accounts, budgets, limit)

    async def expire(self, keep_s: float) -> int:
        """Forget what was spent in hours longer ago than this; what sessions used in their life stays. Count rows."""
        while await self._run("", spending.roll_up):
            continue
        removed = 0
        while count := await self._run("", spending.expire, keep_s, EXPIRE_LIMIT):
            removed += count
        return removed


def _accounts(database: Database, budgets: Budgets, limit: int) -> list[Account]:
    while spending.roll_up(database):
        continue
    held = spending.held(database)
    return [Account(budget, held, tuple(spending.most(database, budget, limit))) for budget in budgets.budgets]
