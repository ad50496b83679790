"""Who wants to know what turns do."""

from __future__ import annotations

from typing import Protocol

from shared.messages import Outcome


class TurnObserver(Protocol):
    """Told of turns as they happen; called on the pool's loop, and never blocks it."""

    def turn_started(self, message_id: str, session: str, worker: str) -> None:
        """A turn was given to a worker, not for the first time if an earlier one was lost."""

    def delta(self, message_id: str, session: str, step: int, text: str) -> None:
        """The model wrote this much more text in this step."""

    def tool_started(self, message_id: str, session: str, name: str) -> None:
        """A tool call begins."""

    def todo_changed(self, session: str, todo: bytes) -> None:
        """A tool call changed the session's todo list (JSON array); the turn goes on."""

    def settled(self, message_id: str, session: str, outcome: Outcome) -> None:
        """The claim of the message ended this way; it is committed."""
