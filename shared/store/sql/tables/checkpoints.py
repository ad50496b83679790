"""The table of checkpoints: the finished steps of turns that have not been settled."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shared.messages import Step
from shared.store.engine import Database
from shared.usage import Usage

# Keep one finished step.
ADD = """
INSERT INTO checkpoints (session_key, step, body) VALUES (?, ?, ?)
ON CONFLICT (session_key, step) DO UPDATE SET body = excluded.body
"""
# Read a session's finished steps, oldest first.
READ = "SELECT body FROM checkpoints WHERE session_key = ? ORDER BY step"
# Remove a session's finished steps.
REMOVE = "DELETE FROM checkpoints WHERE session_key = ?"


class FinishedSteps(msgspec.Struct, frozen=True):
    """The steps that a turn had finished when no model went on with it."""

    #: the version of its session's conversation then
    version: int
    steps: tuple[Step, ...]

    def at(self, version: int) -> tuple[Step, ...]:
        """Return them for a later turn: they are paid for, and a todo list that others have changed since stays."""
        todo_holds = self.version == version
        return tuple(
            msgspec.structs.replace(step, usage=Usage(), todo=step.todo if todo_holds else None) for step in self.steps
        )


_DECODER = msgspec.msgpack.Decoder(Step)


def add(database: Database, session: str, steps: Sequence[Step]) -> None:
    """Keep finished steps."""
    for step in steps:
        database.run(ADD, (session, step.number, msgspec.msgpack.encode(step)))


def read(database: Database, session: str) -> tuple[Step, ...]:
    """Return a session's finished steps, oldest first."""
    return tuple(_DECODER.decode(body) for (body,) in database.all(READ, (session,)))


def remove(database: Database, session: str) -> None:
    """Remove a session's finished steps."""
    database.run(REMOVE, (session,))
