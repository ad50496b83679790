"""Who follows turns from outside the pool."""

from __future__ import annotations

from typing import Protocol

from shared.messages import Outcome


class TurnListener(Protocol):
    """Told what happens in turns, on the loop; may not block."""

    def turn_started(self, message_id: str, session: str, worker: int) -> None:
        """A worker begins the turn of this message."""

    def delta(self, message_id: str, session: str, step: int, text: str) -> None:
        """The model wrote this much more text in this step."""

    def tool_started(self, message_id: str, session: str, name: str) -> None:
        """A tool call begins."""

    def todo_changed(self, session: str, todo: bytes) -> None:
        """A step changed the session's todo list (JSON array)."""

    def settled(self, message_id: str, session: str, outcome: Outcome) -> None:
        """The outcome is committed."""
