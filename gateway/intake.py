"""Accepts messages, each in the mode of its session, and does at once what is asked of a running turn by them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from shared.errors import StoreUnavailable
from shared.events import Event, Events
from shared.messages import Arrival, Claim, Ended, MessageState, Receipt, TurnStatus
from shared.profiles import Profiles
from shared.store.port import Store
from shared.when_busy import BusyRules, WhenBusy
from worker.pool import TurnObserver

#: how long a database that hosts share may take to answer an accept, in seconds
ANSWER_WITHIN_S = 10.0


class Wakeable(Protocol):
    """A part that looks for work when it is woken."""

    def wake(self) -> None:
        """Look for work now."""


class TurnRunner(Protocol):
    """Where the turns of messages run that are claimed as they are accepted; the pool's."""

    @property
    def idle_host(self) -> str:
        """The host that would run a turn at once, empty where none would."""

    def run(self, claim: Claim) -> None:
        """Run the turn of a claim."""


class TurnControl(Protocol):
    """Where running turns are told what their senders want; the pool's."""

    def stop(self, session: str, message_id: str) -> None:
        """End a message's turn now."""

    def steer(self, session: str) -> None:
        """Let the words that wait to join the session's turn do so."""


class Intake:
    """The one way into the inbox.

    ``observer`` is told of messages that end without a turn; ``pool`` is woken by a message that waits, ``delivery`` by
    one that wrote a reply. ``host`` is named in each message where others may run its turn: here its text and its
    answer are waited for, unless the message names another gateway, which shows and sends them.
    """

    def __init__(
        self,
        store: Store,
        turn_control: TurnControl,
        observer: TurnObserver,
        events: Events,
        rules: BusyRules,
        pool: Wakeable,
        delivery: Wakeable,
        clock: Callable[[], float] = time.time,
        host: str = "",
        profiles: Profiles = Profiles(),  # noqa: B008 - frozen
    ) -> None:
        self.store = store
        self._host = host
        self._turn_control = turn_control
        self._observer = observer
        self._events = events
        self._rules = rules
        self._pool = pool
        self._delivery = delivery
        self.clock = clock
        self._profiles = profiles
        self.runner: TurnRunner | None = None  #: for messages that are alone
        self._accepting = 0

    async def accept(self, arrival: Arrival, when_busy: WhenBusy | None = None) -> Receipt:
        """Accept a message in its session's mode, or in the one given. Raises InboxFull, StoreUnavailable."""
        mode = when_busy or self._rules.mode(arrival.session, arrival.user)
        gateway = arrival.gateway or self._host if self.store.engine.shared else ""
        texts = self._profiles.texts_of(arrival.session, arrival.user)
        busy_text = {WhenBusy.REJECT: texts.busy, WhenBusy.INTERRUPT: texts.newer}.get(mode, "")
        arrival = msgspec.structs.replace(arrival, when_busy=mode, busy_text=busy_text, gateway=gateway)
        alone = not self.store.engine.shared
        if alone:
            self._pool.wake()  # its look for work comes behind the message, and shares the commit
        receipt = await self._accept(arrival)
        self._emit(arrival, receipt)
        if receipt.duplicate:
            return receipt
        if receipt.claim is not None and self.runner is not None:
            asyncio.get_running_loop().call_soon(self.runner.run, receipt.claim)
        elif not alone and (receipt.state is MessageState.WAITING or arrival.command is not None):
            self._pool.wake()
        if receipt.state is not MessageState.WAITING or receipt.withdrawn:
            self._delivery.wake()
        if receipt.stops:
            self._turn_control.stop(arrival.session, receipt.stops)
        if receipt.joins:
            self._turn_control.steer(arrival.session)
        for told in receipt.withdrawn:
            self._events.emit(Event.MESSAGE_WITHDRAWN, message=told.message_id, session=arrival.session)
            ended = Ended(TurnStatus.INTERRUPTED, told.text, ())
            self._observer.settled(told.message_id, arrival.session, ended)
        if receipt.state is MessageState.DONE:
            ended = Ended(TurnStatus.REPLIED, receipt.answer, ())
            self._observer.settled(receipt.message_id, arrival.session, ended)
        return receipt

    async def _accept(self, arrival: Arrival) -> Receipt:
        """Accept a message; one that is alone is claimed with it, which saves the way of a look for work.

        Whoever sends a message again under its keys is told in time that a server does not answer: it may have the
        message all the same, and the same keys find it.
        """
        host = self.runner.idle_host if self.runner is not None and not self._accepting else ""
        self._accepting += 1
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S if arrival.dedupe and self.store.engine.shared else None):
                return await self.store.inbox.accept(arrival, host)
        except TimeoutError:
            raise StoreUnavailable(f"the database has not answered for {ANSWER_WITHIN_S:.0f} s") from None
        finally:
            self._accepting -= 1

    def _emit(self, arrival: Arrival, receipt: Receipt) -> None:
        names = {"message": receipt.message_id, "session": arrival.session, "platform": arrival.platform}
        if receipt.duplicate:
            self._events.emit(Event.MESSAGE_DUPLICATE, **names, ahead=receipt.ahead)
            return
        match receipt.state:
            case MessageState.REJECTED:
                self._events.emit(Event.MESSAGE_REJECTED, **names)
            case MessageState.DONE:
                self._events.emit(Event.COMMAND_ANSWERED, **names)
            case _:
                traced = {"traceparent": arrival.traceparent} if arrival.traceparent else {}
                self._events.emit(Event.MESSAGE_ACCEPTED, **names, **traced, ahead=receipt.ahead)
