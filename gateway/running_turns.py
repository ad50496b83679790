"""What a session's running turn does, on whichever host: the pool knows those of this one, the store the others'."""

from __future__ import annotations

from typing import Protocol

from shared.errors import NotFound
from shared.store.port import Store
from worker.pool import TurnRow


class TurnsView(Protocol):
    """What is asked of the pool."""

    def running_turn(self, session: str) -> TurnRow | None:
        """Return the session's running turn."""

    def todo(self, session: str) -> bytes | None:
        """Return the todo list as a running turn has left it so far, None where the store's holds."""


class RunningTurns:
    """Looks at running turns; where other hosts may run them, in the checkpoints and the journal that they write."""

    def __init__(self, store: Store, pool: TurnsView) -> None:
        self._store = store
        self._pool = pool

    async def row(self, session: str) -> TurnRow | None:
        """Return the session's running turn, None if none runs. Raises StoreUnavailable."""
        row = self._pool.running_turn(session)
        if row is not None or not self._store.engine.shared:
            return row
        first = next(iter(await self._store.inbox.unanswered(session, 1)), None)
        if first is None:
            return None
        try:
            found = await self._store.inbox.trace(first.id)
        except NotFound:
            return None
        if not found.running:
            return None
        tool = next((call.name for call in reversed(found.calls) if call.ended_at is None), "")
        return TurnRow(found.id, session, None, found.claimed_at or 0.0, found.steps + 1, tool, found.attempts)

    async def todo(self, session: str) -> bytes:
        """Return the todo list (JSON array) as the session's last turn has left it so far. Raises StoreUnavailable."""
        todo = self._pool.todo(session)  # before the store: what is settled in between is found there
        if todo is None and self._store.engine.shared:
            todo = await self._store.sessions.unsettled_todo(session)
        return todo or (await self._store.sessions.conversation(session, 0)).todo or b"[]"
