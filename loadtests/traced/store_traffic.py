"""``python -m loadtests.traced.store_traffic``: the gateway, counting what its SQLite store is asked to do.

SIGUSR2 writes the counts so far into the folder it was started in.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import apsw

from gateway.app import Gateway
from gateway.server import serve
from shared.events import LogWriter
from shared.settings import load_settings, scrub_environment
from shared.store import sqlite_path
from shared.store.port import Store
from shared.store.sqlite.database import SqliteDatabase
from shared.store.sqlite.engine import SqliteEngine

NAME = "store-traffic.json"


class CountedEngine(SqliteEngine):
    """SQLite's engine, whose jobs, statements and commits are counted."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, time.time, private_dir=True)
        self.jobs = 0
        self.statements = 0

    async def run(self, session: str, job: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Count a job and run it."""
        self.jobs += 1
        return await super().run(session, job, *args, **kwargs)

    async def run_relaxed(self, session: str, job: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Count a job and run it."""
        self.jobs += 1
        return await super().run_relaxed(session, job, *args, **kwargs)

    def write(self, _signum: int, _frame: FrameType | None) -> None:
        """Write the counts so far."""
        counts = {
            "jobs": self.jobs,
            "statements": self.statements,
            "commits": self.writer.commits,
            "synced": self.writer.synced_commits,
        }
        unready = Path(f"{NAME}.part")
        unready.write_text(json.dumps(counts))
        unready.replace(NAME)

    def _connect(self) -> SqliteDatabase:
        database = super()._connect()
        database.db.trace_v2(apsw.SQLITE_TRACE_STMT, self._count_statement)
        return database

    def _count_statement(self, _event: dict[str, Any]) -> None:
        self.statements += 1


def main() -> int:
    """Run the gateway until a signal ends it."""
    settings = load_settings()
    scrub_environment()
    path = sqlite_path(settings.database_url, settings.data_dir)
    if path is None:
        print("only SQLite's traffic is counted here", file=sys.stderr)
        return 2
    engine = CountedEngine(path)
    signal.signal(signal.SIGUSR2, engine.write)
    log = LogWriter(settings.secrets())
    log.start()
    try:
        serve(settings, log, lambda _: Gateway(settings, Store(engine, settings.inbox_limit, settings.sender_share)))
    finally:
        log.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
