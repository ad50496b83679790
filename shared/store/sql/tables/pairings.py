"""The table of strangers and of who of them was let in."""

from __future__ import annotations

from shared.errors import NotFound
from shared.store.engine import Database

#: strangers of one platform that wait at once: each costs a message of ours, a row, and a look of the operator
MOST_WAITING = 100
#: strangers whose codes have run out that are forgotten in one transaction
FORGOTTEN_AT_ONCE = 500

# Remember a stranger with a code and a first message, or give one whose code has run out a new one.
ADD = """
INSERT INTO pairings (sender, code, until, held) VALUES (?, ?, ?, ?)
ON CONFLICT (sender) DO UPDATE SET code = excluded.code, until = excluded.until, held = excluded.held
"""
# Forget some strangers whose codes have run out.
FORGET = """
DELETE FROM pairings WHERE sender IN
  (SELECT sender FROM pairings WHERE approved = 0 AND until <= ? ORDER BY sender LIMIT ?)
"""
# Count the strangers of a platform.
COUNT = "SELECT count(*) FROM pairings WHERE approved = 0 AND sender >= ? AND sender < ?"
# Read a stranger's code that holds.
CODE = "SELECT code FROM pairings WHERE sender = ? AND (approved = 1 OR until > ?)"
# Find who has a code.
SENDERS = "SELECT sender FROM pairings WHERE code = ? AND approved = 0 AND until > ? LIMIT 2"
# Let a stranger in.
APPROVE = "UPDATE pairings SET approved = 1 WHERE sender = ?"
# Tell whether a sender was let in.
APPROVED = "SELECT EXISTS (SELECT 1 FROM pairings WHERE sender = ? AND approved = 1)"
# List the strangers that wait.
WAITING = "SELECT sender, code FROM pairings WHERE approved = 0 AND until > ? ORDER BY sender"
# List who was let in.
LET_IN = "SELECT sender FROM pairings WHERE approved = 1 ORDER BY sender"
# Read the message that a sender's pairing waits with.
HELD = "SELECT held FROM pairings WHERE sender = ?"
# Forget the message that a sender's pairing waits with.
RELEASE = "UPDATE pairings SET held = NULL WHERE sender = ?"
# Let a sender in no longer.
REVOKE = "DELETE FROM pairings WHERE sender = ? AND approved = 1"


def add(database: Database, sender: str, code: str, ttl_s: float, held: bytes) -> str:
    """Remember a stranger with a code and a message, unless one holds already; return the code that holds.

    It is empty where too many of the platform wait already.
    """
    now = database.now()
    database.run(FORGET, (now, FORGOTTEN_AT_ONCE))
    if known := database.one(CODE, (sender, now)):
        return str(known[0])
    platform = sender.partition(":")[0]
    if database.only(COUNT, (f"{platform}:", f"{platform};"))[0] >= MOST_WAITING:
        return ""
    database.run(ADD, (sender, code, now + ttl_s, held))
    return code


def approve(database: Database, code: str) -> str:
    """Let in the sender of this code. Raises NotFound; for a code that two senders have, or that has run out, too."""
    senders = database.all(SENDERS, (code, database.now()))
    if len(senders) != 1:
        raise NotFound("there is no such pairing code")
    database.run(APPROVE, senders[0])
    return str(senders[0][0])


def approved(database: Database, sender: str) -> bool:
    """Tell whether a sender was let in."""
    return bool(database.only(APPROVED, (sender,))[0])


def waiting(database: Database) -> list[tuple[str, str]]:
    """Return (sender, code) of every stranger that waits."""
    return [(sender, code) for sender, code in database.all(WAITING, (database.now(),))]


def let_in(database: Database) -> list[str]:
    """Return every sender that was let in."""
    return [str(sender) for (sender,) in database.all(LET_IN)]


def release(database: Database, sender: str) -> bytes:
    """Return the message that a sender's pairing waited with, once; empty where there is none."""
    row = database.one(HELD, (sender,))
    database.run(RELEASE, (sender,))
    return bytes(row[0]) if row and row[0] else b""


def revoke(database: Database, sender: str) -> None:
    """Let a sender in no longer. Raises NotFound for one who was not."""
    if not database.changed(REVOKE, (sender,)):
        raise NotFound("this sender was not let in by a pairing")
