"""The table of sessions, as far as a look for claims reads and leases it."""

from __future__ import annotations

import bisect
import functools
import itertools
from typing import NamedTuple

from shared.messages import ClaimRef
from shared.store.engine import MAX_LEASE_S, Database, Row, at_once

#: how long a session waits for the host that ran it last, in seconds, before any other may have it
AFFINITY_S = 0.3
# List the platforms that have a ready session, in the order of their names: one step of the index for each.
PLATFORMS = """
WITH RECURSIVE found (platform) AS (
  SELECT (SELECT min(platform) FROM sessions INDEXED BY sessions_ready WHERE state = 'ready' AND suspect = ?)
  UNION ALL
  SELECT (SELECT min(platform) FROM sessions INDEXED BY sessions_ready
          WHERE state = 'ready' AND suspect = ? AND sessions.platform > found.platform)
  FROM found WHERE found.platform IS NOT NULL
)
SELECT platform FROM found WHERE platform IS NOT NULL
"""
# Whether an earlier attempt has left something of the turn of a session's first message.
WAS_BEGUN = """
(EXISTS (SELECT 1 FROM checkpoints WHERE checkpoints.session_key = sessions.session_key)
 OR EXISTS (SELECT 1 FROM open_steps WHERE open_steps.session_key = sessions.session_key)
 OR EXISTS (SELECT 1 FROM inbox WHERE inbox.session_key = sessions.session_key AND inbox.seq = sessions.head
            AND inbox.finished IS NOT NULL))
"""
# Find the sessions of a platform that are ready, longest waiting first. Tells also whether a turn was begun, and
# whether others wait behind its message.
READY = """
SELECT session_key, platform, version, head, (was begun),
  EXISTS (SELECT 1 FROM inbox AS other WHERE other.session_key = sessions.session_key
          AND other.state = 'waiting' AND other.seq > sessions.head)
FROM sessions INDEXED BY sessions_ready
WHERE state = 'ready' AND suspect = ? AND platform = ?
  AND (home = '' OR home = ? OR updated_at <= ? OR home NOT IN (SELECT host FROM hosts WHERE lease_until > ?))
ORDER BY place LIMIT ? /*SKIP LOCKED*/
""".replace("(was begun)", WAS_BEGUN)
# Lease a session.
LEASE = """
UPDATE sessions SET state = 'claimed', epoch = coalesce(?, /*EPOCH*/ NULL), host = ?, home = ?, until = ?
WHERE session_key = ?
"""
# Lease a session if no earlier attempt has left anything: what said so may be older than the lock of its row.
LEASE_UNBEGUN = """
UPDATE sessions SET state = 'claimed', epoch = coalesce(?, /*EPOCH*/ NULL), host = ?, home = ?, until = ?
WHERE session_key = ? AND NOT (was begun)
""".replace("(was begun)", WAS_BEGUN)
# Lease a session for a host that lives, if it is ready for a message and no other session is ready for any.
LEASE_AT_ONCE = """
UPDATE sessions SET state = 'claimed', epoch = coalesce(NULL, /*EPOCH*/ NULL), host = ?, home = ?, until = NULL
WHERE session_key = ? AND (CASE WHEN state = 'ready' THEN 1 ELSE 0 END) = 1 AND suspect = 0
  AND head = (SELECT seq FROM inbox WHERE inbox.session_key = sessions.session_key AND inbox.id = ?)
  AND EXISTS (SELECT 1 FROM hosts WHERE host = ? AND lease_until > ? AND lease_until <= ?)
  AND (home = '' OR home = ? OR home NOT IN (SELECT host FROM hosts WHERE lease_until > ?))
  AND NOT EXISTS (SELECT 1 FROM sessions AS other WHERE other.state = 'ready' AND other.suspect = 0
                  AND other.session_key <> sessions.session_key)
  AND NOT (was begun)
""".replace("(was begun)", WAS_BEGUN)


class ReadySession(NamedTuple):
    """A session that may be leased."""

    session: str
    platform: str
    #: the version of its conversation
    version: int
    #: the number of its first message
    head: int
    #: whether an earlier attempt has left something of its turn
    was_begun: bool
    #: whether others wait behind it
    is_followed: bool


def ready(database: Database, host: str, limit: int, *, suspects: bool) -> list[ReadySession]:
    """Return ready sessions: of one platform after the other, in turns.

    Of each platform the longest waiting come first; the next call goes on with the platform after the last one. What
    another live host ran last it may have for a moment alone: it has the conversation in memory.
    """
    now = database.now()
    values = (host, now - AFFINITY_S, now, limit)

    def waiting(platform: str) -> list[Row]:
        return database.all(READY, (int(suspects), platform, *values))

    likely = () if suspects else database.likely_platforms
    names, *found = at_once(
        database,
        lambda: [str(name) for (name,) in database.all(PLATFORMS, (int(suspects), int(suspects)))],
        *(functools.partial(waiting, platform) for platform in likely),
    )
    unlikely = [name for name in names if name not in likely]
    queues = dict(zip([*likely, *unlikely], [*found, *database.each(waiting, unlikely)], strict=True))
    if not suspects:
        database.likely_platforms = tuple(names)
    return _dealt(database, {name: rows for name, rows in queues.items() if rows}, limit)


def _dealt(database: Database, queues: dict[str, list[Row]], limit: int) -> list[ReadySession]:
    """Return rows of each platform in turns, beginning with the one after the last that was served."""
    names = sorted(queues)
    first = bisect.bisect_right(names, database.last_platform)
    dealt = itertools.chain.from_iterable(
        itertools.zip_longest(*(queues[name] for name in names[first:] + names[:first]))
    )
    rows = itertools.islice((row for row in dealt if row is not None), limit)
    sessions = [
        ReadySession(session, platform, version, head, bool(was_begun), bool(is_followed))
        for session, platform, version, head, was_begun, is_followed in rows
    ]
    if sessions:
        database.last_platform = sessions[-1].platform
    return sessions


def lease(database: Database, ref: ClaimRef, host: str, lease_s: float | None) -> None:
    """Claim a session for a host: for so long, or with None for as long as the host lives."""
    database.run(LEASE, (ref.epoch, host, host, _lease_end(database, lease_s), ref.session))


def lease_unbegun(database: Database, session: str, epoch: int | None, host: str, lease_s: float | None) -> None:
    """Claim a session in the same way under a reserved epoch, unless an earlier attempt has left something."""
    database.run(LEASE_UNBEGUN, (epoch, host, host, _lease_end(database, lease_s), session))


def lease_at_once(database: Database, session: str, message_id: str, host: str) -> None:
    """Claim a session for a host that lives, if a message that has just come is all that there is to do."""
    now = database.now()
    values = (host, host, session, message_id, host, now, now + MAX_LEASE_S, host, now)
    database.run(LEASE_AT_ONCE, values)


def _lease_end(database: Database, lease_s: float | None) -> float | None:
    return None if lease_s is None else database.now() + min(lease_s, MAX_LEASE_S)
