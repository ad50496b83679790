"""The table of tool calls that wait for somebody's word, of turns that are not settled."""

from __future__ import annotations

from shared.approvals import Approval, Decision, Question
from shared.messages import AwaitsApproval
from shared.store.engine import Database

# Ask about a call, unless that was done.
ADD = """
INSERT INTO approvals (session_key, step, call_id, decision, until, message_id, question, text)
VALUES (?, ?, ?, 'waiting', ?, ?, ?, ?)
ON CONFLICT (session_key, step, call_id) DO NOTHING
"""
# Read what was decided.
READ = "SELECT step, call_id, decision, until FROM approvals WHERE session_key = ? ORDER BY step, call_id"
# Decide all that waits.
DECIDE = "UPDATE approvals SET decision = ? WHERE session_key = ? AND decision = 'waiting' AND until > ?"
# Decide what one question is about.
DECIDE_ONE = """
UPDATE approvals SET decision = ? WHERE session_key = ? AND decision = 'waiting' AND until > ? AND question = ?
"""
# Find the question of a session that waits for an answer.
WAITING = """
SELECT message_id, question, text FROM approvals WHERE session_key = ? AND decision = 'waiting' AND until > ? LIMIT 1
"""
# Forget a turn's questions.
REMOVE = "DELETE FROM approvals WHERE session_key = ?"


def add(database: Database, session: str, message_id: str, question: Question, asks: AwaitsApproval) -> bool:
    """Ask about calls of a message's turn; False if all of them were asked about before."""
    until = database.now() + asks.within_s
    about = (until, message_id, question.id, question.text)
    return bool(sum(database.changed(ADD, (session, call.step, call.call_id, *about)) for call in asks.calls))


def read(database: Database, session: str) -> tuple[Approval, ...]:
    """Return what was decided about a turn's calls."""
    now = database.now()
    return tuple(
        Approval(step, call_id, Decision.EXPIRED if decision == "waiting" and until <= now else Decision(decision))
        for step, call_id, decision, until in database.all(READ, (session,))
    )


def decide(database: Database, session: str, decision: Decision, question: str = "") -> bool:
    """Decide about the calls that wait in a session, or that one question is about; False if none does."""
    change = (decision.value, session, database.now())
    return bool(database.changed(DECIDE_ONE, (*change, question)) if question else database.changed(DECIDE, change))


def waiting(database: Database, session: str) -> tuple[str, Question] | None:
    """Return the question of a session that waits for an answer, with the message whose turn asks it."""
    row = database.one(WAITING, (session, database.now()))
    return (row[0], Question(row[1], row[2])) if row is not None and row[1] else None


def remove(database: Database, session: str) -> None:
    """Forget the questions of a session's turn."""
    database.run(REMOVE, (session,))
