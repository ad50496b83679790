"""The outbox of the port: replies on their way to their platform."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shared.messages import Reply
from shared.store.sql.tables import outbox
from shared.store.sqlite.database import Database
from shared.store.sqlite.writer import Writer


class SqliteOutbox:
    """The Outbox of the embedded engine."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def due(self, host: str, limit: int, lease_s: float) -> list[Reply]:
        """Lease up to ``limit`` due replies, at most one a session: its oldest unsent one."""
        return await self._writer.run(outbox.lease, host, limit, lease_s)

    async def next_due_in_s(self) -> float | None:
        """Return the seconds until a reply is due: 0 if now, None if none is pending."""
        return await self._writer.run(outbox.next_due_in_s)

    async def split(self, reply: Reply, texts: Sequence[str]) -> list[Reply]:
        """Replace an unrendered row by one rendered row a chunk; the first stays leased. Raises StaleClaim."""
        return await self._writer.run(_split, reply, tuple(texts))

    async def delivered(self, reply: Reply, sent_id: str) -> None:
        """Record that the platform took this row. Raises StaleClaim."""
        await self._writer.run(outbox.sent, reply, sent_id)

    async def postpone(self, reply: Reply, delay_s: float, error: str) -> None:
        """Give the row back, due again after ``delay_s`` seconds, one attempt more. Raises StaleClaim."""
        await self._writer.run(outbox.postpone, reply, delay_s, error)

    async def refuse(self, reply: Reply, error: str) -> None:
        """Record that this row and the later chunks of its message can never be sent. Raises StaleClaim."""
        await self._writer.run(outbox.refuse, reply, error)

    async def readdress(self, reply: Reply, address: bytes) -> None:
        """Give the row and the later ones of its session a new address. Raises StaleClaim."""
        await self._writer.run(outbox.readdress, reply, address)


def _split(database: Database, reply: Reply, texts: tuple[str, ...]) -> list[Reply]:
    outbox.split(database, reply, texts)
    first = msgspec.structs.replace(reply, text=texts[0], rendered=True)
    later = [
        msgspec.structs.replace(first, part=reply.part + number, text=text, attempts=0, lease=0)
        for number, text in enumerate(texts[1:], 1)
    ]
    return [first, *later]
