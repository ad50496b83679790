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
        '    part = target.with_name(target.name + ".part")\n',
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
