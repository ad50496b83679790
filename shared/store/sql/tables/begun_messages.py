"""The table of accepted messages, as far as a claim hands them to a turn."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from shared.attachments import Attachment
from shared.call_options import CallOptions
from shared.messages import Pending
from shared.store.engine import Database, Row
from shared.store.sql.tables.checkpoints import FinishedSteps
from shared.store.sql.tables.sessions import IS_CLAIMED

# Hand a message to a turn, if its session is claimed by a host.
BEGIN = """
UPDATE inbox SET claimed_at = ? WHERE session_key = ? AND seq = ? AND EXISTS
  (SELECT 1 FROM sessions WHERE sessions.session_key = ? AND (is claimed) AND sessions.host = ?)
""".replace("(is claimed)", IS_CLAIMED)
# Hand a message to a turn, if its session is claimed for it by a host.
BEGIN_AT_ONCE = """
UPDATE inbox SET claimed_at = ? WHERE session_key = ? AND id = ? AND EXISTS
  (SELECT 1 FROM sessions WHERE sessions.session_key = inbox.session_key AND sessions.head = inbox.seq
   AND (is claimed) AND sessions.host = ?)
""".replace("(is claimed)", IS_CLAIMED)
# Read the message that a session is claimed for by a host, behind the claim's epoch.
BEGUN = """
SELECT sessions.epoch, sessions.version, inbox.id, inbox.seq, inbox.user_id, inbox.text, inbox.at, inbox.attempts,
  inbox.suspect, inbox.traceparent, inbox.lost, inbox.stop, inbox.options, inbox.attachments, inbox.gateway
FROM sessions JOIN inbox ON inbox.session_key = sessions.session_key AND inbox.seq = sessions.head
WHERE sessions.session_key = ? AND (is claimed) AND sessions.host = ?
""".replace("(is claimed)", IS_CLAIMED)
# Hand a message to a turn. Tells also whether an earlier attempt has left something, and whether others wait behind it.
CLAIM = """
UPDATE inbox SET claimed_at = ? WHERE session_key = ? AND seq = ?
RETURNING id, seq, user_id, text, at, attempts, suspect, traceparent, lost, stop, options, attachments, gateway,
  EXISTS (SELECT 1 FROM checkpoints WHERE checkpoints.session_key = inbox.session_key)
    OR EXISTS (SELECT 1 FROM open_steps WHERE open_steps.session_key = inbox.session_key),
  EXISTS (SELECT 1 FROM inbox AS other
          WHERE other.session_key = inbox.session_key AND other.state = 'waiting' AND other.seq > inbox.seq),
  finished
"""


class ClaimedMessage(NamedTuple):
    """A message that is handed to a turn."""

    message: Pending
    #: whether an earlier attempt has left steps
    was_begun: bool
    #: whether others wait behind it
    is_followed: bool
    #: what a turn of it had done that no model went on with
    finished: FinishedSteps | None


class BegunMessage(NamedTuple):
    """A message that is handed to a turn for the first time."""

    #: the epoch of its claim
    epoch: int
    #: the version of its session's conversation
    version: int
    message: Pending


def claim(database: Database, session: str, seq: int) -> ClaimedMessage:
    """Hand a message to a turn."""
    *row, was_begun, is_followed, finished = database.only(CLAIM, (database.now(), session, seq))
    steps = msgspec.msgpack.decode(finished, type=FinishedSteps) if finished else None
    return ClaimedMessage(pending(tuple(row)), bool(was_begun), bool(is_followed), steps)


def begin(database: Database, session: str, seq: int, host: str) -> BegunMessage | None:
    """Hand a message to the turn that a host has claimed its session for; None where the claim was not made.

    It may be the last read of its job.
    """
    database.run(BEGIN, (database.now(), session, seq, session, host))
    return _begun(database, session, host)


def begin_at_once(database: Database, session: str, message_id: str, host: str) -> BegunMessage | None:
    """Hand a message that has just come to the turn that a host has claimed its session for; None where it has not.

    It may be the last read of its job.
    """
    database.run(BEGIN_AT_ONCE, (database.now(), session, message_id, host))
    begun = _begun(database, session, host)
    return begun if begun and begun.message.id == message_id else None


def _begun(database: Database, session: str, host: str) -> BegunMessage | None:
    row = database.one(BEGUN, (session, host))
    return BegunMessage(int(row[0]), int(row[1]), pending(row[2:])) if row else None


def pending(row: Row) -> Pending:
    """Return a message as CLAIM gives it."""
    message_id, seq, user, text, at, attempts, suspect, traceparent, lost, stop, options, attached, gateway = row
    asked = msgspec.msgpack.decode(options, type=CallOptions) if options else None
    return Pending(
        id=message_id,
        seq=seq,
        user=user,
        text=text,
        at=at,
        attempts=attempts,
        suspect=bool(suspect),
        traceparent=traceparent,
        lost=lost,
        stop=stop,
        attachments=msgspec.msgpack.decode(attached, type=tuple[Attachment, ...]) if attached else (),
        options=asked,
        gateway=gateway,
    )
