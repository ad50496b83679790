"""Shows the beginning of an answer while it is written: by a platform's own stream, by edits, or not at all.

Where it is shown is kept in the message's address, at once here and in the store, so that the final text is written
over it, whole, also after a kill. How much of it is there only this process knows: a later one trusts none of it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

from cachetools import TTLCache

from gateway.courtesies import Courtesies
from gateway.platforms.port import Adapter, ApiResponse, Cancelled, Sent, TryLater, WithoutThread
from gateway.shown_turn import ShownTurn
from shared.errors import StoreError
from shared.messages import Reply, ReplyStatus
from shared.store.port import Store

#: how long a final answer waits for what is on its way to show its beginning
LONGEST_PREVIEW_S = 16.0

#: places of answers that may not have come into their rows any more, and how long they are remembered
MOST_PLACES, PLACE_S = 10_000, 600.0

#: a shown answer grows by this much at the least, characters
LEAST_GROWTH = 40
#: what may follow
GOES_ON = "\nx"


class Interrupts(Protocol):
    """Where a turn is ended."""

    async def interrupt(self, session: str) -> bool:
        """End the session's running turn."""


class AnswerPreviews:
    """Owns the places of answers whose beginnings are shown."""

    def __init__(self, store: Store, courtesies: Courtesies, turns: Interrupts) -> None:
        self._store = store
        self._courtesies = courtesies
        self._turns = turns
        self._places: TTLCache[str, bytes] = TTLCache(MOST_PLACES, PLACE_S)

    def place_of(self, message_id: str) -> bytes | None:
        """Return the address of an answer that is shown, None for one that is not."""
        return self._places.get(message_id)

    async def show(self, platform: Adapter, turn: ShownTurn, address: bytes) -> bytes:
        """Show what was written so far; return the address at which the answer has its place from now on."""
        text = "".join(turn.text)
        if turn.ended or not turn.streams or len(text) < turn.shown_length + LEAST_GROWTH:
            return address
        beginning = await self._beginning(platform, turn, text)
        if not beginning:
            return address
        reply = Reply(
            session=turn.session,
            message_id=f"{turn.message_id}.{turn.parts + 1}",
            part=0,
            platform=platform.name,
            text=beginning,
            address=address,
            status=ReplyStatus.REPLIED,
        )
        request = platform.preview(reply)
        if request is None:
            turn.streams = False
            return address
        if not self._courtesies.allowed(platform, address, request):
            turn.changed.set()  # again soon
            return address
        turn.shown_length, turn.parts = len(text), turn.parts + 1
        answer = await self._courtesies.send(platform, address, request)
        return await self._went_to(platform, turn, reply, answer)

    async def _went_to(self, platform: Adapter, turn: ShownTurn, reply: Reply, answer: ApiResponse | None) -> bytes:
        """Return the address of an answer of which something was sent there."""
        address = reply.address
        match platform.shown(reply, answer) if answer and answer.status < 500 else None:
            case Sent(sent_id):
                return await self._placed(platform, turn, address, sent_id, reply.text)
            case WithoutThread(elsewhere):  # its stream has ended: edits go on
                return await self._moved(turn, address, elsewhere)
            case TryLater():
                return address
            case Cancelled():
                await self._turns.interrupt(turn.session)
            case None:
                # nobody knows whether it is shown, as a server that fails may have done it all the same: a second one
                # could be beside it, or a piece be there twice
                self._places[turn.message_id] = platform.placed(address, "")
        turn.streams = False
        return address

    async def _beginning(self, platform: Adapter, turn: ShownTurn, text: str) -> str:
        """Return what can be shown: where that may only grow, what two looks have in common, whatever follows."""
        before, turn.beginning = turn.beginning, (await asyncio.to_thread(platform.chunks, text))[0]
        if not platform.capabilities.stream_only_grows:
            return turn.beginning
        going_on = (await asyncio.to_thread(platform.chunks, text + GOES_ON))[0]  # a block is closed further down then
        stable = common_beginning(common_beginning(before, turn.beginning), going_on).rstrip()
        if not stable.startswith(turn.shown):  # a new step, or a piece that is written otherwise after all
            return turn.beginning
        if before != turn.beginning:
            turn.changed.set()  # what is new is looked at once more
        return stable if len(stable) > len(turn.shown) else ""

    async def _placed(self, platform: Adapter, turn: ShownTurn, address: bytes, sent_id: str, shown: str) -> bytes:
        turn.shown = shown
        place = platform.placed(address, sent_id, shown)
        if place != address:
            self._places[turn.message_id] = place
        lasting = platform.placed(address, sent_id)
        if lasting != platform.placed(address, ""):
            await self._keep(turn, lasting)
        return place

    async def _moved(self, turn: ShownTurn, address: bytes, elsewhere: bytes) -> bytes:
        if elsewhere != address:
            self._places[turn.message_id] = elsewhere
            await self._keep(turn, elsewhere)
        turn.shown, turn.shown_length = "", 0  # all of it is sent there
        turn.changed.set()
        return elsewhere

    async def _keep(self, turn: ShownTurn, place: bytes) -> None:
        with suppress(StoreError):  # only a restart would need it
            await self._store.inbox.readdress(turn.session, turn.message_id, place)


def common_beginning(first: str, second: str) -> str:
    """Return what two texts begin with alike."""
    if second.startswith(first):
        return first
    alike = next((at for at, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), len(second))
    return first[:alike]
