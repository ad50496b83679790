"""Takes what people do in chats, once it is verified and parsed: who may talk, how often, what it is, where it goes.

moved chat? ─▶ reply policy ─▶ edit? ─▶ access ─▶ rate ─▶ question? ─▶ inbox
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gateway.access import Access, Admission
from gateway.amendments import Amendments
from gateway.announcements import Announcements
from gateway.arrival import arrival_of
from gateway.chat_moves import ChatMoves
from gateway.commands import AskedQuery, Asker, Commands
from gateway.intake import Intake
from gateway.pairings import Pairings
from gateway.platforms.port import Adapter, Inbound, Kind
from gateway.queue_notice import QueueNotice
from gateway.reply_policy import ReplyPolicy
from gateway.responses import Refused
from gateway.sender_rates import SenderRates
from gateway.session_names import SessionNames
from shared.command import Command, CommandKind
from shared.events import Event, Events
from shared.ids import MessageIds
from shared.messages import Arrival, MessageState
from shared.platform_settings import SenderRate, WebhookSettings
from shared.texts import Texts

#: commands that a sender may send whatever GATEHOUSE_USER_RATE says, and as many stops: each is answered at once, past
#: the limits of the inbox, and the answers of one sender must not fill the rate that a platform takes of all
COMMAND_RATE = SenderRate(60, 60.0, "span_minute")
#: what changes an earlier message
AMENDING = frozenset({Kind.EDIT, Kind.DELETE})

#: why a message of somebody who may not talk was ignored, as the operator is told
NOT_ADMITTED = {
    Admission.REFUSED: "this sender is not among those who may talk (GATEHOUSE_ALLOW)",
    Admission.STRANGER: "this sender is a stranger; an operator has to approve the pairing code",
}


class Taken(msgspec.Struct, frozen=True):
    """What became of an event."""

    #: whether it concerned the agent at all
    concerned: bool = True
    #: the id of the message that it made or is, empty where it made none
    message_id: str = ""
    #: what its sender is told of whom nothing is taken
    declined: str = ""


#: returns the gateway that answers at an address of a platform, empty for this one
GatewayOf = Callable[[Adapter, bytes], str]


def this_gateway(platform: Adapter, address: bytes) -> str:  # noqa: ARG001 - all of them
    """Return this gateway."""
    return ""


class InboundEvents:
    """The way of one event; see the module's picture. ``debounce_s`` is the quiet time of ``Arrival``."""

    def __init__(
        self,
        intake: Intake,
        access: Access,
        pairings: Pairings,
        events: Events,
        commands: Commands,
        announcements: Announcements,
        queue_notice: QueueNotice,
        names: SessionNames,
        settings: WebhookSettings,
        debounce_s: float = 0.0,
    ) -> None:
        self._intake = intake
        self._access = access
        self._pairings = pairings
        self._events = events
        self._commands = commands
        self._announcements = announcements
        self._queue_notice = queue_notice
        self._names = names
        self._settings = settings
        self._debounce_s = debounce_s
        self._ids = MessageIds()
        self._amendments = Amendments(intake.store, intake)
        self._moves = ChatMoves(intake.store, events)
        self.gateway_of: GatewayOf = this_gateway
        self._policy = ReplyPolicy(intake.store, settings.answer_threads)
        self._rates = SenderRates(settings.user_rate)
        self._command_rates = SenderRates(COMMAND_RATE)
        self._stop_rates = SenderRates(COMMAND_RATE)

    async def take(self, platform: Adapter, inbound: Inbound, traceparent: str) -> Taken:
        """Take one event. Raises InboxFull, StoreUnavailable, and Refused for a program that posts too often."""
        if inbound.kind is Kind.MOVED:
            await self._moves.move(platform, inbound.amends, inbound.session, inbound.reply)
            return Taken()
        session = await self._moves.session_of(platform, inbound.session)
        if session != inbound.session:
            inbound = msgspec.structs.replace(inbound, session=session)
        if not await self._policy.concerns_agent(platform, inbound):
            return Taken(concerned=False)
        if inbound.kind in AMENDING:  # what it amends was let in, or is not there
            arrival, texts = self._arrival(platform, inbound, traceparent, None), self._texts_of(inbound)
            amended = await self._amendments.amend(inbound, arrival, texts)
            return Taken(message_id=amended)
        admission = await self._access.admit(platform, inbound)
        if admission is not Admission.ALLOWED:
            return await self._turn_away(platform, inbound, admission)
        return await self._accept(platform, inbound, traceparent)

    async def _accept(self, platform: Adapter, inbound: Inbound, traceparent: str) -> Taken:
        command = self._commands.find(inbound.text, Asker(inbound.session, inbound.user))
        sender = f"{platform.name}:{inbound.user}"
        stops = isinstance(command, Command) and command.kind is CommandKind.STOP  # that is always let through
        if not stops and (wait_s := self._rates.take(sender)):
            return await self._slow_down(platform, inbound, wait_s, self._rates)
        commands = self._stop_rates if stops else self._command_rates
        if command is not None and (wait_s := commands.take(sender)):
            return await self._slow_down(platform, inbound, wait_s, commands)
        if isinstance(command, AskedQuery):
            await self._commands.answer(platform, inbound, command)
            self._events.emit(Event.COMMAND_ANSWERED, session=inbound.session, platform=platform.name)
            return Taken()
        arrival = self._arrival(platform, inbound, traceparent, command)
        if self._intake.store.engine.shared:
            arrival = msgspec.structs.replace(arrival, gateway=self.gateway_of(platform, inbound.reply))
        receipt = await self._intake.accept(arrival)
        if receipt.duplicate:
            if not stops:
                self._rates.give_back(sender)
            if command is not None:
                commands.give_back(sender)
            return Taken(message_id=receipt.message_id)
        self._names.learn(platform, inbound)
        if receipt.state is MessageState.WAITING:
            await self._queue_notice.tell(platform, inbound, receipt, self._texts_of(inbound))
        return Taken(message_id=receipt.message_id)

    async def _turn_away(self, platform: Adapter, inbound: Inbound, admission: Admission) -> Taken:
        event = Event.STRANGER if admission is Admission.STRANGER else Event.MESSAGE_REFUSED
        self._events.emit(event, platform=platform.name, user=inbound.user, reason=NOT_ADMITTED[admission])
        if not inbound.addressed:
            return Taken()
        if admission is Admission.REFUSED:
            return Taken(declined=self._texts_of(inbound).not_listed)
        return Taken(declined=await self._pairings.announce_code(platform, inbound, self._texts_of(inbound)))

    async def _slow_down(self, platform: Adapter, inbound: Inbound, wait_s: float, rates: SenderRates) -> Taken:
        """Turn a message of one who sends too many away; one that is known gets its answer again."""
        if known := await self._intake.store.inbox.known(inbound.session, inbound.dedupe):
            return Taken(message_id=known)
        sender = f"{platform.name}:{inbound.user}"
        self._events.emit(Event.MESSAGE_REFUSED, platform=platform.name, user=inbound.user, reason="sends too many")
        again_s = max(1, round(wait_s + 0.5))
        if not platform.capabilities.announces_queue_position:  # a program sends it, and will send it again
            raise Refused(429, f"{sender} sends too much", headers={"Retry-After": str(again_s)})
        texts = self._texts_of(inbound)
        rate = rates.rate
        span = getattr(texts, rate.span) if rate else ""
        text = texts.too_many.format(count=rate.count if rate else 0, span=span, wait_s=again_s)
        if platform.declined(text) is None and rates.is_to_be_told(sender):
            await self._announcements.announce(platform, inbound, text, inbound.dedupe, wait_s)
        return Taken(declined=text)

    def _texts_of(self, inbound: Inbound) -> Texts:
        return self._commands.texts_of(Asker(inbound.session, inbound.user))

    def _arrival(self, platform: Adapter, inbound: Inbound, traceparent: str, command: Command | None) -> Arrival:
        return arrival_of(
            platform,
            inbound,
            self._intake.clock(),
            self._settings.attachments,
            self._ids.new(),
            command=command,
            traceparent=traceparent,
            debounce_s=self._debounce_s,
        )
