"""One exchange of a session, a message and what its turn said: read back, ended, and taken back by its message's id."""

from __future__ import annotations

import msgspec

from shared.messages import MessageState
from shared.store.engine import Database
from shared.store.sql import dead_letters
from shared.store.sql.tables import commands, history, inbox, outbox, sessions
from shared.traces import Exchange


def read(database: Database, message_id: str, limit: int) -> Exchange:
    """Return an exchange with what was said before it in its conversation, ``limit`` messages at most.

    Raises NotFound.
    """
    session, seq, _, _, state, *_ = inbox.trace(database, message_id)
    begin, began_seq = sessions.began(database, session)
    rows = history.read_to_turn(database, session, begin if seq > began_seq else 0, seq, limit)
    before = tuple(message for of, message in rows if of != seq)
    own = tuple(message for of, message in rows if of == seq)
    if state == MessageState.WAITING and (words := commands.words(database, session, seq)):
        own = (msgspec.json.encode({"role": "user", "content": words.text}),)
    return Exchange(before, own)


def stop(database: Database, message_id: str, text: str) -> bool:
    """Ask for the end of a message's turn, now or when it begins; its sender is told ``text``. Raises NotFound.

    True where it is not over; whoever runs it has to be told.
    """
    session, seq, _, _, state, *_ = inbox.trace(database, message_id)
    if state != MessageState.WAITING:
        return False
    inbox.request_stop(database, session, seq, text)
    if sessions.head(database, session) == seq and sessions.claimed_for(database, session) is None:
        sessions.release(database, session)  # the next claim ends it
    return True


def remove(database: Database, message_id: str) -> bool:
    """Remove an exchange with its words and its todo change; False where it is not its session's last, or not over.

    Raises NotFound.
    """
    session, seq, _, _, state, *_ = inbox.trace(database, message_id)
    begin, began_seq = sessions.began(database, session)
    if state == MessageState.WAITING or seq <= began_seq or inbox.latest(database, session) != message_id:
        return False
    history.cut(database, session, begin, seq)
    if (todo := commands.todo_before(database, session, seq)) is not None:
        history.write_todo(database, session, todo)
    if state == MessageState.DEAD:
        dead_letters.purge(database, message_id)
    else:
        inbox.remove(database, session, seq)
        outbox.remove(database, session, seq)
    sessions.set_version(database, session, *database.next_epochs(1))
    return True
