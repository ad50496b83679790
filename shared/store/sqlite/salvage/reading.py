"""One reading of a damaged file: every tree from its root, then the pages that no tree leads to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw

from shared.errors import StoreUnusable
from shared.store.sql.schema import MIGRATIONS
from shared.store.sqlite.backup import TellCopied
from shared.store.sqlite.salvage.btree import Damage, PageFile, StoredRow, Value
from shared.store.sqlite.salvage.log_folding import FoldedLog
from shared.store.sqlite.salvage.report import TableReport
from shared.store.sqlite.salvage.stored_table import StoredTable, described
from shared.store.sqlite.schema import migrate

#: rows that share a transaction
BATCH_ROWS = 2000
#: damages that a table's report describes; the rest is counted
TOLD_LIMIT = 20
#: rows after which the progress is shown again
PROGRESS_ROWS = 500
#: tables whose rows a new database has too
OWN = ("sequences", "probe")


# List what has pages of its own, the indexes of keys too.
OBJECTS = "SELECT type, name FROM sqlite_schema WHERE type = 'index' OR type = 'table' AND name NOT LIKE 'sqlite%'"


class Reading:
    """One reading of a damaged file into a new database."""

    def __init__(self, pages: PageFile, new: apsw.Connection, progress: TellCopied, folded: FoldedLog) -> None:
        self._pages = pages
        self._new = new
        self._progress = progress
        self._notes = folded.notes
        self._unsure_pages = folded.unsure_pages
        #: by page and table, what the rows are called that may differ from what was written
        self._unsure: dict[tuple[int, str], list[str]] = {}
        self._message_ids: set[str] = set()
        self._unsent: set[tuple[str, int, int]] = set()
        self._batch: list[tuple[StoredTable, tuple[Value, ...]]] = []
        self.reports: dict[str, TableReport] = {}

    def read(self) -> None:
        """Read every tree from its root, then the pages that no tree leads to."""
        objects = self._schema()
        if not any(name == "inbox" for _, name, _ in objects):
            raise StoreUnusable("the file is a database of another program: it has no inbox")
        tables = [described(self._new, name, root) for kind, name, root in objects if kind == "table"]
        self.reports = {table.name: TableReport(table.name, told=[]) for table in tables}
        for kind, name, root in objects:
            if kind == "index":
                self._read_index(name, root)
        for table in tables:
            if table.root:
                self._read_table(table)
        self._read_lone_pages([table for table in tables if table.name != "probe"])  # its row is for a check alone
        self._flush()
        for (page, name), rows in sorted(self._unsure.items()):
            told = ", ".join(rows[:TOLD_LIMIT]) + (", …" if len(rows) > TOLD_LIMIT else "")
            self._notes.append(f"page {page}, table {name}: {len(rows)} rows may differ from what was written: {told}")
        for report in self.reports.values():
            report.rows = self._new.execute(f'SELECT count(*) FROM "{report.name}"').get  # noqa: S608 - of the schema

    @property
    def found_nothing(self) -> bool:
        """Whether the file is damaged and gave no row that is anybody's."""
        told = bool(self._notes) or any(report.damages for report in self.reports.values())
        return told and not any(report.rows for report in self.reports.values() if report.name not in OWN)

    def lost_messages(self) -> tuple[str, ...]:
        """Return the ids of messages that something still names and whose row is not there."""
        kept = {str(row[0]) for row in self._new.execute("SELECT id FROM inbox")}
        named = set(self._message_ids)
        if self.reports["inbox"].damages or self._notes:
            named |= {str(row[0]) for row in self._new.execute("SELECT message_id FROM outbox WHERE seq > 0")}
            named |= {str(row[0]) for row in self._new.execute("SELECT message_id FROM dedupe")}
        return tuple(sorted(named - kept))

    def lost_replies(self) -> tuple[tuple[str, int, int], ...]:
        """Return (session, number of the message, part) of unsent replies that an index names and that are lost."""
        kept = set(self._new.execute("SELECT session_key, seq, part FROM outbox"))
        return tuple(sorted(self._unsent - kept))

    def _schema(self) -> list[tuple[str, str, int]]:
        """Create in the new database what the old one has, or where that cannot be read what today's has.

        Returns (kind, name, root page) of each, 0 for a root that is not known.
        """
        found = list(self._pages.tree(1, has_rowid=True)) if self._pages.count else []
        # type, name, tbl_name, rootpage, sql
        rows = [row.values for row in found if isinstance(row, StoredRow) and len(row.values) == 5]
        damaged = len(rows) < len(found) or not rows
        roots = {str(name): root for _, name, _, root, _ in rows if isinstance(root, int)}
        if damaged or not 0 < self._pages.user_version <= len(MIGRATIONS):
            self._notes.append("the schema of the file is damaged: its tables were read as those of today's release")
            migrate(self._new, Path("the new database"))
            for table in OWN:
                self._new.execute(f"DELETE FROM {table}")  # noqa: S608 - a fixed word
        else:
            for kind in ("table", "index", "trigger"):
                for what, _, _, _, sql in rows:
                    if what == kind and isinstance(sql, str):
                        self._new.execute(sql)
            self._new.pragma("user_version", self._pages.user_version)
        made = self._new.execute(OBJECTS)
        return [(str(kind), str(name), roots.get(str(name), 0)) for kind, name in made]

    def _read_index(self, name: str, root: int) -> None:
        """Read an index, so that its pages are known, and what names messages and replies."""
        for found in self._shown(self._pages.tree(root, has_rowid=False)):
            if isinstance(found, Damage):
                self._notes.append(f"index {name}, page {found.page}: {found.problem}")
                continue
            match name, found.values:
                case "inbox_id", (str(message_id), *_):
                    self._message_ids.add(message_id)
                case "outbox_unsent", (str(session), int(seq), int(part), *_):
                    self._unsent.add((session, seq, part))

    def _read_table(self, table: StoredTable) -> None:
        for found in self._shown(self._pages.tree(table.root, has_rowid=table.has_rowid)):
            if isinstance(found, Damage):
                self._tell(table.name, found)
            elif (row := table.row(found)) is not None:
                self._write(table, row)
                if found.page in self._unsure_pages:
                    self._unsure.setdefault((found.page, table.name), []).append(table.name_of(row))
            else:
                self._tell(table.name, Damage(found.page, "a record is no row of this table"))

    def _read_lone_pages(self, tables: list[StoredTable]) -> None:
        """Read the leaves that no tree led to: their rows tell by their form which table they are of."""
        free = self._pages.free_pages()
        for number in range(1, self._pages.count + 1):
            if self._pages.seen[number] or number in free or not self._pages.is_leaf(number):
                continue
            rows = [found for found in self._pages.rows(number) if isinstance(found, StoredRow)]
            fitting = [table for table in tables if rows and all(table.row(row) is not None for row in rows)]
            if len(fitting) != 1:
                if fitting:
                    names = " or ".join(table.name for table in fitting)
                    self._notes.append(f"page {number}: {len(rows)} rows of {names}, nobody knows which; left out")
                continue
            table = fitting[0]
            for found in rows:
                if (row := table.row(found)) is not None:
                    self._write(table, row)
                    self.reports[table.name].from_lone_pages += 1

    def _shown(self, found: Iterator[StoredRow | Damage]) -> Iterator[StoredRow | Damage]:
        """Pass on what is found, and show how far the reading is."""
        for number, one in enumerate(found):
            if number % PROGRESS_ROWS == 0:
                self._progress(self._pages.seen.count(1), self._pages.count)
            yield one

    def _tell(self, name: str, damage: Damage) -> None:
        report = self.reports[name]
        report.damages += 1
        if len(report.told) < TOLD_LIMIT:
            report.told.append(f"page {damage.page}: {damage.problem}")

    def _write(self, table: StoredTable, row: tuple[Value, ...]) -> None:
        self._batch.append((table, row))
        if len(self._batch) >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        self._new.execute("BEGIN")
        for table, row in batch:
            columns = ", ".join(f'"{name}"' for name in table.stored)
            places = ", ".join("?" * len(row))
            try:
                self._new.execute(f'INSERT OR IGNORE INTO "{table.name}" ({columns}) VALUES ({places})', row)  # noqa: S608
            except apsw.ConstraintError as error:
                self._tell(table.name, Damage(0, f"a record is refused: {error}"))
        self._new.execute("COMMIT")
