"""The store: everything durable, behind one port; ``open_store`` picks the engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from shared.store.port import Store
from shared.store.sqlite.engine import SqliteStore

__all__ = ["Store", "open_store"]

SQLITE_PREFIX = "sqlite:///"


def open_store(database_url: str, data_dir: Path, *, inbox_limit: int, clock: Callable[[], float] = time.time) -> Store:
    """Return the unopened store that a database url names: ``gatehouse.db`` in the data directory if it is empty.

    ``sqlite:///file.db`` is a path from the working directory, ``sqlite:////srv/file.db`` an absolute one.
    """
    if not database_url:
        return SqliteStore(data_dir / "gatehouse.db", inbox_limit, clock, private_dir=True)
    return SqliteStore(Path(database_url.removeprefix(SQLITE_PREFIX)), inbox_limit, clock)
