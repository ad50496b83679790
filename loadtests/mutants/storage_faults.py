"""Faults at what is kept: damage, deletion, copies, migrations."""

from __future__ import annotations

from loadtests.mutants.fault import STORE, Fault

#: damage, deletion, copies and migrations
KEPT_FILES = (
    Fault(
        "a copy takes its name before it was verified",
        "shared/store/sqlite/backup.py",
        "        report = verified(part, named=target)\n        put_in_place(part, target)\n    return report\n",
        "        put_in_place(part, target)\n        report = verified(target)\n    return report\n",
        (f"{STORE}/test_sqlite_backup.py",),
    ),
    Fault(
        "a copy is written under its own name",
        "shared/store/sqlite/backup.py",
        "    part = target.with_name(target.name + PART)\n",
        "    part = target\n",
        (f"{STORE}/test_sqlite_backup.py",),
    ),
    Fault(
        "lost messages are not named by a salvage",
        "shared/store/sqlite/salvage/reading.py",
        "        return tuple(sorted(named - kept))\n",
        "        return ()\n",
        (f"{STORE}/test_sqlite_salvage.py",),
    ),
    Fault(
        "a log that lacks what was synced is opened",
        "shared/store/sqlite/synced_mark.py",
        "        if frames < mark.frames:\n",
        "        if frames < 0:\n",
        (f"{STORE}/test_sqlite_log_damage.py",),
    ),
    Fault(
        "a damaged log goes with the connection that looked at it",
        "shared/store/sqlite/synced_mark.py",
        "        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)\n",
        "",
        (f"{STORE}/test_sqlite_log_damage.py",),
    ),
    Fault(
        "what was not synced is marked as synced",
        "shared/store/sqlite/writer.py",
        "        if self._synchronous == FULL:\n            self.synced_commits",
        "        if self._synchronous:\n            self.synced_commits",
        (f"{STORE}/test_sqlite_log_damage.py",),
    ),
    Fault(
        "a log is begun anew under its old mark",
        "shared/store/sqlite/synced_mark.py",
        "            self._write(Synced(bytes(HEADER_BYTES), 0))\n",
        "",
        (f"{STORE}/test_sqlite_log_damage.py",),
    ),
    Fault(
        "a salvage ends a damaged log where SQLite does",
        "shared/store/sqlite/salvage/log_folding.py",
        "        if number > marked and not (sound",
        "        if not (sound",
        (f"{STORE}/test_sqlite_log_damage.py",),
    ),
    Fault(
        "deleted words stay in the free pages",
        "shared/store/sqlite/engine.py",
        '"secure_delete", True',
        '"secure_delete", False',
        (f"{STORE}/test_sqlite_removal.py",),
    ),
    Fault(
        "deleted words stay in the write-ahead log",
        "shared/store/sqlite/writer.py",
        "    database.scrub_asked = True\n",
        "    database.scrub_asked = False\n",
        (f"{STORE}/test_sqlite_removal.py",),
    ),
    Fault(
        "a table counts as moved after its first rows",
        "shared/store/sqlite/table_move.py",
        "    while left:\n",
        "    if left:\n",
        (f"{STORE}/test_sqlite_migration.py",),
    ),
    Fault(
        "a move that was cut off is begun anew",
        "shared/store/sqlite/table_move.py",
        '            db.execute(f"DELETE FROM {table} WHERE {upto}", until)',
        '            db.execute(f"DELETE FROM {table} WHERE {upto} AND 0", until)',
        (f"{STORE}/test_sqlite_migration.py",),
    ),
    Fault(
        "a database half way to its schema is read as a whole one",
        "shared/store/sqlite/schema.py",
        "    if unmoved(db):\n",
        "    if False:\n",
        (f"{STORE}/test_sqlite_migration.py",),
    ),
    Fault(
        "webhooks reach a store that is not open yet",
        "gateway/opening.py",
        '        if self._opening.done or scope["path"] == "/livez":\n',
        "        if True:\n",
        ("tests/e2e/test_migration.py",),
    ),
)
