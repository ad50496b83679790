"""What the end of a claim needs to know of many tables, in one round trip."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from shared.errors import StaleClaim
from shared.messages import ClaimRef
from shared.store.engine import Database
from shared.store.sql.tables.inbox import SettledMessage
from shared.store.sql.tables.outbox import NextPart
from shared.store.sql.tables.sessions import IS_CLAIMED
from shared.usage import NOTHING, Usage

# Check an epoch, and read all that its settle needs: what there is of the claim, its message, and what it adds to.
READ = """
SELECT sessions.head,
  EXISTS (SELECT 1 FROM checkpoints WHERE checkpoints.session_key = sessions.session_key)
    OR EXISTS (SELECT 1 FROM open_steps WHERE open_steps.session_key = sessions.session_key)
    OR EXISTS (SELECT 1 FROM approvals WHERE approvals.session_key = sessions.session_key),
  EXISTS (SELECT 1 FROM holds WHERE holds.session_key = sessions.session_key),
  EXISTS (SELECT 1 FROM inbox AS other
          WHERE other.session_key = sessions.session_key AND other.joined = sessions.head AND other.joined > 0),
  (SELECT coalesce(max(position) + 1, 0) FROM history WHERE history.session_key = sessions.session_key),
  (SELECT todo FROM todos WHERE todos.session_key = sessions.session_key),
  (SELECT usage.usage FROM usage WHERE usage.session_key = sessions.session_key),
  (SELECT max(part) FROM outbox WHERE outbox.session_key = sessions.session_key AND outbox.seq = sessions.head),
  EXISTS (SELECT 1 FROM outbox WHERE outbox.session_key = sessions.session_key AND outbox.closed_at IS NULL),
  inbox.id, inbox.platform, inbox.reply, inbox.platform || ':' || inbox.user_id, inbox.stop
FROM sessions JOIN inbox ON inbox.session_key = sessions.session_key AND inbox.seq = sessions.head
WHERE sessions.session_key = ? AND sessions.epoch = ? AND (is claimed)
""".replace("(is claimed)", IS_CLAIMED)

_USAGE = msgspec.json.Decoder(Usage)


class ClaimEnd(NamedTuple):
    """What a claim that is to end has, and what it adds to."""

    #: the number of the message whose turn it was
    head: int
    #: whether there are steps, calls or approvals of the turn
    has_steps: bool
    #: whether it holds a part of a budget, or did
    has_hold: bool
    #: whether messages have joined the turn
    has_joined: bool
    #: the position behind the end of the session's transcript
    next_position: int
    #: the session's todo list as JSON, None if it has none
    todo: bytes | None
    #: what the session has used in its life
    usage: Usage
    #: where the answer to the message goes in the outbox
    next_part: NextPart
    #: the message
    answered: SettledMessage


def read(database: Database, ref: ClaimRef) -> ClaimEnd:
    """Return what there is of a claim that ends. Raises StaleClaim if the epoch is not its session's any more."""
    row = database.one(READ, (ref.session, ref.epoch))
    if row is None:
        raise StaleClaim(ref.session, ref.epoch)
    head, has_steps, has_hold, has_joined, position, todo, usage, last_part, any_unsent, *message = row
    return ClaimEnd(
        head=int(head),
        has_steps=bool(has_steps),
        has_hold=bool(has_hold),
        has_joined=bool(has_joined),
        next_position=int(position),
        todo=todo,
        usage=_USAGE.decode(usage) if usage else NOTHING,
        next_part=NextPart(last_part, bool(any_unsent)),
        answered=SettledMessage(*message),
    )
