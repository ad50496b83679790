"""Platforms on which the beginning of an answer is a message that is edited: their addresses have a field ``shown``."""

from __future__ import annotations

import msgspec

from gateway.platforms.port import Adapter, ApiRequest
from shared.messages import Reply


class EditingAdapter(Adapter, frozen=True):
    """What such platforms share; ``call`` writes over the message that the address shows."""

    def preview(self, reply: Reply) -> ApiRequest | None:
        """Send the beginning, then edit it."""
        return self.call(reply, 0.0)

    def placed(self, address: bytes, sent_id: str, shown: str = "") -> bytes:  # noqa: ARG002 - all of it is written anew
        """Remember the first message that showed it."""
        place = msgspec.json.decode(address, type=dict[str, msgspec.Raw])
        if sent_id:
            place.setdefault("shown", msgspec.Raw(msgspec.json.encode(sent_id)))
        return msgspec.json.encode(place)
