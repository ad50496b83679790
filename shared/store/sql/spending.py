"""The spending of the port: what sessions have used, and who spends the budgets."""

from __future__ import annotations

from shared.budgets import Account, Budgets
from shared.store.sql.tables import spending
from shared.store.sqlite.database import Database
from shared.store.sqlite.writer import Writer
from shared.usage import Usage

#: rows removed in one transaction at most
EXPIRE_LIMIT = 500


class SqliteSpending:
    """The Spending of the embedded engine."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def usage(self, session: str) -> Usage:
        """Return what a session has used in its life, as far as its turns are settled."""
        return await self._writer.run(spending.usage, session)

    async def accounts(self, budgets: Budgets, limit: int = 20) -> list[Account]:
        """Return every budget with who has spent most of it in its window that is now, and what is held of it."""
        return await self._writer.run(_accounts, budgets, limit)

    async def expire(self, keep_s: float) -> int:
        """Forget what was spent in hours longer ago than this; count rows."""
        removed = 0
        while count := await self._writer.run(spending.expire, keep_s, EXPIRE_LIMIT):
            removed += count
        return removed


def _accounts(database: Database, budgets: Budgets, limit: int) -> list[Account]:
    held = spending.held(database)
    return [Account(budget, held, tuple(spending.most(database, budget, limit))) for budget in budgets.budgets]
