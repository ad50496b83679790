"""The database that the settings name, opened by a command where no gateway runs; nothing is created by asking."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.cli.command import CommandFailed, Invocation
from gateway.cli.running_gateway import address
from shared.errors import StoreError
from shared.settings import Settings
from shared.store import open_store, sqlite_path
from shared.store.port import Store


def database_file(settings: Settings) -> Path | None:
    """Return the absolute path of the SQLite file that the settings name, None for a server's database."""
    path = sqlite_path(settings.database_url, settings.data_dir)
    return path.absolute() if path else None


def database_name(settings: Settings) -> str:
    """Return how messages call the database: its path, or the server's url without a password."""
    path = database_file(settings)
    return str(path) if path else settings.database_url.rpartition("@")[2]


def check_it_exists(settings: Settings) -> None:
    """Raise CommandFailed where there is no such file; a server tells that itself."""
    path = database_file(settings)
    if path and not path.is_file():
        setting = "DATABASE_URL" if settings.database_url else "GATEHOUSE_DATA_DIR"
        raise CommandFailed(f"there is no database {path} yet ({setting} says where it lies), and no gateway runs")


def needs_file(settings: Settings, otherwise: str) -> Path:
    """Return the SQLite file. Raises CommandFailed for a server's database, with what to do instead."""
    path = database_file(settings)
    if path is None:
        raise CommandFailed(f"the database {database_name(settings)} is a server's, and no file: {otherwise}")
    return path


@asynccontextmanager
async def opened_store(
    invocation: Invocation, *, to_write: bool = False, beside_gateway: bool = False
) -> AsyncIterator[Store]:
    """Give the store, and say which database it is once that went well.

    Unless ``to_write`` it is only read: neither created, nor brought to another schema, nor changed. Who reads
    ``beside_gateway`` did not ask for a gateway that runs, so nothing is said of one.
    Raises CommandFailed where there is none, or it cannot be used.
    """
    settings = invocation.settings
    check_it_exists(settings)
    store = open_store(
        settings.database_url,
        settings.data_dir,
        inbox_limit=settings.inbox_limit,
        clock=time.time,
        read_only=not to_write,
    )
    try:
        await store.open()
        yield store
    except StoreError as error:
        raise CommandFailed(f"{database_name(settings)} cannot be used: {error}") from None
    finally:
        await store.close()
    asked = settings.port and not beside_gateway
    where = f"no gateway runs at {address(settings)}; this is" if asked else "this is"
    invocation.terminal.note(f"{where} from the database {database_name(settings)}")
