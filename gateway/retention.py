"""Removes what is old: settled messages after a week, and sessions and their logs where settings say after how long.

Everything goes in short transactions, so that no accept waits for it; what fails is tried again an hour later.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Protocol

from shared.errors import StoreError
from shared.events import Emit, Event
from shared.session_files import session_log_path
from shared.session_segments import remove_log, remove_old_logs
from shared.store.port import Store
from shared.upkeep import Upkeep

EVERY_S = 3600.0
KEEP_DONE_S = 7 * 86_400.0
#: how long hosts that are gone, and removals that hosts may not have heard of, are remembered
KEEP_HOSTS_S = 86_400.0
KEEP_REMOVALS_S = 90 * 86_400.0
#: sessions removed before the others are let through
SESSIONS_AT_ONCE = 50


class Duty(Protocol):
    """What tells which of several hosts removes what is in the store."""

    @property
    def on_duty(self) -> bool:
        """Whether this one does."""

    def removed(self, session: str) -> None:
        """Take note that a session was removed, in memory and at other hosts."""


class Retention:
    """Removes what is old: logs where they are, rows of the store where the pool says that it is this host's duty."""

    def __init__(self, store: Store, log_dir: Path, upkeep: Upkeep, emit: Emit, duty: Duty) -> None:
        self._store = store
        self._log_dir = log_dir
        self._upkeep = upkeep
        self._emit = emit
        self._duty = duty

    async def run(self) -> None:
        """Remove what is old, for ever."""
        while True:
            with contextlib.suppress(StoreError):
                await self.remove_all()
            await asyncio.sleep(EVERY_S)

    async def remove_all(self) -> None:
        """Remove what is old now. Raises StoreError."""
        sessions = logs = 0
        if self._duty.on_duty:
            await self._store.inbox.expire(KEEP_DONE_S)
            await self._store.spending.expire(KEEP_DONE_S)
            await self._store.hosts.expire(KEEP_HOSTS_S, KEEP_REMOVALS_S)
            if self._upkeep.keep_history_s is not None:
                sessions = await self._remove_sessions(self._upkeep.keep_history_s)
        if self._upkeep.keep_logs_s is not None:
            logs = await asyncio.to_thread(remove_old_logs, self._log_dir, time.time() - self._upkeep.keep_logs_s)
        if sessions or logs:
            self._emit(Event.OLD_REMOVED, sessions=sessions, log_files=logs)

    async def _remove_sessions(self, keep_s: float) -> int:
        count = 0
        while keys := await self._store.sessions.remove_out_of_use(keep_s, SESSIONS_AT_ONCE):
            for key in keys:
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(remove_log, session_log_path(self._log_dir, key))
                self._duty.removed(key)
            count += len(keys)
        return count
