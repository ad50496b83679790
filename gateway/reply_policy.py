"""What the agent answers: what is said to it, and, where the operator wants it, what is said in a thread it is in."""

from __future__ import annotations

from collections.abc import Collection

from gateway.platforms.port import Adapter, Inbound, Kind
from shared.errors import NotFound
from shared.store.port import Store

#: what is a message or stands for one
SPOKEN = frozenset({Kind.MESSAGE, Kind.COMMAND, Kind.ACTION})


class ReplyPolicy:
    """Decides what concerns the agent; ``threads`` are the platforms where it answers all of its threads, or ``*``."""

    def __init__(self, store: Store, threads: Collection[str]) -> None:
        self._store = store
        self._threads = frozenset(threads)

    async def concerns_agent(self, platform: Adapter, inbound: Inbound) -> bool:
        """Tell whether an event is said to the agent, or changes what was said to it. Raises StoreUnavailable."""
        if inbound.kind not in SPOKEN or inbound.addressed:
            return True
        if not inbound.threaded or not {platform.name, "*"} & self._threads:
            return False
        try:
            await self._store.sessions.summary(inbound.session)
        except NotFound:  # nobody has spoken to the agent there
            return False
        return True
