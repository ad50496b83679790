"""What senders ask of turns that run: to end, or to take in words that came later.

A wish may come before the claim it is about: the store commits both, and tells of them in any order. Then it is kept
until the turn begins; what is lost with it here is in the store, and found with the next claim.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

from shared.errors import FrameTooLarge
from shared.events import Event, Events
from shared.messages import JoiningWords
from worker.frames import Interrupt, Steer
from worker.pool.turns.active_turn import ActiveTurn
from worker.pool.turns.crash_policy import INTERRUPTED_TEXT
from worker.pool.turns.turns import Turns

#: wishes kept for turns that have not begun here; past it the oldest are dropped: those turns are over, or elsewhere
EARLY_LIMIT = 1000


class TurnControl:
    """Owns what is asked by one host's senders; ``spawn`` runs what has to wait for the store."""

    def __init__(self, turns: Turns, events: Events, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._turns = turns
        self._events = events
        self._spawn = spawn
        self._early_stops: dict[str, None] = {}
        self._early_words: dict[str, None] = {}

    def stop(self, session: str, message_id: str) -> None:
        """End a message's turn now, or when it begins."""
        turn = self._turns.of_session(session)
        if turn is not None and turn.message_id == message_id:
            self.interrupt(turn)
        elif not self._turns.is_ending(message_id):
            keep(self._early_stops, message_id)

    def steer(self, session: str) -> None:
        """Let the words that wait to join the session's turn do so, now or when it begins."""
        turn = self._turns.of_session(session)
        if turn is not None:
            self._spawn(self._join(turn))
        else:
            keep(self._early_words, session)

    def interrupt(self, turn: ActiveTurn) -> None:
        """End a turn now."""
        if turn.interrupted_mono is not None:
            return
        turn.interrupted_mono = time.monotonic()
        self._events.emit(Event.TURN_INTERRUPTED, session=turn.session, message=turn.message_id)
        if turn.worker is not None:
            turn.worker.send(Interrupt(turn.number))
        else:
            self._turns.end(turn, turn.stopped(INTERRUPTED_TEXT))

    def turn_begins(self, turn: ActiveTurn) -> bool:
        """Fulfil what was asked of a turn before its claim was here; False if that ended it."""
        if turn.claim.messages[0].stop or turn.message_id in self._early_stops:
            self._early_stops.pop(turn.message_id, None)
            self.interrupt(turn)
            return False
        if turn.session in self._early_words:
            del self._early_words[turn.session]
            self._spawn(self._join(turn))
        return True

    async def _join(self, turn: ActiveTurn) -> None:
        joined = await self._turns.join(turn)
        if joined and turn.worker is not None:
            words = tuple(JoiningWords(message.id, message.text) for message in joined)
            # what is too large for a frame waits for a turn of its own
            with contextlib.suppress(FrameTooLarge):
                turn.worker.send(Steer(turn.number, words))


def keep(turn_control: dict[str, None], wish: str) -> None:
    turn_control[wish] = None
    if len(turn_control) > EARLY_LIMIT:
        del turn_control[next(iter(turn_control))]
