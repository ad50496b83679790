"""Tells a person who has to wait the place in the queue, once a minute at most, or which answer is waited for.

It is a courtesy: a store that cannot commit it right now does not make the message's own 200 a failure.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from cachetools import TTLCache

from gateway.announcements import Announcements
from gateway.platforms.port import Adapter, Inbound
from shared.errors import StoreUnavailable
from shared.messages import Receipt
from shared.texts import ENGLISH, Texts

#: a session is not told again within this many seconds
AGAIN_S = 60.0

#: a person is told where more than this many rounds of turns have to end first
ROUNDS = 2

#: sessions whose last notice is remembered here, before the store is asked
MOST_REMEMBERED = 100_000


class PoolView(Protocol):
    """What is asked of the pool."""

    @property
    def load(self) -> tuple[int, int]:
        """How many turns have begun on all hosts together, and how many they run at once."""


class QueueNotice:
    """Announces places."""

    def __init__(self, announcements: Announcements, pool: PoolView) -> None:
        self._announcements = announcements
        self._pool = pool
        self._told: TTLCache[str, bool] = TTLCache(MOST_REMEMBERED, AGAIN_S)

    async def tell(self, platform: Adapter, inbound: Inbound, receipt: Receipt, texts: Texts = ENGLISH) -> None:
        """Announce the place of a message that was just accepted, where it has to wait and the platform shows it.

        Where the acknowledgement promised an answer, one that shares another's is told so in its place.
        """
        if receipt.shares_turn and platform.capabilities.promises_answer:
            with suppress(StoreUnavailable):
                once = (f"shares a turn {receipt.message_id}",)
                await self._announcements.announce(platform, inbound, texts.shared, once, AGAIN_S)
            return
        running, slots = self._pool.load
        let_go = max(0, running - slots)  # those wait behind this one
        crowded = slots > 0 and receipt.ahead - let_go > ROUNDS * slots
        if not crowded or not platform.capabilities.announces_queue_position or inbound.session in self._told:
            return
        self._told[inbound.session] = True
        place = max(1, receipt.ahead - running + 1)
        text = texts.queued.format(place=place)
        with suppress(StoreUnavailable):
            await self._announcements.announce(platform, inbound, text, ("place in the queue",), AGAIN_S)
