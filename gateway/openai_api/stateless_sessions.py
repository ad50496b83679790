"""Sessions that end with their call: removed once the reply is recorded, or when the call has lost its reader."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from shared.errors import StoreError
from shared.messages import Reply, is_stateless
from shared.store.port import Store

LEFT_OVER_LIMIT = 10_000


class StatelessSessions:
    """Removes them; it is where delivery hands in the replies of the API, whose receiver has them already."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def take(self, reply: Reply) -> str:
        """Take a reply and return its sent id: its receiver follows the turn, or reads it in the session."""
        return reply.message_id

    async def taken(self, reply: Reply) -> None:
        """Remove the session of a reply that is recorded as sent, if it ends with its call."""
        if is_stateless(reply.session):
            await self.remove(reply.session)

    async def remove(self, session: str) -> None:
        """Remove a session; one that cannot be removed now is removed when the gateway starts again."""
        with suppress(StoreError):
            await self._store.sessions.delete(session)

    async def left_over(self) -> list[str]:
        """Return those whose clients went away with the process that served them. Raises StoreUnavailable."""
        return [row.key for row in await self._store.sessions.latest(LEFT_OVER_LIMIT) if is_stateless(row.key)]

    async def remove_all(self, sessions: Iterable[str]) -> None:
        """Remove them one after the other."""
        for session in sessions:
            await self.remove(session)
