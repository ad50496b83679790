"""Makes salvaged rows fit each other: whatever waits is in a queue that is served, and nothing is in two places."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import msgspec

# Find the highest epoch and version that any row carries; the next one drawn has to be above it.
HIGHEST_EPOCH = "SELECT max(coalesce(max(epoch), 0), coalesce(max(version), 0)) FROM sessions"
# Places begin with the number of the opening they were drawn in (see Database.next_place).
HIGHEST_OPENING = """
SELECT max(coalesce((SELECT max(place) FROM sessions), 0), coalesce((SELECT max(place) FROM outbox), 0)) >> 32
"""
RAISE = """
INSERT INTO sequences (name, last) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET last = max(last, excluded.last)
"""
# Give what belongs to a session that has no row one.
ADD_SESSIONS = """
INSERT INTO sessions (session_key, platform, state, place, head, next_seq, updated_at, version)
SELECT key, substr(key, 1, instr(key || ':', ':') - 1), 'idle', 0,
  coalesce((SELECT max(seq) FROM inbox WHERE session_key = key), 0),
  coalesce((SELECT max(seq) FROM inbox WHERE session_key = key), 0) + 1,
  coalesce((SELECT max(at) FROM inbox WHERE session_key = key), unixepoch()),
  (SELECT last FROM sequences WHERE name = 'epoch')
FROM (
  SELECT session_key AS key FROM inbox UNION SELECT session_key FROM history UNION SELECT session_key FROM todos
  UNION SELECT session_key FROM outbox WHERE seq > 0
) WHERE key NOT IN (SELECT session_key FROM sessions)
"""
# No message gets a number that another one has.
RAISE_NEXT_SEQ = """
UPDATE sessions SET next_seq = (SELECT max(seq) FROM inbox WHERE inbox.session_key = sessions.session_key) + 1
WHERE next_seq <= (SELECT max(seq) FROM inbox WHERE inbox.session_key = sessions.session_key)
"""
# Let a session rest that is at a message which is not there, or does not wait.
REST = """
UPDATE sessions SET state = 'idle', suspect = 0, host = '', until = NULL
WHERE state <> 'idle' AND NOT EXISTS (
  SELECT 1 FROM inbox WHERE inbox.session_key = sessions.session_key AND seq = head AND inbox.state = 'waiting')
"""
# Make a session that rests ready for its first message that waits.
MAKE_READY = """
UPDATE sessions SET state = 'ready', suspect = 0, host = '', until = NULL,
  head = (SELECT min(seq) FROM inbox WHERE inbox.session_key = sessions.session_key AND inbox.state = 'waiting')
WHERE state = 'idle' AND EXISTS (
  SELECT 1 FROM inbox WHERE inbox.session_key = sessions.session_key AND inbox.state = 'waiting')
"""
# Keep the steps of a turn up to the first that is missing: what came after it cannot be told without it.
CUT_STEPS = """
DELETE FROM checkpoints WHERE EXISTS (
  SELECT 1 FROM checkpoints AS first WHERE first.session_key = checkpoints.session_key
  AND checkpoints.step - (SELECT min(step) FROM checkpoints AS least WHERE least.session_key = checkpoints.session_key)
    >= (SELECT count(*) FROM checkpoints AS before
        WHERE before.session_key = checkpoints.session_key AND before.step <= checkpoints.step))
"""
# Send the first reply of a session whose queue has lost the one that is sent before it.
MAKE_DUE = """
UPDATE outbox SET state = 'due'
WHERE state = 'queued' AND NOT EXISTS (
  SELECT 1 FROM outbox AS open WHERE open.session_key = outbox.session_key AND open.closed_at IS NULL
  AND (open.state <> 'queued' OR (open.seq, open.part) < (outbox.seq, outbox.part)))
"""


class Mending(msgspec.Struct, frozen=True):
    """How many rows were made or changed."""

    #: rows of sessions that were made anew
    sessions_made: int
    #: sessions that were put back into the queue of those that are ready
    made_ready: int
    #: sessions that were at a message which is not there
    put_to_rest: int
    #: finished steps of turns that were dropped, because one before them is lost
    steps_dropped: int
    #: replies that waited behind one that is lost
    replies_due: int

    def lines(self) -> Iterator[str]:
        """Yield in words what was changed."""
        words = {
            "sessions_made": "sessions had lost their row, and got a new one",
            "made_ready": "sessions have messages that wait, and were made ready for them",
            "put_to_rest": "sessions were at a message that is lost",
            "steps_dropped": "finished steps of turns are dropped, since one before them is lost: they run again",
            "replies_due": "replies waited behind one that is lost, and are sent now",
        }
        yield from (f"{count} {words[name]}" for name, count in msgspec.structs.asdict(self).items() if count)


def mend(db: apsw.Connection) -> Mending:
    """Mend the relations of the rows, in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    db.execute(RAISE, ("epoch", int(db.execute(HIGHEST_EPOCH).get or 0) + 1))
    db.execute(RAISE, ("opened", int(db.execute(HIGHEST_OPENING).get or 0) + 1))
    made = _changed(db, ADD_SESSIONS)
    _changed(db, RAISE_NEXT_SEQ)
    rested = _changed(db, REST)
    ready = _changed(db, MAKE_READY)
    steps = _changed(db, CUT_STEPS)
    due = _changed(db, MAKE_DUE)
    db.execute("COMMIT")
    return Mending(made, ready, rested, steps, due)


def _changed(db: apsw.Connection, sql: str) -> int:
    db.execute(sql)
    return db.changes()
