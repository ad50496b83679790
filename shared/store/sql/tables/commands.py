"""The table of accepted messages, as far as chat commands change it: they take back, run again, or wait their turn."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from shared.attachments import Attachment
from shared.command import Command
from shared.store.engine import Database

# Find the waiting messages behind one that are no chat commands.
MESSAGES_BEHIND = """
SELECT seq, joined FROM inbox INDEXED BY inbox_waiting
WHERE session_key = ? AND state = 'waiting' AND seq > ? AND command IS NULL ORDER BY seq
"""
# Find the last of them.
LAST_MESSAGE = """
SELECT seq, joined FROM inbox INDEXED BY inbox_waiting
WHERE session_key = ? AND state = 'waiting' AND seq > ? AND command IS NULL ORDER BY seq DESC LIMIT 1
"""
# Take back a message that was answered.
WITHDRAW = "UPDATE inbox SET state = 'withdrawn' WHERE session_key = ? AND seq = ? AND state = 'done'"
# Take back what joined its turn.
WITHDRAW_JOINED = """
UPDATE inbox SET state = 'withdrawn' WHERE session_key = ? AND joined = ? AND joined > 0 AND state = 'done'
"""
# Read the todo list as it was before a message's turn changed it.
TODO_BEFORE = "SELECT todo_before FROM inbox WHERE session_key = ? AND seq = ?"
# Find the last message that came to its end, of those behind one and before another.
LAST_ENDED = """
SELECT seq, joined FROM inbox
WHERE session_key = ? AND seq > ? AND seq < ? AND command IS NULL AND state IN ('done', 'dead')
ORDER BY seq DESC LIMIT 1
"""
# Read a message's words, and which images it has.
TEXT = "SELECT text, attachments FROM inbox WHERE session_key = ? AND seq = ?"
# Read the words that joined its turn.
JOINED_TEXTS = """
SELECT text, attachments FROM inbox INDEXED BY inbox_joined
WHERE session_key = ? AND joined = ? AND joined > 0 ORDER BY seq
"""
# Keep a chat command with the message it is about.
SET_TARGET = "UPDATE inbox SET command = ? WHERE session_key = ? AND seq = ?"
# Make a chat command a message with these words.
MAKE_MESSAGE = """
UPDATE inbox SET text = ?, attachments = ?, command = NULL,
  finished = (SELECT was.finished FROM inbox AS was WHERE was.session_key = ? AND was.seq = ?)
WHERE session_key = ? AND seq = ?
"""


class MessageWords(NamedTuple):
    """What a message says, with what joined its turn."""

    #: its number in the session
    seq: int
    text: str
    attachments: tuple[Attachment, ...]


class MessageTurn(NamedTuple):
    """A message that is no chat command."""

    #: its number in the session
    seq: int
    #: the number of the message whose turn it joined, 0 for none
    joined: int

    @property
    def turn(self) -> int:
        """The number of the message whose turn it belongs to."""
        return self.joined or self.seq


def messages_behind(database: Database, session: str, seq: int) -> list[MessageTurn]:
    """Return the waiting messages behind one that are no chat commands, in their order."""
    return [MessageTurn(*row) for row in database.all(MESSAGES_BEHIND, (session, seq))]


def last_message(database: Database, session: str, head: int) -> MessageTurn:
    """Return the last waiting message that is no chat command: ``head`` itself if none is behind it."""
    row = database.one(LAST_MESSAGE, (session, head))
    return MessageTurn(*row) if row else MessageTurn(head, 0)


def withdraw_turn(database: Database, session: str, seq: int) -> bool:
    """Withdraw a message that was answered, with what joined its turn; False if it is not known to have been."""
    database.run(WITHDRAW_JOINED, (session, seq))
    return database.changed(WITHDRAW, (session, seq)) > 0


def todo_before(database: Database, session: str, seq: int) -> bytes | None:
    """Return the todo list as it was before a message's turn, None if that left it as it was."""
    row = database.one(TODO_BEFORE, (session, seq))
    return row[0] if row else None


def last_ended(database: Database, session: str, after: int, before: int) -> int:
    """Return the number of the last message that came to its end between two others, 0 if there is none."""
    row = database.one(LAST_ENDED, (session, after, before))
    return MessageTurn(*row).turn if row else 0


def words(database: Database, session: str, seq: int) -> MessageWords | None:
    """Return a message's words and those that joined its turn, None if they are not kept any more."""
    rows = database.all(TEXT, (session, seq)) + database.all(JOINED_TEXTS, (session, seq))
    attached = [one for _, packed in rows if packed for one in msgspec.msgpack.decode(packed, type=list[Attachment])]
    text = "\n\n".join(text for text, _ in rows if text)
    return MessageWords(seq, text, tuple(attached)) if text or attached else None


def set_target(database: Database, session: str, seq: int, command: Command) -> None:
    """Keep a waiting chat command with the message it is about."""
    database.run(SET_TARGET, (msgspec.msgpack.encode(command), session, seq))


def make_message(database: Database, session: str, seq: int, words: MessageWords) -> None:
    """Make a chat command a message with the words of another; a dead letter's finished steps come with them."""
    attached = msgspec.msgpack.encode(words.attachments) if words.attachments else None
    database.run(MAKE_MESSAGE, (words.text, attached, session, words.seq, session, seq))
