"""The port to everything durable: six objects, each the one owner of its tables, over whichever engine there is.

``inbox`` accepts messages and keeps them; ``claims`` leases sessions, fences every write of a turn and settles
it; ``outbox`` holds replies until the platform took them; ``sessions`` reads what survives, ``spending`` what was used,
``audit`` who did what.
Every method is one transaction where it does not say otherwise, returns only once it is committed, and raises
StoreUnavailable when it could not commit: then nothing of it was written. Times are unix seconds of the store's own
clock. What an engine has to do is in ``shared/store/engine.py``.
"""

from __future__ import annotations

import contextlib

from shared.errors import StoreUnavailable, StoreUnusable
from shared.store.engine import Engine, Tell, tell_nobody
from shared.store.sql.audit import AuditTrail
from shared.store.sql.claims import Claims
from shared.store.sql.hosts import Hosts
from shared.store.sql.inbox import Inbox
from shared.store.sql.outbox import Outbox
from shared.store.sql.sessions import Sessions
from shared.store.sql.spending import Spending
from shared.store.sql.tables import copies

__all__ = ["AuditTrail", "Claims", "Hosts", "Inbox", "Outbox", "Sessions", "Spending", "Store"]


class Store:
    """Everything durable.

    ``inbox_limit`` is the number of waiting messages past which no new one is taken, ``sender_share`` the part of it
    that one sender may fill.
    """

    def __init__(self, engine: Engine, inbox_limit: int, sender_share: float = 1.0) -> None:
        self.engine = engine
        self.inbox = Inbox(engine, inbox_limit, sender_share)
        self.claims = Claims(engine)
        self.outbox = Outbox(engine)
        self.sessions = Sessions(engine)
        self.spending = Spending(engine)
        self.audit = AuditTrail(engine)
        self.hosts = Hosts(engine)
        self.signals = engine.signals

    async def open(self, tell: Tell = tell_nobody) -> None:
        """Open and migrate forward, which may take minutes: ``tell`` hears of it, on the loop. Raises StoreUnusable.

        What is accepted by a copy that is not whole would be lost with its next pass: it is refused.
        """
        await self.engine.open(tell)
        begun: list[str] = []
        with contextlib.suppress(StoreUnavailable):  # told by the health check
            begun = await self.engine.run("", copies.unfinished)
        if begun:
            await self.engine.close()
            raise StoreUnusable(
                f"the database is a copy of {begun[0]} that is not whole yet: stop the gateway there and call "
                "`python -m gateway migrate` again"
            )

    async def close(self) -> None:
        """Commit what is queued and close; later calls raise StoreUnavailable."""
        await self.engine.close()

    async def check(self) -> None:
        """Write and read back one row. Raises StoreUnavailable."""
        await self.engine.check()

    async def verify(self) -> None:
        """Read all there is and verify that it is sound; takes its time. Raises StoreUnusable and StoreUnavailable."""
        await self.engine.verify()
