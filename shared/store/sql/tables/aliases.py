"""The table of chats that got another name: what is said under the new one goes on in the sessions of the old one.

A chat is the first three parts of a session's key; a session in a thread of it keeps its last part.
"""

from __future__ import annotations

from shared.store.engine import Database

# Tell which chat another one goes on as.
FIND = "SELECT chat FROM aliases WHERE alias = ?"
# Give a chat another name; the first one that is told holds.
ADD = "INSERT INTO aliases (alias, chat) VALUES (?, ?) ON CONFLICT (alias) DO NOTHING"


def find(database: Database, key: str) -> str:
    """Return the key of the session that a key means: itself where its chat had no other name before."""
    chat, thread = split(key)
    row = database.one(FIND, (chat,))
    return f"{row[0]}{thread}" if row else key


def add(database: Database, alias: str, chat: str) -> None:
    """Give a chat another name."""
    database.run(ADD, (alias, chat))


def split(key: str) -> tuple[str, str]:
    """Return the chat of a session's key, and what is behind it: empty, or a thread with its colon."""
    chat = ":".join(key.split(":", 3)[:3])
    return chat, key.removeprefix(chat)


def spans(chat: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the first and the last key of a chat's sessions: its own, and those of its threads."""
    return (chat, chat), (f"{chat}:", f"{chat};")
