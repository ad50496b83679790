"""How a server gets the schema of ``shared/store/sql/schema.py``: translated, one transaction a version."""

from __future__ import annotations

import re

import psycopg

from shared.errors import StoreOutdated, StoreUnusable
from shared.store.engine import OpeningProgress, Tell
from shared.store.sql.schema import MIGRATIONS

# What no statement of the shared ones can say: the counter of epochs, and the trigger in the server's own language.
OWN = """
CREATE SEQUENCE epoch;
CREATE FUNCTION summaries_follow() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  DELETE FROM summaries WHERE session_key = OLD.session_key AND (covers > OLD.position OR settled >= OLD.position);
  RETURN NULL;
END $body$;
CREATE TRIGGER summaries_follow AFTER DELETE ON history FOR EACH ROW EXECUTE FUNCTION summaries_follow();
"""

#: tables whose rows change again and again, and the part of a page that is filled at first, in percent: an update that
#: finds room on its page touches no index
FILL_PERCENT = {"sessions": 60, "inbox": 75, "outbox": 75, "usage": 70, "spending": 50, "todos": 70, "holds": 60}
VACUUM = "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0"

#: the number of the lock that one migration at a time holds
MIGRATION_LOCK = 0x6761_7465


def translate(script: str) -> str:
    """Return a script of the shared ones in the server's types."""
    text = re.sub(r"--.*$", "", script, flags=re.MULTILINE)
    text = re.sub(r"CREATE TRIGGER .*?END;", "", text, flags=re.DOTALL)
    text = re.sub(r"\) STRICT(, WITHOUT ROWID)?;", ");", text)
    text = re.sub(r"\bBLOB\b", "BYTEA", text)
    text = re.sub(r"\bREAL\b", "DOUBLE PRECISION", text)
    text = re.sub(r"\bINTEGER\b", "BIGINT", text)
    text = re.sub(r"\buser\b", '"user"', text)
    # keys compare byte by byte, as they do in SQLite and in Python
    return re.sub(r"\bTEXT NOT NULL", 'TEXT COLLATE "C" NOT NULL', text)


def migrate(
    connection: psycopg.Connection[tuple[object, ...]], server: str, tell: Tell, *, read_only: bool = False
) -> None:
    """Bring the database to the newest schema, one transaction a version; a kill loses the one it falls into.

    Hosts that start together take turns. Raises StoreUnusable for a schema that is newer or another program's; with
    ``read_only`` it changes nothing, and raises for an older schema too.
    """
    if read_only:
        _check(connection, server)
        return
    found = 0
    while found < len(MIGRATIONS):
        with connection.transaction():
            _take_turn(connection, tell)
            found = _found(connection, server)
            if found == len(MIGRATIONS):
                return
            if found:
                tell(OpeningProgress(f"schema {found + 1}", found, len(MIGRATIONS)))
            scripts = MIGRATIONS[found : found + 1] if found else MIGRATIONS
            for script in scripts:
                connection.execute(translate(script).encode())
            if not found:
                connection.execute(OWN.encode())
                for table, percent in FILL_PERCENT.items():
                    connection.execute(f"ALTER TABLE {table} SET (fillfactor = {percent}, {VACUUM})".encode())
            found += len(scripts)
            connection.execute("DELETE FROM schema_version")
            connection.execute("INSERT INTO schema_version (version) VALUES (%s)", (found,))


def _take_turn(connection: psycopg.Connection[tuple[object, ...]], tell: Tell) -> None:
    """Hold the lock of migrations until the transaction ends; a wait for another host's, which may be long, is told."""
    if not connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (MIGRATION_LOCK,)).fetchall()[0][0]:
        tell(OpeningProgress("by another host", 0, len(MIGRATIONS)))
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))


def _check(connection: psycopg.Connection[tuple[object, ...]], server: str) -> None:
    """Raise StoreUnusable unless the database has today's schema."""
    if connection.execute("SELECT to_regclass('schema_version')").fetchall()[0][0] is None:
        raise StoreUnusable(f"{server} has no tables of Gatehouse yet: the next start makes them")
    found = _version(connection)
    if found != len(MIGRATIONS):
        raise StoreOutdated(
            f"{server} has schema {found}, and this release reads {len(MIGRATIONS)}: the next start brings it there"
        )


def _version(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    return int(str(connection.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchall()[0][0]))


def _found(connection: psycopg.Connection[tuple[object, ...]], server: str) -> int:
    """Return the version of the database's schema, 0 for an empty one."""
    exists = "SELECT to_regclass('schema_version'), to_regclass('sessions')"
    versions, sessions = connection.execute(exists).fetchall()[0]
    if versions is None:
        if sessions is not None:
            raise StoreUnusable(f"{server} is a database of another program: it has a table sessions, but no schema")
        connection.execute("CREATE TABLE schema_version (version BIGINT NOT NULL)")
        return 0
    found = _version(connection)
    if found > len(MIGRATIONS):
        raise StoreUnusable(
            f"{server} has schema {found}, written by a newer Gatehouse; this one knows {len(MIGRATIONS)} at most"
        )
    return found
