"""The table of tool calls that wait for somebody's word, of turns that are not settled."""

from __future__ import annotations

from collections.abc import Sequence

from shared.approvals import Approval, Decision
from shared.store.engine import Database

# Ask about a call, unless that was done.
ADD = """
INSERT INTO approvals (session_key, step, call_id, decision, until) VALUES (?, ?, ?, 'waiting', ?)
ON CONFLICT (session_key, step, call_id) DO NOTHING
"""
# Read what was decided.
READ = "SELECT step, call_id, decision, until FROM approvals WHERE session_key = ? ORDER BY step, call_id"
# Decide all that waits.
DECIDE = "UPDATE approvals SET decision = ? WHERE session_key = ? AND decision = 'waiting' AND until > ?"
# Forget a turn's questions.
REMOVE = "DELETE FROM approvals WHERE session_key = ?"


def add(database: Database, session: str, calls: Sequence[Approval], within_s: float) -> bool:
    """Ask about calls; False if all of them were asked about before."""
    until = database.now() + within_s
    return bool(sum(database.changed(ADD, (session, call.step, call.call_id, until)) for call in calls))


def read(database: Database, session: str) -> tuple[Approval, ...]:
    """Return what was decided about a turn's calls."""
    now = database.now()
    return tuple(
        Approval(step, call_id, Decision.EXPIRED if decision == "waiting" and until <= now else Decision(decision))
        for step, call_id, decision, until in database.all(READ, (session,))
    )


def decide(database: Database, session: str, decision: Decision) -> bool:
    """Decide about all calls that wait in a session; False if none does."""
    return bool(database.changed(DECIDE, (decision.value, session, database.now())))


def remove(database: Database, session: str) -> None:
    """Forget the questions of a session's turn."""
    database.run(REMOVE, (session,))
