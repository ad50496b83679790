"""Learns what people call a session where its platform tells that only to those who ask: LINE, Matrix and Slack.

message accepted ─▶ learn ─▶ one call a second at the most ─▶ the session's title

A courtesy: no message waits for it, and what cannot be had now is asked again with a message of another day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from cachetools import TTLCache

from gateway.platform_calls import PlatformCalls
from gateway.platforms.port import Adapter, Inbound
from shared.store.port import Store

#: how long a name holds, and of how many sessions and channels that is kept
NAMED_S, MOST_NAMED = 86_400.0, 10_000
#: sessions that wait for their names; those of more learn theirs with a later message
MOST_WAITING = 1000
#: seconds between two calls, so that the answers have the platform's limits to themselves
GAP_S = 1.0


class SessionNames:
    """Owns who waits for a name; ``run`` asks for it."""

    def __init__(self, store: Store, calls: PlatformCalls, gap_s: float = GAP_S) -> None:
        self._store = store
        self._calls = calls
        self._gap_s = gap_s
        self._waiting: asyncio.Queue[tuple[Adapter, Inbound]] = asyncio.Queue(MOST_WAITING)
        self._asked: TTLCache[str, bool] = TTLCache(MOST_NAMED, NAMED_S)
        self._names: TTLCache[str, str] = TTLCache(MOST_NAMED, NAMED_S)

    def learn(self, platform: Adapter, inbound: Inbound) -> None:
        """Note a session whose message did not tell its name; at once, whatever comes of it."""
        if inbound.title or inbound.session in self._asked or self._waiting.full() or not platform.name_calls(inbound):
            return
        self._asked[inbound.session] = True
        self._waiting.put_nowait((platform, inbound))

    async def run(self) -> None:
        """Ask for the names of those who wait, for ever. Raises StoreError."""
        while True:
            platform, inbound = await self._waiting.get()
            if name := await self._name_of(platform, inbound):
                await self._store.sessions.rename(inbound.session, name)

    async def _name_of(self, platform: Adapter, inbound: Inbound) -> str:
        """Ask one call after the other until one is answered with a name; a thread is called as its channel is."""
        for call in platform.name_calls(inbound):
            name = self._names.get(call.url)
            if name is None:
                answer = await self._calls.ask(platform, call)
                await asyncio.sleep(self._gap_s)
                name = platform.told_name(answer) if answer and answer.status == 200 else ""
                if answer and answer.status != 429 and answer.status < 500:
                    self._names[call.url] = name
            if name:
                return name
        return ""


async def titles_entry(store: Store, sessions: Collection[str]) -> dict[str, dict[str, str]]:
    """Return the entry of an answer with what people call these sessions; empty where none has such a name."""
    titles = await store.sessions.titles(sessions)
    return {"titles": titles} if titles else {}
