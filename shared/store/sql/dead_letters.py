"""Dead letters of every kind: messages that used up their attempts or got no model, and replies that were refused."""

from __future__ import annotations

from shared.errors import NotFound
from shared.messages import DeadKind
from shared.store.engine import Database
from shared.store.sql.session_commands import start_next
from shared.store.sql.tables import inbox, outbox, refused_replies, sessions
from shared.traces import DeadMark, DeadPage

#: before the newest one
NEWEST: DeadMark = (1e15, "", 0, "")


def read(database: Database, after: DeadMark | None, limit: int) -> DeadPage:
    """Return a page of dead letters of every kind, newest first."""
    behind = after or NEWEST
    found = [*inbox.dead(database, behind, limit + 1), *refused_replies.read(database, behind, limit + 1)]
    page = sorted(found, key=lambda one: one[0], reverse=True)[:limit]
    marks = tuple(mark for mark, _ in page)
    more = len(found) > limit
    return DeadPage(tuple(letter for _, letter in page), marks, marks[-1] if more else None)


def session_of(database: Database, message_id: str) -> str:
    """Return the session of a dead letter. Raises NotFound."""
    try:
        return inbox.session_of_dead(database, message_id)
    except NotFound:
        return refused_replies.session_of(database, message_id)


def retry(database: Database, message_id: str) -> None:
    """Let a message run again, or else its refused replies be sent again. Raises NotFound."""
    try:
        session = inbox.requeue(database, message_id)
    except NotFound:
        refused_replies.requeue(database, message_id)
        return
    if sessions.busy_with(database, session) is None:
        start_next(database, session, inbox.first_waiting(database, session))


def purge(database: Database, message_id: str) -> None:
    """Remove a message and its replies, or else its refused replies, for good. Raises NotFound."""
    try:
        session, seq = inbox.purge(database, message_id)
    except NotFound:
        refused_replies.purge(database, message_id)
        return
    outbox.remove(database, session, seq)


def count(database: Database) -> dict[str, int]:
    """Return how many dead letters there are of each kind."""
    none = {kind.value: 0 for kind in DeadKind}
    return none | inbox.count_dead(database) | {DeadKind.REPLY.value: refused_replies.count(database)}
