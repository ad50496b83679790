"""What the gateway says by itself: replies that answer no accepted message, each once."""

from __future__ import annotations

from gateway.intake import Wakeable
from gateway.platforms.port import Adapter, Inbound
from shared.ids import new_message_id
from shared.messages import Reply, ReplyStatus
from shared.store.port import Store


class Announcements:
    """Puts texts of the gateway on their way: pairing codes, places in the queue, answers to questions."""

    def __init__(self, store: Store, delivery: Wakeable) -> None:
        self._store = store
        self._delivery = delivery

    async def announce(
        self, platform: Adapter, inbound: Inbound, text: str, dedupe: tuple[str, ...], dedupe_ttl_s: float
    ) -> bool:
        """Send a text to where somebody wrote, unless any of its dedupe keys is known; tell whether it is sent.

        Raises StoreUnavailable.
        """
        reply = Reply(
            session=inbound.session,
            message_id=new_message_id(),
            part=0,
            platform=platform.name,
            text=text,
            address=inbound.reply,
            status=ReplyStatus.REPLIED,
            sender=f"{platform.name}:{inbound.user}",
        )
        if new := await self._store.inbox.announce(reply, dedupe, dedupe_ttl_s):
            self._delivery.wake()
        return new
