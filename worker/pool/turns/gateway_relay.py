"""Tells gateways what turns on this host do: those that accepted the messages, and those on which pages are open.

A client waits, and a platform shows, where the message was accepted; the turn may run anywhere, and pages are open
anywhere. Nothing is only in these signals: the outcome is in the store, and a gateway that misses text shows the rest
of it at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
from cachetools import LRUCache

from shared.messages import Claim, Outcome, outcome_name
from shared.signals import Signal, SignalKind, Signals
from worker.pool.host_lease import HostLease
from worker.pool.turns.observer import TurnObserver

#: how long text is joined before it is sent, in seconds
JOIN_S = 0.05
#: characters in one signal at most: a notification holds 7,900 bytes, and one takes up to 6
MOST_CHARACTERS = 1000
#: bytes of a todo list, or of an event for pages, that fit into a signal whatever they hold
MOST_BYTES = 3000
#: messages whose gateway is remembered
MOST_MESSAGES = 50_000


@dataclass(slots=True)
class WrittenText:
    """The text of a running step."""

    #: the step that it belongs to, 0 before the first
    step: int = 0
    #: all of it
    text: str = ""
    #: what is not joined to it yet
    pieces: list[str] = field(default_factory=list)
    #: how many characters each gateway was sent; one that is not among them does not know of the turn
    sent: dict[str, int] = field(default_factory=dict)


class GatewayRelay:
    """A TurnObserver around that of this host: what concerns other gateways is told to those too."""

    def __init__(self, observer: TurnObserver, signals: Signals, lease: HostLease) -> None:
        self._observer = observer
        self._signals = signals
        self._lease = lease
        self._gateways: LRUCache[str, str] = LRUCache(MOST_MESSAGES)
        self._texts: dict[tuple[str, str], WrittenText] = {}
        self._timer: asyncio.TimerHandle | None = None

    def claimed(self, claim: Claim) -> None:
        """Learn which gateways the messages of a claim came from."""
        for message in claim.messages:
            if message.gateway not in {"", self._lease.host}:
                self._gateways[message.id] = message.gateway

    def turn_started(self, message_id: str, session: str, worker: str) -> None:
        """Tell of a turn that was given to a worker."""
        self._observer.turn_started(message_id, session, worker)
        if self._lease.shared:
            told = self._send(Signal(SignalKind.STARTED, session, message_id, name=f"{self._lease.host}/{worker}"))
            self._texts[message_id, session] = WrittenText(sent=dict.fromkeys(told, 0))

    def delta(self, message_id: str, session: str, step: int, text: str) -> None:
        """Tell of more text, joined with what comes in the next moment."""
        self._observer.delta(message_id, session, step, text)
        written = self._texts.get((message_id, session))
        if written is None:
            return
        if written.step != step:
            self._flush_one(message_id, session)
            written.step, written.text, written.sent = step, "", dict.fromkeys(written.sent, 0)
        written.pieces.append(text)
        if self._timer is None and self._readers(message_id, session):
            self._timer = asyncio.get_running_loop().call_later(JOIN_S, self._flush)

    def text_restarted(self, message_id: str, session: str, step: int) -> None:
        """Tell of text that is void."""
        self._observer.text_restarted(message_id, session, step)
        if (written := self._texts.get((message_id, session))) is not None:
            written.text, written.sent = "", dict.fromkeys(written.sent, 0)
            written.pieces.clear()
            self._send(Signal(SignalKind.STARTED, session, message_id, step))

    def model_away(self, message_id: str, session: str, model: str, problem: str) -> None:
        """Tell of a turn that waits for a model."""
        self._observer.model_away(message_id, session, model, problem)
        self._send(Signal(SignalKind.AWAY, session, message_id, name=model, text=problem[:MOST_CHARACTERS]))

    def tool_started(self, message_id: str, session: str, name: str) -> None:
        """Tell of a tool call that begins."""
        self._observer.tool_started(message_id, session, name)
        self._send(Signal(SignalKind.TOOL, session, message_id, text=name))

    def tool_said(self, message_id: str, session: str, name: str, text: str) -> None:
        """Tell how far a tool is."""
        self._observer.tool_said(message_id, session, name, text)
        said = Signal(SignalKind.SAID, session, message_id, name=name, text=text[:MOST_CHARACTERS])
        self._send_to(self._readers(message_id, session), said)

    def todo_changed(self, session: str, todo: bytes) -> None:
        """Tell of a changed todo list."""
        self._observer.todo_changed(session, todo)
        text = todo.decode() if len(todo) <= MOST_BYTES else ""
        self._send_to(self._lease.watchers(), Signal(SignalKind.TODO, session, text=text))

    def settling(self, session: str) -> None:
        """Tell of an outcome that goes to the store."""
        self._observer.settling(session)

    def settled(self, message_id: str, session: str, outcome: Outcome) -> None:
        """Tell of an outcome that is committed; the gateway reads it in the store."""
        self._observer.settled(message_id, session, outcome)
        self._flush_one(message_id, session)
        self._texts.pop((message_id, session), None)
        self._send(Signal(SignalKind.ENDED, session, message_id, text=outcome_name(outcome)))
        self._gateways.pop(message_id, None)
        self._lease.tell_gateways(Signal(SignalKind.DUE))

    def tell_pages(self, name: str, fields: Mapping[str, object]) -> None:
        """Tell the pages of other gateways a named event."""
        if watchers := self._lease.watchers():
            body = msgspec.json.encode(fields)
            if len(body) <= MOST_BYTES:
                self._send_to(watchers, Signal(SignalKind.PAGE, name=name, text=body.decode()))

    def _send(self, signal: Signal) -> set[str]:
        """Send a signal to whom a turn concerns; return who that is."""
        hosts = self._own(signal.message_id) | set(self._lease.watchers())
        self._send_to(hosts, signal)
        return hosts

    def _send_to(self, hosts: Iterable[str], signal: Signal) -> None:
        for host in hosts:
            self._signals.send(host, signal)

    def _own(self, message_id: str) -> set[str]:
        gateway = self._gateways.get(message_id)
        return {gateway} if gateway else set()

    def _readers(self, message_id: str, session: str) -> set[str]:
        """Return who reads the text of a turn."""
        return self._own(message_id) | set(self._lease.watchers(session))

    def _flush(self) -> None:
        self._timer = None
        for message_id, session in list(self._texts):
            self._flush_one(message_id, session)

    def _flush_one(self, message_id: str, session: str) -> None:
        """Send each reader what it has not got: all of the step to one that came in the middle."""
        written = self._texts.get((message_id, session))
        if written is None or not written.pieces:
            return
        written.text += "".join(written.pieces)
        written.pieces.clear()
        for host in self._readers(message_id, session):
            if host not in written.sent:
                self._signals.send(host, Signal(SignalKind.STARTED, session, message_id, name=self._lease.host))
            start = written.sent.get(host, 0)
            for begin in range(start, len(written.text), MOST_CHARACTERS):
                piece = written.text[begin : begin + MOST_CHARACTERS]
                text = Signal(SignalKind.TEXT, session, message_id, written.step, piece, offset=begin)
                self._signals.send(host, text)
            written.sent[host] = len(written.text)
