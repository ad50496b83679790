"""Sessions that end with their call: removed once the reply is recorded, or when the call has lost its reader."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from shared.errors import NotFound, StoreError
from shared.messages import Reply, is_stateless, stateless_key
from shared.store.port import Store

LEFT_OVER_LIMIT = 10_000
#: how the keys of sessions begin whose calls have a key of their client's; message ids begin otherwise
KEYED = stateless_key("key_")
#: how long the answer of such a call is kept, seconds
KEEP_KEYED_S = 3600.0
EXPIRE_EVERY_S = 600.0
EXPIRED_AT_ONCE = 500


def keyed_session(key: str) -> str:
    """Return the key of the session of a stateless call whose client may send it again."""
    return KEYED + key


class Outcomes(Protocol):
    """Where those who follow a message are told how it ended."""

    async def look(self, message_id: str) -> None:
        """Tell them now, if it has and they do not know."""


class StatelessSessions:
    """Removes them; it is where delivery hands in the replies of the API, whose receiver has them already."""

    def __init__(self, store: Store, outcomes: Outcomes) -> None:
        self._store = store
        self._outcomes = outcomes

    async def take(self, reply: Reply) -> str:
        """Take a reply and return its sent id: its receiver follows the turn, or reads it in the session.

        A receiver that has not heard of the end, because the turn ran on another host, hears of it first.
        """
        await self._outcomes.look(reply.message_id)
        return reply.message_id

    async def taken(self, reply: Reply) -> None:
        """Remove the session of a reply that is recorded as sent, if it ends with its call."""
        if is_stateless(reply.session) and not self.is_keyed(reply.session):
            await self.remove(reply.session)

    @staticmethod
    def is_keyed(session: str) -> bool:
        """Tell whether a session is that of a call whose client may ask for its answer by a key."""
        return session.startswith(KEYED)

    async def remove(self, session: str) -> None:
        """Remove a session; one that cannot be removed now is removed when the gateway starts again."""
        with suppress(StoreError):
            await self._store.sessions.delete(session)

    async def left_over(self) -> list[str]:
        """Return those whose clients went away with the process that served them. Raises StoreUnavailable."""
        abandoned = await self._store.sessions.abandoned(LEFT_OVER_LIMIT)
        return [key for key in abandoned if not self.is_keyed(key)]

    async def run(self, left_over: Iterable[str]) -> None:
        """Remove those that are left over, and for ever those whose hosts died or whose answers are kept no longer."""
        for session in left_over:
            await self.remove(session)
        while True:
            with suppress(StoreError):
                await self._expire()
            await asyncio.sleep(EXPIRE_EVERY_S)
            if self._store.engine.shared:
                with suppress(StoreError):
                    for session in await self.left_over():
                        await self.remove(session)

    async def _expire(self) -> None:
        """Remove those of calls with a key whose answers nobody asks for any more. Raises StoreError."""
        while keys := await self._store.sessions.unused(KEYED, KEEP_KEYED_S, EXPIRED_AT_ONCE):
            for key in keys:
                with suppress(NotFound):
                    await self._store.sessions.delete(key)
