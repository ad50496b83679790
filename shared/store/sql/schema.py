"""The schema and its way forward: one script a version, for every engine.

The scripts are written in the types of SQLite; an engine of other types translates them (INTEGER has 64 bits, REAL is a
double, BLOB is bytes). A new table is ``STRICT``, and one whose rows are all small may be ``WITHOUT ROWID``.

Every primary key begins with the session key, so the same tables shard by session on an engine that shards; only
``aliases`` (by chat), ``pairings`` (by sender), ``spending`` (by session, by user and in all), ``sequences`` and
``probe`` belong to none.
"""

from __future__ import annotations

VERSION_1 = """
-- One row a session: whose turn it is. ``state`` is idle, ready, delayed or claimed; ``head`` is the seq of the
-- message it is ready or claimed for; ``place`` orders the ready ones; ``until`` ends delayed and claimed.
CREATE TABLE sessions (
  session_key TEXT NOT NULL PRIMARY KEY,
  platform TEXT NOT NULL,
  state TEXT NOT NULL,
  place INTEGER NOT NULL,
  head INTEGER NOT NULL,
  suspect INTEGER NOT NULL DEFAULT 0,
  host TEXT NOT NULL DEFAULT '',
  until REAL,
  epoch INTEGER NOT NULL DEFAULT 0,
  version INTEGER NOT NULL DEFAULT 0,
  next_seq INTEGER NOT NULL,
  updated_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_ready ON sessions (suspect, place) WHERE state = 'ready';
CREATE INDEX sessions_until ON sessions (state, until) WHERE until IS NOT NULL;
CREATE INDEX sessions_latest ON sessions (updated_at);

-- One row an accepted message, in the order of its session.
CREATE TABLE inbox (
  session_key TEXT NOT NULL,
  seq INTEGER NOT NULL,
  id TEXT NOT NULL,
  platform TEXT NOT NULL,
  user TEXT NOT NULL,
  text TEXT NOT NULL,
  reply BLOB NOT NULL,
  at REAL NOT NULL,
  traceparent TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'waiting',
  attempts INTEGER NOT NULL DEFAULT 0,
  lost INTEGER NOT NULL DEFAULT 0,
  suspect INTEGER NOT NULL DEFAULT 0,
  claimed_at REAL,
  settled_at REAL,
  worker TEXT NOT NULL DEFAULT '',
  error TEXT NOT NULL DEFAULT '',
  stacks TEXT NOT NULL DEFAULT '',
  usage BLOB,
  PRIMARY KEY (session_key, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX inbox_id ON inbox (id);
CREATE INDEX inbox_waiting ON inbox (session_key, seq) WHERE state = 'waiting';
CREATE INDEX inbox_settled ON inbox (state, settled_at) WHERE settled_at IS NOT NULL;

-- The keys that make a redelivery a duplicate, each until its time.
CREATE TABLE dedupe (
  session_key TEXT NOT NULL,
  key TEXT NOT NULL,
  message_id TEXT NOT NULL,
  until REAL NOT NULL,
  PRIMARY KEY (session_key, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX dedupe_until ON dedupe (until);

-- The transcript of a session, one message a row.
CREATE TABLE history (
  session_key TEXT NOT NULL,
  position INTEGER NOT NULL,
  message BLOB NOT NULL,
  PRIMARY KEY (session_key, position)
) STRICT, WITHOUT ROWID;

-- The todo list of a session, as JSON.
CREATE TABLE todos (
  session_key TEXT NOT NULL PRIMARY KEY,
  todo BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The finished steps of a turn that has not been settled.
CREATE TABLE checkpoints (
  session_key TEXT NOT NULL,
  step INTEGER NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (session_key, step)
) STRICT, WITHOUT ROWID;

-- One row a reply or a chunk of it. ``state`` is queued (behind another row of its session), due, postponed,
-- leased, sent or failed; ``seq`` is that of the message it answers, 0 if it answers none.
CREATE TABLE outbox (
  session_key TEXT NOT NULL,
  seq INTEGER NOT NULL,
  part INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  platform TEXT NOT NULL,
  text TEXT NOT NULL,
  address BLOB NOT NULL,
  status TEXT NOT NULL,
  rendered INTEGER NOT NULL,
  state TEXT NOT NULL,
  place INTEGER NOT NULL,
  host TEXT NOT NULL DEFAULT '',
  until REAL,
  lease INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  sent_id TEXT,
  closed_at REAL,
  error TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (session_key, seq, part)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_due ON outbox (place) WHERE state = 'due';
CREATE INDEX outbox_until ON outbox (state, until) WHERE until IS NOT NULL;
CREATE INDEX outbox_unsent ON outbox (session_key, seq, part) WHERE closed_at IS NULL;
CREATE INDEX outbox_announced ON outbox (closed_at) WHERE seq = 0;

-- Strangers and who of them was let in.
CREATE TABLE pairings (
  sender TEXT NOT NULL PRIMARY KEY,
  code TEXT NOT NULL,
  approved INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX pairings_code ON pairings (code);
CREATE INDEX pairings_waiting ON pairings (sender) WHERE approved = 0;

-- Counters of the whole store: the last epoch drawn, and how often it was opened.
CREATE TABLE sequences (
  name TEXT NOT NULL PRIMARY KEY,
  last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO sequences (name, last) VALUES ('epoch', 0), ('opened', 0);

-- The row that a health check writes and reads back.
CREATE TABLE probe (
  name TEXT NOT NULL PRIMARY KEY,
  at REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""

VERSION_2 = """
-- Ready sessions are taken platform by platform, so that a flood of one starves no other.
DROP INDEX sessions_ready;
CREATE INDEX sessions_ready ON sessions (suspect, platform, place) WHERE state = 'ready';
"""

VERSION_3 = """
-- The step in whose middle a turn is: the assistant message that asked for its tool calls, and the todo list if a
-- call has changed it. At most one a session; it goes when the step is checkpointed or its turn is settled.
CREATE TABLE open_steps (
  session_key TEXT NOT NULL PRIMARY KEY,
  step INTEGER NOT NULL,
  opening BLOB NOT NULL,
  todo BLOB
) STRICT, WITHOUT ROWID;

