"""The table of strangers and of who of them was let in."""

from __future__ import annotations

from shared.errors import NotFound
from shared.store.engine import Database

# Remember a stranger, unless already known.
ADD = "INSERT INTO pairings (sender, code) VALUES (?, ?) ON CONFLICT (sender) DO NOTHING"
# Read a stranger's code.
CODE = "SELECT code FROM pairings WHERE sender = ?"
# Find who has a code.
SENDERS = "SELECT sender FROM pairings WHERE code = ? LIMIT 2"
# Let a stranger in.
APPROVE = "UPDATE pairings SET approved = 1 WHERE sender = ?"
# Tell whether a sender was let in.
APPROVED = "SELECT EXISTS (SELECT 1 FROM pairings WHERE sender = ? AND approved = 1)"
# List the strangers that wait.
WAITING = "SELECT sender, code FROM pairings WHERE approved = 0 ORDER BY sender"


def add(database: Database, sender: str, code: str) -> str:
    """Remember a stranger with a code, unless one is known, and return the code that holds."""
    database.run(ADD, (sender, code))
    return str(database.only(CODE, (sender,))[0])


def approve(database: Database, code: str) -> str:
    """Let in the sender of this code. Raises NotFound; for a code that two senders have, too."""
    senders = database.all(SENDERS, (code,))
    if len(senders) != 1:
        raise NotFound("there is no such pairing code")
    database.run(APPROVE, senders[0])
    return str(senders[0][0])


def approved(database: Database, sender: str) -> bool:
    """Tell whether a sender was let in."""
    return bool(database.only(APPROVED, (sender,))[0])


def waiting(database: Database) -> list[tuple[str, str]]:
    """Return (sender, code) of every stranger that waits."""
    return [(sender, code) for sender, code in database.all(WAITING)]
