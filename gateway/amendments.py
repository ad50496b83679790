"""What becomes of a message that its sender edits or takes back on the platform.

One that waits gets its new words; one whose turn runs is interrupted for them. One that is taken back is undone as
``/undo`` does it, where it is the session's last one; whoever takes a message back is not answered. What is answered
already stays.
"""

from __future__ import annotations

import msgspec

from gateway.commands import order
from gateway.intake import Intake
from gateway.platforms.port import Inbound, Kind
from shared.messages import Arrival
from shared.store.port import Store
from shared.texts import ENGLISH, Texts
from shared.when_busy import WhenBusy


class Amendments:
    """Carries edits and deletions out."""

    def __init__(self, store: Store, intake: Intake) -> None:
        self._store = store
        self._intake = intake

    async def amend(self, inbound: Inbound, arrival: Arrival, texts: Texts = ENGLISH) -> str:
        """Carry one out; ``arrival`` is the event as a message. Return the id of what came of it, or empty."""
        if inbound.kind is Kind.DELETE:
            if not await self._store.inbox.is_last_waiting(inbound.session, inbound.amends):
                return ""
            silent = msgspec.structs.replace(order("/undo", texts), done="", nothing="", withdrawn="")
            undone = msgspec.structs.replace(arrival, text="/undo", command=silent, quiet_s=0.0)
            return (await self._intake.accept(undone)).message_id
        waits = await self._store.inbox.amend(inbound.session, inbound.amends, arrival.text)
        if waits is not False:
            return ""
        return (await self._intake.accept(arrival, WhenBusy.INTERRUPT)).message_id
