"""What one turn writes into the log of its session: its messages, its summaries and how it ended, a line each."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from shared.messages import Ended, Summary
from shared.usage import Usage
from worker.agent.session_log import SessionLog
from worker.frames import RunTurn


class TurnLog:
    """Writes lines that name their turn; a turn that keeps nothing (``is_kept``) writes none."""

    def __init__(self, turn: RunTurn, log: SessionLog, *, is_kept: bool) -> None:
        self._turn = turn
        self._log = log
        self._is_kept = is_kept

    def forget(self) -> None:
        """Write nothing more: the session was deleted."""
        self._is_kept = False

    def messages(self, messages: Iterable[bytes]) -> None:
        """Write transcript messages (JSON objects), each behind the names of its turn."""
        head = msgspec.json.encode(self._head())[:-1] + b","
        for message in messages:
            self._write(head + message[1:])

    def compacted(self, summary: Summary) -> None:
        """Write a summary that was made."""
        self._event("context_compacted", {"covers": summary.covers, "summary": summary.text})

    def ended(self, outcome: Ended, error: str, usage: Usage | None) -> None:
        """Write how the turn ended, with ``error`` for people; ``usage`` is None where it never began."""
        used = msgspec.to_builtins(usage) if usage else {}
        self._event("turn_ended", {"status": outcome.status.value, "error": error, **used})

    def _event(self, event: str, fields: dict[str, object]) -> None:
        self._write(msgspec.json.encode(self._head() | {"event": event} | fields))

    def _write(self, line: bytes) -> None:
        if self._is_kept:
            self._log.put(self._turn.session, line)

    def _head(self) -> dict[str, object]:
        turn = self._turn
        return {"at": round(time.time(), 3), "session": turn.session, "message": turn.message_id, "turn": turn.turn}
