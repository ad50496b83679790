"""Backs the database up by itself: ``GATEHOUSE_BACKUP_DIR`` holds the last ``GATEHOUSE_BACKUP_KEEP`` copies.

A copy is due when the newest one is older than the interval, so a restart makes none too many. One that fails is tried
again with the next look, and said; older copies go only after a new one was verified.
"""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

from shared.errors import StoreError
from shared.events import Emit, Event
from shared.store.sqlite.backup import BackupReport, back_up
from shared.upkeep import Upkeep

#: what the names of our own copies look like: no other file is counted or removed
NAME = re.compile(r"gatehouse-\d{8}-\d{6}\.db")
LOOK_S = 60.0


class ScheduledBackup:
    """Makes a copy whenever one is due; ``database`` is the file that is copied, None for a server's: nothing is."""

    def __init__(self, upkeep: Upkeep, database: Path | None, emit: Emit) -> None:
        self._upkeep = upkeep
        self._database = database
        self._emit = emit

    async def run(self) -> None:
        """Look for ever whether a copy is due, and make it."""
        while self._upkeep.backup_dir is not None and self._database is not None:
            await self.make_if_due(self._upkeep.backup_dir)
            await asyncio.sleep(min(LOOK_S, self._upkeep.backup_interval_s))

    async def make_if_due(self, directory: Path) -> BackupReport | None:
        """Make a copy if the newest is older than the interval; None if none was due or it failed, which is said."""
        database = self._database
        try:
            if database is None or not await asyncio.to_thread(self._due, directory):
                return None
            report = await asyncio.to_thread(self._make, database, directory)
        except (StoreError, OSError) as error:
            self._emit(Event.BACKUP_FAILED, directory=str(directory), error=str(error))
            return None
        self._emit(Event.BACKUP_MADE, path=report.path, bytes=report.size_bytes, messages=report.messages)
        return report

    def _due(self, directory: Path) -> bool:
        made = [path.stat().st_mtime for path in copies(directory)]
        return time.time() - max(made, default=0.0) >= self._upkeep.backup_interval_s

    def _make(self, database: Path, directory: Path) -> BackupReport:
        target = directory / time.strftime("gatehouse-%Y%m%d-%H%M%S.db", time.gmtime())
        report = back_up(database, target, lambda _done, _total: None)
        for old in copies(directory)[: -self._upkeep.backups_kept]:
            old.unlink(missing_ok=True)
        return report


def copies(directory: Path) -> list[Path]:
    """Return the copies in a directory, oldest first. Raises OSError."""
    return sorted(path for path in directory.iterdir() if NAME.fullmatch(path.name))
