"""The store: everything durable, behind one port; ``open_store`` picks the engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from shared.store.port import Store
from shared.store.sqlite.engine import SqliteEngine

__all__ = ["Store", "open_store", "sqlite_path"]

SQLITE_PREFIX = "sqlite:///"


def open_store(
    database_url: str,
    data_dir: Path,
    *,
    inbox_limit: int,
    sender_share: float = 1.0,
    clock: Callable[[], float] = time.time,
    read_only: bool = False,
) -> Store:
    """Return the unopened store that a database url names: ``gatehouse.db`` in the data directory if it is empty.

    ``sqlite:///file.db`` is a path from the working directory, ``sqlite:////srv/file.db`` an absolute one. With
    ``read_only`` opening it creates, migrates and changes nothing, and it may be in use by a gateway.
    """
    path = sqlite_path(database_url, data_dir)
    engine = SqliteEngine(path, clock, private_dir=not database_url, read_only=read_only)
    return Store(engine, inbox_limit, sender_share)


def sqlite_path(database_url: str, data_dir: Path) -> Path:
    """Return the SQLite file that a database url names."""
    return Path(database_url.removeprefix(SQLITE_PREFIX)) if database_url else data_dir / "gatehouse.db"
