"""The audit trail of the port: who did what, and who tried."""

from __future__ import annotations

from shared.store.engine import Engine
from shared.store.sql.tables import audit
from shared.traces import AuditEntry


class AuditTrail:
    """What operators did, the newest ten thousand acts, and what was refused to strangers, the newest thousand."""

    def __init__(self, engine: Engine) -> None:
        self._run = engine.run

    async def add(self, entry: AuditEntry) -> None:
        """Add an entry."""
        await self._run("", audit.add, entry)

    async def latest(self, limit: int) -> list[AuditEntry]:
        """Return entries, newest first."""
        return await self._run("", audit.latest, limit)
