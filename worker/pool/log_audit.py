"""Sees that session logs lack nothing the store has: after a worker died, and after a start, for a host may have died.
And that no log is left of a session that was removed: a worker may have written what it held after the removal.

What a dead worker left in memory is salvaged at once (worker.session_log.ring). This comes later and beside
everything: once a session rests, and every worker has written what it held, its log is compared with its history
(worker.session_log.repair).
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from shared.errors import NotFound, StoreUnavailable
from shared.events import Event, Events
from shared.messages import is_stateless
from shared.redaction import Redaction
from shared.session_files import session_log_path
from shared.session_segments import has_log, remove_log
from shared.store.port import Store
from shared.traces import SessionSummary
from worker.frames import WorkerConfig
from worker.session_log.repair import HISTORY_WINDOW, repair_log

#: sessions looked at after a start, and the last seconds before the end of the host's former life that count
RECALLED_SESSIONS = 1000
RECALLED_S = 60.0
#: beyond two flush intervals, how long a session has to rest, in seconds: what a dead worker left is written by then
REST_S = 1.0


class LogAudit:
    """Owns the sessions whose logs may lack something, or be left over."""

    def __init__(self, store: Store, events: Events, config: WorkerConfig) -> None:
        self._store = store
        self._events = events
        self._log_dir = Path(config.log_dir)
        self._redaction = Redaction(config.secrets())
        self._rest_s = 2 * config.log_flush_interval_s + REST_S
        self._due: dict[str, float] = {}
        #: when sessions were removed whose logs are to be looked at, in unix seconds
        self._removed_at: dict[str, float] = {}
        self._some = asyncio.Event()

    def suspect(self, sessions: Iterable[str]) -> None:
        """Look at the logs of these, once they rest."""
        for session in sessions:
            if is_stateless(session):
                continue
            self._due[session] = time.monotonic() + self._rest_s
            self._some.set()

    def removed(self, session: str, at: float) -> None:
        """Remove a session's log unless it has been written since, once nobody writes what is left of it in memory."""
        if has_log(session_log_path(self._log_dir, session)):
            self._removed_at[session] = at
            self.suspect([session])

    async def run(self) -> None:
        """Look at what is suspected, for ever."""
        await self._suspect_latest()
        while True:
            await self._some.wait()
            await asyncio.sleep(min(self._due.values()) - time.monotonic())
            now = time.monotonic()
            for session in [session for session, due in self._due.items() if due <= now]:
                del self._due[session]
                await self._examine(session)
            if not self._due:
                self._some.clear()

    async def _suspect_latest(self) -> None:
        """Suspect what happened last in the host's former life: it may have been killed."""
        if self._store.engine.shared:  # the latest sessions may be those of other hosts, and have their logs there
            self.suspect(await asyncio.to_thread(latest_logged, self._log_dir))
            return
        try:
            rows = await self._store.sessions.latest(RECALLED_SESSIONS)
        except StoreUnavailable:  # said by those who write; the logs can wait for the next start
            return
        since = rows[0].updated_at - RECALLED_S if rows else 0.0
        self.suspect(row.key for row in rows if row.updated_at >= since or not _rests(row))

    async def _examine(self, session: str) -> None:
        path = session_log_path(self._log_dir, session)
        try:
            if (removed_at := self._removed_at.pop(session, None)) is not None:
                await asyncio.to_thread(remove_if_older, path, removed_at)
            row = await self._store.sessions.summary(session)
            if not _rests(row) or time.time() < row.updated_at + self._rest_s:
                self.suspect([session])
                return
            known = await self._store.sessions.conversation(session, HISTORY_WINDOW)
            lines = await asyncio.to_thread(repair_log, path, session, known.messages, self._redaction, time.time())
        except NotFound:
            await self._remove(session, path)
        except StoreUnavailable:
            self.suspect([session])
        except OSError as error:
            self._events.emit(Event.SESSION_LOG_FAILED, session=session, error=f"not repaired: {error}")
        else:
            if lines:
                self._events.emit(Event.SESSION_LOG_REPAIRED, session=session, lines=lines)

    async def _remove(self, session: str, path: Path) -> None:
        try:
            await asyncio.to_thread(remove_log, path)
        except OSError as error:
            self._events.emit(Event.SESSION_LOG_FAILED, session=session, error=f"not removed: {error}")


def latest_logged(log_dir: Path) -> list[str]:
    """Return the sessions whose logs were written in the last seconds before the last write of all."""
    written: list[tuple[float, Path]] = []
    for path in log_dir.glob("*.jsonl"):
        with contextlib.suppress(OSError):
            written.append((path.stat().st_mtime, path))
    written = heapq.nlargest(RECALLED_SESSIONS, written)
    since = written[0][0] - RECALLED_S if written else 0.0
    return [session for at, path in written if at >= since and (session := session_of(path))]


def session_of(path: Path) -> str:
    """Return the session that a log's first line names, empty where it names none."""
    with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeError), path.open("rb") as log:
        return msgspec.json.decode(log.readline(), type=_Head).session
    return ""


def remove_if_older(path: Path, removed_at: float) -> None:
    """Remove a log that was last written before its session was removed. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_mtime <= removed_at:
            remove_log(path)


class _Head(msgspec.Struct):
    session: str = ""


def _rests(row: SessionSummary) -> bool:
    return not row.running and not row.waiting