-- The side-effect journal of that step: a call's row is its intent, ``result`` the message it gave.
CREATE TABLE tool_calls (
  session_key TEXT NOT NULL,
  step INTEGER NOT NULL,
  call_id TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  name TEXT NOT NULL,
  started_at REAL NOT NULL,
  ended_at REAL,
  result BLOB,
  PRIMARY KEY (session_key, step, call_id)
) STRICT, WITHOUT ROWID;
"""

VERSION_4 = """
-- What a model is shown instead of the beginning of a transcript: of the messages before position ``covers``, made when
-- ``settled`` of them were in the history.
CREATE TABLE summaries (
  session_key TEXT NOT NULL,
  covers INTEGER NOT NULL,
  settled INTEGER NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (session_key, covers)
) STRICT, WITHOUT ROWID;

-- A summary goes with the messages it was made of, whoever takes them back: it tells of them, and of the turn after.
CREATE TRIGGER summaries_follow AFTER DELETE ON history BEGIN
  DELETE FROM summaries
  WHERE session_key = OLD.session_key AND (covers > OLD.position OR settled >= OLD.position);
END;
"""

VERSION_5 = """
-- What each session has used in its life, as JSON, and what its conversation has spent since it was begun.
CREATE TABLE usage (
  session_key TEXT NOT NULL PRIMARY KEY,
  usage BLOB NOT NULL,
  tokens INTEGER NOT NULL,
  nanos INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_most ON usage (tokens);

-- What the turn of a claimed session holds of the budgets, and what of its use was charged by an earlier attempt.
CREATE TABLE holds (
  session_key TEXT NOT NULL PRIMARY KEY,
  user TEXT NOT NULL,
  tokens INTEGER NOT NULL,
  nanos INTEGER NOT NULL,
  charged BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX holds_user ON holds (user);

-- What was spent in a clock hour or day that began then (unix seconds), by each session, each user, and all (the
-- owner '').
CREATE TABLE spending (
  owner TEXT NOT NULL,
  scope TEXT NOT NULL,
  span TEXT NOT NULL,
  began INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  nanos INTEGER NOT NULL,
  PRIMARY KEY (owner, scope, span, began)
) STRICT, WITHOUT ROWID;
CREATE INDEX spending_most ON spending (scope, span, began, tokens);
CREATE INDEX spending_began ON spending (began);
"""

VERSION_6 = """
-- What may become of a message beside a turn of its own. ``joins``: it belongs to the turn of the one before it;
-- ``joined`` is the seq of the message whose turn it joined, 0 for none; ``stop``: its turn is to be ended, and its
-- sender told this; ``quiet_until``: more of the same thought may come until then; ``command``: it is a chat command
-- that waits or was carried out. ``todo_before`` is the todo list as it was before its turn changed it.
ALTER TABLE inbox ADD COLUMN joins INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN joined INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN stop TEXT NOT NULL DEFAULT '';
ALTER TABLE inbox ADD COLUMN quiet_until REAL NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN command BLOB;
ALTER TABLE inbox ADD COLUMN todo_before BLOB;
CREATE INDEX inbox_joined ON inbox (session_key, joined, seq) WHERE joined > 0;

-- Which message's turn wrote a message of the transcript, 0 if none did or nobody knows.
ALTER TABLE history ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;

-- Where the present conversation of a session begins: its first position, and the seq of the command that began it.
-- What is before it is kept.
ALTER TABLE sessions ADD COLUMN began_position INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN began_seq INTEGER NOT NULL DEFAULT 0;
"""


VERSION_7 = """
-- ``user`` is a reserved word of the standard. Whose turn a session is at orders it among the others of that sender.
ALTER TABLE inbox RENAME COLUMN user TO user_id;
ALTER TABLE holds RENAME COLUMN user TO sender;
ALTER TABLE sessions ADD COLUMN sender TEXT NOT NULL DEFAULT '';
CREATE INDEX sessions_sender ON sessions (sender, place) WHERE state = 'ready';
DROP INDEX inbox_settled;
CREATE INDEX inbox_settled ON inbox (state, settled_at, session_key, seq) WHERE settled_at IS NOT NULL;
CREATE INDEX inbox_sender ON inbox (platform, user_id) WHERE state = 'waiting';
"""

VERSION_8 = """
-- Replies are sent platform by platform, so that no receiver waits for another's, and new ones before those that were
-- tried.
DROP INDEX outbox_due;
CREATE INDEX outbox_due ON outbox (platform, (CASE WHEN attempts > 0 THEN 1 ELSE 0 END), place) WHERE state = 'due';
"""

VERSION_9 = """
-- What a client of the API asks for beside its words, as MessagePack; what tells its repeated request from another one;
-- and what it was answered, for one that asks again.
ALTER TABLE inbox ADD COLUMN options BLOB;
ALTER TABLE inbox ADD COLUMN fingerprint TEXT NOT NULL DEFAULT '';
ALTER TABLE inbox ADD COLUMN answer BLOB;
CREATE INDEX inbox_fingerprint ON inbox (session_key, fingerprint, seq) WHERE fingerprint <> '';
"""

VERSION_10 = """
-- What a dead letter is; replies that were refused for good are found without reading the others.
ALTER TABLE inbox ADD COLUMN dead_kind TEXT NOT NULL DEFAULT 'message';
CREATE INDEX outbox_refused ON outbox (message_id) WHERE state = 'failed';
"""

VERSION_11 = """
-- What operators did, and what was refused to whom.
CREATE TABLE audit (
  place INTEGER NOT NULL PRIMARY KEY,
  at REAL NOT NULL,
  action TEXT NOT NULL,
  actor TEXT NOT NULL,
  target TEXT NOT NULL,
  origin TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

VERSION_12 = """
-- One row a host: its claims and leases are live until ``lease_until``.
CREATE TABLE hosts (
  host TEXT NOT NULL PRIMARY KEY,
  gateway INTEGER NOT NULL,
  workers INTEGER NOT NULL,
  address TEXT NOT NULL,
  snapshot BLOB NOT NULL,
  lease_until REAL NOT NULL,
  joined_at REAL NOT NULL
) STRICT;

-- A claimed session without ``until`` is claimed as long as its host lives; ``home`` is the host that ran it last.
ALTER TABLE sessions ADD COLUMN home TEXT NOT NULL DEFAULT '';
CREATE INDEX sessions_host ON sessions (host) WHERE state = 'claimed';

-- The host that holds the connection of whoever waits for the answer, empty if any may send it.
ALTER TABLE inbox ADD COLUMN gateway TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN gateway TEXT NOT NULL DEFAULT '';
CREATE INDEX inbox_stopping ON inbox (session_key, seq) WHERE state = 'waiting' AND stop <> '';
CREATE INDEX inbox_steering ON inbox (session_key) WHERE state = 'waiting' AND joins = 1 AND joined = 0;

-- What settled turns have used and ``spending`` does not count yet: no two settles write the same row.
CREATE TABLE charges (
  session_key TEXT NOT NULL,
  charge INTEGER NOT NULL,
  sender TEXT NOT NULL,
  at REAL NOT NULL,
  tokens INTEGER NOT NULL,
  nanos INTEGER NOT NULL,
  PRIMARY KEY (session_key, charge)
) STRICT, WITHOUT ROWID;
CREATE INDEX charges_sender ON charges (sender);
"""

VERSION_13 = """
-- A pairing code holds for a while, and what its sender wrote first is answered once it is approved.
ALTER TABLE pairings ADD COLUMN until REAL NOT NULL DEFAULT 0;
ALTER TABLE pairings ADD COLUMN held BLOB;
"""

VERSION_14 = """
-- What a health check writes is as large as what has to fit.
ALTER TABLE probe ADD COLUMN body BLOB;
"""

VERSION_15 = """
-- The bytes that messages refer to by their digest, once each in a session; and which ones a message brings, as
-- msgpack.
CREATE TABLE attachments (
  session_key TEXT NOT NULL,
  digest TEXT NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (session_key, digest)
) STRICT, WITHOUT ROWID;
ALTER TABLE inbox ADD COLUMN attachments BLOB;
"""

VERSION_16 = """
-- Tool calls of a turn that wait for somebody's word, and what was decided.
CREATE TABLE approvals (
  session_key TEXT NOT NULL,
  step INTEGER NOT NULL,
  call_id TEXT NOT NULL,
  decision TEXT NOT NULL,
  until REAL NOT NULL,
  PRIMARY KEY (session_key, step, call_id)
) STRICT, WITHOUT ROWID;
"""

VERSION_17 = """
-- The name that a chat had before: what is said under the new one belongs to the sessions of the old one.
CREATE TABLE aliases (
  alias TEXT NOT NULL PRIMARY KEY,
  chat TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

VERSION_18 = """
-- Sessions that were removed, and when: a host that was away forgets them when it is back.
CREATE TABLE removals (
  session_key TEXT NOT NULL PRIMARY KEY,
  at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX removals_at ON removals (at);
-- What all other hosts are told of a host with their beats; its snapshot is for who asks.
ALTER TABLE hosts ADD COLUMN brief BLOB;
"""

VERSION_19 = """
-- A question about tool calls: whose turn asks, its name, which the buttons under it carry, and its words.
ALTER TABLE approvals ADD COLUMN message_id TEXT NOT NULL DEFAULT '';
ALTER TABLE approvals ADD COLUMN question TEXT NOT NULL DEFAULT '';
ALTER TABLE approvals ADD COLUMN text TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN question TEXT NOT NULL DEFAULT '';
"""

VERSION_20 = """
-- The steps that a dead letter without a model has finished, as msgpack: what they did is not done again.
ALTER TABLE inbox ADD COLUMN finished BLOB;
"""

VERSION_21 = """
-- What people call a session, where its platform tells it; and when each message of a transcript was kept.
ALTER TABLE sessions ADD COLUMN title TEXT NOT NULL DEFAULT '';
ALTER TABLE history ADD COLUMN at REAL NOT NULL DEFAULT 0;
"""

VERSION_22 = """
-- Whose message a reply answers, so that one sender's replies keep nobody else's waiting.
ALTER TABLE outbox ADD COLUMN sender TEXT NOT NULL DEFAULT '';
CREATE INDEX outbox_sender ON outbox (sender, place) WHERE state = 'due';
"""

VERSION_23 = """
-- What a reply carries that is a file: its Attachment as msgpack.
ALTER TABLE outbox ADD COLUMN file BLOB;
"""

#: one script a schema version, in order; a released one is never edited
MIGRATIONS = (
    VERSION_1,
    VERSION_2,
    VERSION_3,
    VERSION_4,
    VERSION_5,
    VERSION_6,
    VERSION_7,
    VERSION_8,
    VERSION_9,
    VERSION_10,
    VERSION_11,
    VERSION_12,
    VERSION_13,
    VERSION_14,
    VERSION_15,
    VERSION_16,
    VERSION_17,
    VERSION_18,
    VERSION_19,
    VERSION_20,
    VERSION_21,
    VERSION_22,
    VERSION_23,
)
