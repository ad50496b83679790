"""Composes the product's own gateway or worker host with a store and adapters that pass everything on, and can kill.

The product knows nothing of it: no setting and no hook inside it leads here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from msgspec import structs

from gateway.app import Gateway, store_of
from gateway.platforms.port import Adapter
from loadtests.crash.kill_switch import ARMED, KillSwitch
from loadtests.crash.notes import NOTES, Notebook
from loadtests.crash.renames import RenameWatch
from loadtests.crash.watched_store import Watch, WatchedPlatform, WatchedStore
from shared.events import Events
from shared.settings import Settings
from shared.store.port import Store
from worker.host import WorkerHost
from worker.pool import Pool

#: between two copies of the database, in seconds: their names have the second in them
BACK_UP_EVERY_S = 1.5


class Composer:
    """Builds the watched gateway or worker host, and finds the worker to kill."""

    def __init__(self, directory: Path) -> None:
        self._pool: Pool | None = None
        notebook = Notebook(directory / NOTES)
        self._watch = Watch(os.getpid(), notebook, KillSwitch(directory / ARMED, notebook, self.worker_of))
        RenameWatch(self.worker_of, os.getpid())

    def compose(self, settings: Settings) -> Gateway:
        """Return the gateway of these settings."""
        upkeep = structs.replace(settings.upkeep, backup_interval_s=BACK_UP_EVERY_S)
        gateway = Gateway(structs.replace(settings, upkeep=upkeep), self._store(settings))
        for name, adapter in list(gateway.platforms.items()):
            gateway.platforms[name] = cast("Adapter", WatchedPlatform(adapter, self._watch))
        self._pool = gateway.pool
        return gateway

    def compose_host(self, settings: Settings) -> WorkerHost:
        """Return the worker host of these settings."""
        host = WorkerHost(settings, Events(), self._store(settings))
        self._pool = host.pool
        return host

    def worker_of(self, session: str) -> int:
        """Return the process that runs a session's turn, or else the busiest one; 0 if there is none."""
        assert self._pool is not None
        turn = self._pool.running_turn(session)
        rows = [row for row in self._pool.snapshot().workers if row.pid]
        rows.sort(key=lambda row: (turn is not None and row.n == turn.worker, row.turns))
        return rows[-1].pid if rows else 0

    def _store(self, settings: Settings) -> Store:
        return cast("Store", WatchedStore(store_of(settings), self._watch))
