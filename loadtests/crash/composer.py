"""Composes the product's own gateway with a store and adapters that pass everything on, and can kill.

The product knows nothing of it: no setting and no hook inside it leads here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from gateway.app import Gateway, store_of
from gateway.platforms.port import Adapter
from loadtests.crash.kill_switch import ARMED, KillSwitch
from loadtests.crash.notes import NOTES, Notebook
from loadtests.crash.watched_store import Watch, WatchedPlatform, WatchedStore
from shared.settings import Settings
from shared.store.port import Store


class Composer:
    """Builds the watched gateway, and finds the worker to kill."""

    def __init__(self, directory: Path) -> None:
        self._gateway: Gateway | None = None
        notebook = Notebook(directory / NOTES)
        self._watch = Watch(os.getpid(), notebook, KillSwitch(directory / ARMED, notebook, self.worker_of))

    def compose(self, settings: Settings) -> Gateway:
        """Return the gateway of these settings."""
        store = WatchedStore(store_of(settings), self._watch)
        self._gateway = gateway = Gateway(settings, cast("Store", store))
        for name, adapter in list(gateway.platforms.items()):
            gateway.platforms[name] = cast("Adapter", WatchedPlatform(adapter, self._watch))
        return gateway

    def worker_of(self, session: str) -> int:
        """Return the process that runs a session's turn, or else the busiest one; 0 if there is none."""
        assert self._gateway is not None
        pool = self._gateway.pool
        turn = pool.running_turn(session)
        rows = [row for row in pool.snapshot().workers if row.pid]
        rows.sort(key=lambda row: (turn is not None and row.n == turn.worker, row.turns))
        return rows[-1].pid if rows else 0
