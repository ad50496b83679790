"""How a server's database logs which rows change while hosts write it: a trigger a table.

Each table is locked against writers for the moment in which it gets its trigger, one after the other, so nobody waits
for more than what is under way in it. https://www.postgresql.org/docs/current/sql-createtrigger.html
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import psycopg

from shared.store.sqlite.schema import Table

# Numbers are not drawn in the order of the commits, so a look begins at the first transaction that an earlier one may
# not have seen the end of.
MAKE = """
CREATE TABLE change_log (
  number BIGSERIAL PRIMARY KEY,
  written BIGINT NOT NULL DEFAULT CAST(CAST(pg_current_xact_id() AS text) AS int8),
  mark BIGINT NOT NULL DEFAULT CAST(random() * 9007199254740992 AS int8),
  name TEXT COLLATE "C" NOT NULL,
  row_key TEXT COLLATE "C" NOT NULL
);
CREATE INDEX change_log_written ON change_log (written, number);
CREATE VIEW logged_changes AS SELECT written, number, mark, name, row_key FROM change_log;
"""
COUNT_TRIGGERS = """
(SELECT count(*) FROM pg_trigger JOIN pg_class ON pg_class.oid = pg_trigger.tgrelid
 WHERE pg_class.relnamespace = CAST(current_schema() AS regnamespace) AND pg_trigger.tgname = 'change_log')
"""
MAKE_STATE = """
CREATE VIEW change_log_state AS SELECT CAST('{token}' AS text) AS token,
  CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS int8) AS horizon, (triggers) AS triggers
""".replace("(triggers)", COUNT_TRIGGERS)
FOUND = "SELECT to_regclass('change_log_state')"
READ = "SELECT token, triggers FROM change_log_state"
FUNCTION = """
CREATE FUNCTION change_log_{table}() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF TG_OP = 'DELETE' THEN
    INSERT INTO change_log (name, row_key) VALUES ('{table}', {old});
  ELSE
    INSERT INTO change_log (name, row_key) VALUES ('{table}', {new});
    IF TG_OP = 'UPDATE' THEN
      IF {old} <> {new} THEN
        INSERT INTO change_log (name, row_key) VALUES ('{table}', {old});
      END IF;
    END IF;
  END IF;
  RETURN NULL;
END $body$
"""
TRIGGER = """
CREATE TRIGGER change_log AFTER INSERT OR UPDATE OR DELETE ON {table}
FOR EACH ROW EXECUTE FUNCTION change_log_{table}()
"""
SHORT_WAIT = "SET LOCAL lock_timeout = '5s'"
# Wait for every transaction that has logged something.
WAIT_FOR_WRITERS = "LOCK TABLE change_log IN SHARE MODE"


def begin(connection: psycopg.Connection[tuple[object, ...]], tables: Sequence[Table]) -> str:
    """Log from now on the key of every row that changes, unless that is done; return the log's token.

    The connection commits by itself. Raises psycopg.Error.
    """
    if connection.execute(FOUND).fetchall()[0][0] is not None:
        ((token, triggers),) = connection.execute(READ).fetchall()
        if triggers == len(tables):
            return str(token)
    end(connection, tables)
    connection.execute(MAKE.encode())
    for table in tables:
        names = {"table": table.name, "old": _key(table, "OLD"), "new": _key(table, "NEW")}
        with connection.transaction():
            connection.execute(SHORT_WAIT)  # behind a writer that lasts, every other one waits for this
            connection.execute(FUNCTION.format(**names).encode())
            connection.execute(TRIGGER.format(**names).encode())
    token = secrets.token_hex(8)
    connection.execute(MAKE_STATE.format(token=token).encode())
    return str(token)


def end(connection: psycopg.Connection[tuple[object, ...]], tables: Sequence[Table]) -> None:
    """Log no more, and forget what was logged. Raises psycopg.Error."""
    connection.execute("DROP VIEW IF EXISTS change_log_state, logged_changes")
    for table in tables:
        connection.execute(f"DROP TRIGGER IF EXISTS change_log ON {table.name}".encode())
        connection.execute(f"DROP FUNCTION IF EXISTS change_log_{table.name}()".encode())
    connection.execute("DROP TABLE IF EXISTS change_log")


def wait_for_writers(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Wait for what hosts that are gone have left under way. Raises psycopg.Error."""
    with connection.transaction():
        connection.execute(WAIT_FOR_WRITERS)


def _key(table: Table, row: str) -> str:
    return " || ',' || ".join(
        f"'x' || encode(convert_to({row}.{name}, 'UTF8'), 'hex')" if name in table.text_keys else f"{row}.{name}"
        for name in table.key
    )
