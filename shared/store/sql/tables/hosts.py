"""The table of hosts: who lives, until when, and where."""

from __future__ import annotations

from shared.hosts import Beat, LiveHost, StopRequest
from shared.store.engine import MAX_LEASE_S, Database

#: rows that one beat is told at most; what is left over comes with the next
NEWS_LIMIT = 1000

# Read until when a host lives.
LEASE = "SELECT lease_until FROM hosts WHERE host = ?"
# Renew a host's lease, or let it join.
BEAT = """
INSERT INTO hosts (host, gateway, workers, address, snapshot, brief, lease_until, joined_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (host) DO UPDATE SET gateway = excluded.gateway, workers = excluded.workers, address = excluded.address,
  snapshot = excluded.snapshot, brief = excluded.brief, lease_until = excluded.lease_until
"""
# List the hosts that live.
LIVE = """
SELECT host, gateway, workers, address, snapshot, brief, joined_at FROM hosts
WHERE lease_until > ? AND lease_until <= ? ORDER BY host
"""
# List the hosts that live, without what is shown to who asks alone.
PEERS = """
SELECT host, gateway, workers, address, brief, joined_at FROM hosts
WHERE lease_until > ? AND lease_until <= ? ORDER BY host
"""
# End a host's lease.
LEAVE = "UPDATE hosts SET lease_until = 0 WHERE host = ?"
# Find the turns of a host that are to end.
STOPS = """
SELECT inbox.session_key, inbox.id, inbox.stop FROM inbox
JOIN sessions ON sessions.session_key = inbox.session_key AND sessions.head = inbox.seq
WHERE inbox.state = 'waiting' AND inbox.stop <> '' AND sessions.state = 'claimed' AND sessions.host = ? LIMIT ?
"""
# Find the sessions of a host whose turn a message waits to join.
STEERS = """
SELECT inbox.session_key FROM inbox JOIN sessions ON sessions.session_key = inbox.session_key
WHERE inbox.state = 'waiting' AND inbox.joins = 1 AND inbox.joined = 0
  AND sessions.state = 'claimed' AND sessions.host = ? LIMIT ?
"""
# Forget hosts that are long dead and hold nothing.
EXPIRE = """
DELETE FROM hosts WHERE lease_until < ?
  AND NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.host = hosts.host AND sessions.state = 'claimed')
"""


def beat(database: Database, told: Beat, lease_s: float) -> bool:
    """Renew a host's lease; tell whether it had ended."""
    now = database.now()
    row = database.one(LEASE, (told.host,))
    columns = (told.host, int(told.gateway), told.workers, told.address, told.snapshot, told.brief)
    database.run(BEAT, (*columns, now + min(lease_s, MAX_LEASE_S), now))
    return row is not None and not now < row[0] <= now + MAX_LEASE_S


def live(database: Database) -> tuple[LiveHost, ...]:
    """Return the hosts that live, in the order of their ids."""
    now = database.now()
    rows = database.all(LIVE, (now, now + MAX_LEASE_S))
    return tuple(
        LiveHost(host, bool(gateway), workers, address, snapshot, brief or b"", joined_at)
        for host, gateway, workers, address, snapshot, brief, joined_at in rows
    )


def peers(database: Database) -> tuple[LiveHost, ...]:
    """Return the same hosts without their snapshots, which may be large."""
    now = database.now()
    rows = database.all(PEERS, (now, now + MAX_LEASE_S))
    return tuple(
        LiveHost(host, bool(gateway), workers, address, b"", brief or b"", joined_at)
        for host, gateway, workers, address, brief, joined_at in rows
    )


def leave(database: Database, host: str) -> None:
    """End a host's lease: others may have its claims at once."""
    database.run(LEAVE, (host,))


def stops(database: Database, host: str) -> tuple[StopRequest, ...]:
    """Return the turns of a host that are to end."""
    return tuple(StopRequest(*row) for row in database.all(STOPS, (host, NEWS_LIMIT)))


def steers(database: Database, host: str) -> tuple[str, ...]:
    """Return the sessions of a host whose turn a message waits to join."""
    return tuple(dict.fromkeys(session for (session,) in database.all(STEERS, (host, NEWS_LIMIT))))


def expire(database: Database, keep_s: float) -> int:
    """Forget hosts that died longer ago than this and hold nothing; count them."""
    return database.changed(EXPIRE, (database.now() - keep_s,))
