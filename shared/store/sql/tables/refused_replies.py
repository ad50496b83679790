"""The rows of the outbox that a platform refused for good: kept as dead letters until they are sent again or purged.

Replies to a message that is a dead letter itself are none of their own: who lets it run again gets a new reply.
"""

from __future__ import annotations

from shared.errors import NotFound
from shared.messages import DeadKind
from shared.store.engine import Database
from shared.store.sql.tables import outbox
from shared.traces import DeadLetter, DeadMark

# List the messages behind one of them whose replies were refused, newest first.
LIST = """
SELECT o.session_key, o.seq, o.message_id, max(o.closed_at) FROM outbox o
LEFT JOIN inbox i ON i.session_key = o.session_key AND i.seq = o.seq
WHERE o.state = 'failed' AND (i.state IS NULL OR i.state <> 'dead')
GROUP BY o.session_key, o.seq, o.message_id
HAVING (max(o.closed_at), o.session_key, o.seq, o.message_id) < (?, ?, ?, ?)
ORDER BY max(o.closed_at) DESC, o.session_key DESC, o.seq DESC, o.message_id DESC LIMIT ?
"""
# Count the messages whose replies were refused.
COUNT = """
SELECT count(DISTINCT o.message_id) FROM outbox o LEFT JOIN inbox i ON i.session_key = o.session_key AND i.seq = o.seq
WHERE o.state = 'failed' AND (i.state IS NULL OR i.state <> 'dead')
"""
# Read the refused parts of a message's replies.
PARTS_OF = """
SELECT platform, text, attempts, error FROM outbox
WHERE session_key = ? AND seq = ? AND message_id = ? AND state = 'failed' ORDER BY part
"""
# Read who wrote the message that they answer, and when.
ASKED = "SELECT user_id, at FROM inbox WHERE session_key = ? AND seq = ?"
# Find the refused replies of a message.
FIND = "SELECT session_key, seq FROM outbox WHERE message_id = ? AND state = 'failed' LIMIT 1"
# Put them on their way again, behind what is on its way now.
REQUEUE = """
UPDATE outbox SET state = 'queued', closed_at = NULL, attempts = 0, error = ''
WHERE session_key = ? AND seq = ? AND message_id = ? AND state = 'failed'
"""
# Remove them.
PURGE = "DELETE FROM outbox WHERE session_key = ? AND seq = ? AND message_id = ? AND state = 'failed'"


def read(database: Database, after: DeadMark, limit: int) -> list[tuple[DeadMark, DeadLetter]]:
    """Return one letter a message behind a place, newest first, each with its own place.

    Its text is every part that was not sent.
    """
    return [
        ((dead_at, session, seq, message_id), _letter(database, session, seq, message_id, dead_at))
        for session, seq, message_id, dead_at in database.all(LIST, (*after, limit))
    ]


def count(database: Database) -> int:
    """Count the messages whose replies were refused."""
    return int(database.only(COUNT)[0])


def session_of(database: Database, message_id: str) -> str:
    """Return the session of a message's refused replies. Raises NotFound."""
    return _find(database, message_id)[0]


def requeue(database: Database, message_id: str) -> None:
    """Send a message's refused replies again, with no attempts used. Raises NotFound."""
    session, seq = _find(database, message_id)
    database.run(REQUEUE, (session, seq, message_id))
    outbox.release_next(database, session)


def purge(database: Database, message_id: str) -> None:
    """Remove a message's refused replies for good. Raises NotFound."""
    session, seq = _find(database, message_id)
    database.run(PURGE, (session, seq, message_id))


def _find(database: Database, message_id: str) -> tuple[str, int]:
    row = database.one(FIND, (message_id,))
    if row is None:
        raise NotFound(f"there is no dead letter {message_id}")
    return str(row[0]), int(row[1])


def _letter(database: Database, session: str, seq: int, message_id: str, dead_at: float) -> DeadLetter:
    parts = database.all(PARTS_OF, (session, seq, message_id))
    user, accepted_at = database.one(ASKED, (session, seq)) or ("", dead_at)
    return DeadLetter(
        id=message_id,
        session=session,
        platform=parts[0][0],
        user=user,
        text="\n".join(text for _, text, _, _ in parts),
        attempts=max(attempts for _, _, attempts, _ in parts),
        error=parts[0][3],
        stacks="",
        accepted_at=accepted_at,
        dead_at=dead_at,
        kind=DeadKind.REPLY,
    )
