"""Platforms on which the beginning of an answer is a message that is edited."""

from __future__ import annotations

from typing import ClassVar

from gateway.platforms.json_api import ApiAnswer, JsonApiAdapter, Place
from gateway.platforms.port import ApiRequest
from shared.messages import Reply


class ShownPlace(Place, frozen=True, omit_defaults=True, kw_only=True):
    """Where an answer goes of which the beginning may be shown."""

    #: the message that shows it
    shown: str = ""


class EditingAdapter(JsonApiAdapter, frozen=True):
    """What such platforms share; ``call`` writes over the message that the place shows."""

    place: ClassVar[type[ShownPlace]]
    #: the HTTP statuses or error codes that say that the shown message cannot be edited any more
    not_edited: ClassVar[frozenset[int | str]] = frozenset()

    def elsewhere(self, reply: Reply, found: ApiAnswer) -> bytes | None:
        """Send the answer as a new message where the shown one is gone."""
        place = self.place.of(reply.address)
        lost = place.shown and (found.status in self.not_edited or found.code in self.not_edited)
        return place.but(shown="") if lost else None

    def preview(self, reply: Reply) -> ApiRequest | None:
        """Send the beginning, then edit it."""
        return self.call(reply, 0.0)

    def placed(self, address: bytes, sent_id: str, shown: str = "") -> bytes:  # noqa: ARG002 - all of it is written anew
        """Remember the first message that showed it."""
        place = self.place.of(address)
        return place.but(shown=place.shown or sent_id)
