"""Chats that get another name at their platform: what is said under the new one goes on in the session of the old one.

The session's key stays; what waits and what is on its way is sent to the new place. The store knows the names.
"""

from __future__ import annotations

from cachetools import TTLCache

from gateway.platforms.port import Adapter
from shared.events import Event, Events
from shared.store.port import Store

#: sessions that are known to mean themselves or another one, so that not every message needs a look into the store; of
#: a move that another gateway was told of this one knows after these seconds
MOST_KNOWN, KNOWN_S = 10_000, 60.0


class ChatMoves:
    """Knows which session a chat's messages belong to."""

    def __init__(self, store: Store, events: Events) -> None:
        self._store = store
        self._events = events
        self._known: TTLCache[str, str] = TTLCache(MOST_KNOWN, KNOWN_S)

    async def session_of(self, platform: Adapter, key: str) -> str:
        """Return the session that a key means. Raises StoreUnavailable."""
        if not platform.capabilities.chats_move:
            return key
        if key not in self._known:
            self._known[key] = await self._store.sessions.resolve(key)
        return self._known[key]

    async def move(self, platform: Adapter, old: str, new: str, place: bytes) -> None:
        """Let the chat of the session ``old`` go on as that of ``new``, at this address. Raises StoreUnavailable."""
        await self._store.sessions.move(old, new, lambda address: platform.moved(address, place))
        self._known.clear()
        self._events.emit(Event.CHAT_MOVED, platform=platform.name, session=old, to=new)
