"""Tells the gateways that accepted messages what turns on this host do with them.

A client waits, and a platform shows, where the message was accepted; the turn may run anywhere. Nothing is only in
these signals: the outcome is in the store, and a gateway that misses text shows the rest of it at the end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from cachetools import LRUCache

from shared.messages import Claim, Ended, Outcome
from shared.signals import Signal, SignalKind, Signals
from worker.pool.turns.observer import TurnObserver

#: how long text is joined before it is sent, in seconds
JOIN_S = 0.05
#: characters in one signal at most: a notification holds 7,900 bytes, and one takes up to 6
MOST_CHARACTERS = 1000
#: messages whose gateway is remembered
MOST_MESSAGES = 50_000


@dataclass(slots=True)
class WrittenText:
    """The text of a running step."""

    #: the step that it belongs to
    step: int
    #: characters sent
    sent: int = 0
    #: what is not sent yet
    unsent: list[str] = field(default_factory=list)


class GatewayRelay:
    """A TurnObserver around that of this host: what concerns a message of another gateway is told to that one too."""

    def __init__(self, observer: TurnObserver, signals: Signals, host: str) -> None:
        self._observer = observer
        self._signals = signals
        self._host = host
        self._gateways: LRUCache[str, str] = LRUCache(MOST_MESSAGES)
        self._texts: dict[tuple[str, str], WrittenText] = {}
        self._timer: asyncio.TimerHandle | None = None

    def claimed(self, claim: Claim) -> None:
        """Learn which gateways the messages of a claim came from."""
        for message in claim.messages:
            if message.gateway not in {"", self._host}:
                self._gateways[message.id] = message.gateway

    def turn_started(self, message_id: str, session: str, worker: str) -> None:
        """Tell of a turn that was given to a worker."""
        self._observer.turn_started(message_id, session, worker)
        self._texts.pop((message_id, session), None)
        self._send(Signal(SignalKind.STARTED, session, message_id))

    def delta(self, message_id: str, session: str, step: int, text: str) -> None:
        """Tell of more text, joined with what comes in the next moment."""
        self._observer.delta(message_id, session, step, text)
        if message_id not in self._gateways:
            return
        written = self._texts.get((message_id, session))
        if written is None or written.step != step:
            self._flush_one(message_id, session)
            written = self._texts[message_id, session] = WrittenText(step)
        written.unsent.append(text)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(JOIN_S, self._flush)

    def text_restarted(self, message_id: str, session: str, step: int) -> None:
        """Tell of text that is void."""
        self._observer.text_restarted(message_id, session, step)
        self._texts.pop((message_id, session), None)
        self._send(Signal(SignalKind.STARTED, session, message_id, step))

    def model_away(self, message_id: str, session: str, model: str, problem: str) -> None:
        """Tell of a turn that waits for a model, to those on this host."""
        self._observer.model_away(message_id, session, model, problem)

    def tool_started(self, message_id: str, session: str, name: str) -> None:
        """Tell of a tool call that begins."""
        self._observer.tool_started(message_id, session, name)
        self._send(Signal(SignalKind.TOOL, session, message_id, text=name))

    def tool_said(self, message_id: str, session: str, name: str, text: str) -> None:
        """Tell how far a tool is, to those on this host."""
        self._observer.tool_said(message_id, session, name, text)

    def todo_changed(self, session: str, todo: bytes) -> None:
        """Tell of a changed todo list, to those on this host."""
        self._observer.todo_changed(session, todo)

    def settled(self, message_id: str, session: str, outcome: Outcome) -> None:
        """Tell of an outcome that is committed; the gateway reads it in the store."""
        self._observer.settled(message_id, session, outcome)
        self._flush_one(message_id, session)
        self._texts.pop((message_id, session), None)
        state = outcome.status.value if isinstance(outcome, Ended) else type(outcome).__name__.lower()
        self._send(Signal(SignalKind.ENDED, session, message_id, text=state))
        self._gateways.pop(message_id, None)

    def _send(self, signal: Signal) -> None:
        if gateway := self._gateways.get(signal.message_id):
            self._signals.send(gateway, signal)

    def _flush(self) -> None:
        self._timer = None
        for message_id, session in list(self._texts):
            self._flush_one(message_id, session)

    def _flush_one(self, message_id: str, session: str) -> None:
        written = self._texts.get((message_id, session))
        if written is None or not written.unsent:
            return
        text = "".join(written.unsent)
        written.unsent.clear()
        for start in range(0, len(text), MOST_CHARACTERS):
            piece = text[start : start + MOST_CHARACTERS]
            self._send(Signal(SignalKind.TEXT, session, message_id, written.step, piece, written.sent))
            written.sent += len(piece)
