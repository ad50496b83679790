"""The store: everything durable, behind one port; ``open_store`` picks the engine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from shared.errors import SettingsError
from shared.store.engine import Engine
from shared.store.port import Store
from shared.store.sqlite.engine import SqliteEngine, is_locked

__all__ = ["Store", "is_locked", "open_store", "sqlite_path"]

SQLITE_PREFIX = "sqlite:///"


def open_store(
    database_url: str,
    data_dir: Path,
    *,
    inbox_limit: int,
    sender_share: float = 1.0,
    clock: Callable[[], float] = time.time,
    direct_url: str = "",
    read_only: bool = False,
) -> Store:
    """Return the unopened store that a database url names: ``gatehouse.db`` in the data directory if it is empty.

    ``sqlite:///file.db`` is a path from the working directory, ``sqlite:////srv/file.db`` an absolute one, and
    ``postgresql://`` or ``postgres://`` a server's database, whose own clock is taken where ``clock`` is the machine's;
    ``direct_url`` leads past a pooler that shares sessions by transaction, for signals between hosts. With
    ``read_only`` opening it creates, migrates and changes nothing, and it may be in use by a gateway.
    Raises SettingsError for a url that cannot be one.
    """
    path = sqlite_path(database_url, data_dir)
    if path is None:
        engine: Engine = _postgres(
            database_url, None if clock is time.time else clock, direct_url=direct_url, read_only=read_only
        )
    else:
        engine = SqliteEngine(path, clock, private_dir=not database_url, read_only=read_only)
    return Store(engine, inbox_limit, sender_share)


def sqlite_path(database_url: str, data_dir: Path) -> Path | None:
    """Return the SQLite file that a database url names, None for a server's database."""
    if not database_url:
        return data_dir / "gatehouse.db"
    return Path(database_url.removeprefix(SQLITE_PREFIX)) if database_url.startswith(SQLITE_PREFIX) else None


def _postgres(url: str, clock: Callable[[], float] | None, *, direct_url: str, read_only: bool) -> Engine:
    """Return the engine of a server, whose driver is an extra."""
    try:
        from shared.store.postgres.engine import PostgresEngine
    except ImportError as error:
        raise SettingsError(
            "DATABASE_URL",
            f"PostgreSQL needs {error.name}: `{sys.executable} -m pip install '.[postgres]'` in Gatehouse's directory",
        ) from None
    try:
        return PostgresEngine(url, clock, direct_url=direct_url, read_only=read_only)
    except ValueError as error:
        raise SettingsError("DATABASE_URL", str(error)) from None
