"""``migrate``: moves everything to a database of another kind, or back; first while the gateway runs, then the rest."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from gateway.cli.acts import leave
from gateway.cli.command import CommandFailed, Invocation, Subcommand
from shared.errors import SettingsError, StoreOutdated, StoreUnusable
from shared.settings import read_database_url
from shared.settings_reader import SettingsReader
from shared.store import is_locked, open_store, sqlite_path, transfer
from shared.store.port import Store

#: no message is accepted here, so no limit is met
NO_LIMIT = 2**31
#: how long a move that follows a gateway waits between two looks
FOLLOW_S = 0.1


class MoveReport(msgspec.Struct, frozen=True):
    """What was moved."""

    rows: dict[str, int]
    checksum: str
    #: whether both hold the same for good; else a gateway still writes to the source
    whole: bool


async def run_migrate(invocation: Invocation) -> int:
    """Copy and verify while a gateway runs, then what it has changed since; where none runs, let the target go on."""
    given = invocation.arguments
    source_url, target_url = checked_url("--from", given.source), checked_url("--to", given.target)
    if source_url == target_url:
        raise CommandFailed("--from and --to are the same database")
    name = source_url.rpartition("@")[2]
    if given.cancel:
        return await cancel(invocation, source_url, name)
    while not (await move(invocation, source_url, target_url, name)):
        if not given.follow:
            invocation.terminal.note("stop the gateway and call this again: it copies what has changed, and verifies")
            return 0
    leave(invocation, "database_moved", f"{name} to {target_url.rpartition('@')[2]}")
    invocation.terminal.note(f"start the gateway with DATABASE_URL={given.target}")
    return 0


async def move(invocation: Invocation, source_url: str, target_url: str, name: str) -> bool:
    """Take over all that there is now; True where no gateway runs, and both hold the same for good."""
    async with opened_source(source_url) as (source, in_use), opened_target(target_url) as target:
        moving = await transfer.Transfer.begun(source, target, name)
        if not moving.is_verified:
            total = sum((await transfer.count(source)).values())
            with invocation.terminal.progress("copy", total, "row") as bar:
                await moving.copy(bar.update)
            await moving.catch_up()
            with invocation.terminal.progress("verify", total, "row") as bar:
                await moving.verify(bar.update)
        if in_use:
            await moving.catch_up_nearly()
            show(invocation, moving.report, "so far, while the gateway runs on", whole=False)
            if invocation.arguments.follow:
                await follow(invocation, source_url, source, moving)
            return False
        await moving.finish()
        show(invocation, moving.report, "moved and verified", whole=True)
    return True


async def follow(invocation: Invocation, source_url: str, source: Store, moving: transfer.Transfer) -> None:
    """Take over what changes until no gateway runs any more."""
    invocation.terminal.note("following: stop the gateway, and the rest is taken over at once")
    path = sqlite_path(source_url, Path())
    while is_locked(path) if path is not None else await source.hosts.live():
        await moving.catch_up()
        await asyncio.sleep(FOLLOW_S)


async def cancel(invocation: Invocation, source_url: str, name: str) -> int:
    """Give a move up: the source logs its changes no more."""
    async with opened_source(source_url) as (source, _):
        await source.engine.end_change_log()
    invocation.terminal.note(f"{name} logs its changes no more; the database that was to be moved to can be dropped")
    return 0


def show(invocation: Invocation, report: transfer.TransferReport, how: str, *, whole: bool) -> None:
    """Print what was moved."""
    counts = ", ".join(f"{count} {table}" for table, count in report.rows.items() if count)
    moved = MoveReport(report.rows, report.checksum, whole)
    invocation.terminal.show(moved, [f"{how}: {counts or 'nothing'}; checksum {report.checksum[:16]}"])


def checked_url(option: str, url: str) -> str:
    """Return a url that names a database. Raises CommandFailed."""
    try:
        return read_database_url(SettingsReader({"DATABASE_URL": url}))
    except SettingsError as error:
        raise CommandFailed(str(error).replace("DATABASE_URL", option)) from None


@contextlib.asynccontextmanager
async def opened_source(url: str) -> AsyncIterator[tuple[Store, bool]]:
    """Give the source, and whether a gateway has it open: then it is only read."""
    path = sqlite_path(url, Path())
    if path is not None and not path.exists():
        raise CommandFailed(f"--from: there is no database {path}")
    # a server's database is no process's own: hosts of an older release may be at work there
    store = open_store(url, Path(), inbox_limit=NO_LIMIT, read_only=path is None)
    try:
        await store.open()
        in_use = bool(await store.hosts.live())
    except StoreUnusable as error:
        if "in use" not in str(error):
            raise
        store, in_use = open_store(url, Path(), inbox_limit=NO_LIMIT, read_only=True), True
        await store.open()
    try:
        yield store, in_use
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def opened_target(url: str) -> AsyncIterator[Store]:
    """Give the target, which nobody else may have open. An older one is left as it is."""
    looked_at = open_store(url, Path(), inbox_limit=NO_LIMIT, read_only=True)
    with contextlib.suppress(StoreUnusable):  # what else it is is told below
        try:
            await looked_at.engine.open()
        except StoreOutdated as error:
            raise CommandFailed(f"--to: {error}") from None
        finally:
            await looked_at.close()
    store = open_store(url, Path(), inbox_limit=NO_LIMIT)
    await store.engine.open()
    try:
        if await store.hosts.live():
            raise CommandFailed("--to: a gateway runs on this database")
        yield store
    finally:
        await store.close()


def add_migrate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two databases."""
    parser.add_argument("--from", dest="source", required=True, metavar="URL", help="the database that is there")
    parser.add_argument("--to", dest="target", required=True, metavar="URL", help="an empty one, or one begun before")
    parser.add_argument("--follow", action="store_true", help="go on until the gateway is stopped, then finish at once")
    parser.add_argument("--cancel", action="store_true", help="give the move up: log no more what changes in --from")


MIGRATE = Subcommand(
    name="migrate",
    summary="move everything to another database, SQLite or PostgreSQL, and verify it",
    examples=(
        "python -m gateway migrate --from sqlite:///data/gatehouse.db --to postgresql://me@server/gatehouse",
        "python -m gateway migrate --from postgresql://me@server/gatehouse --to sqlite:///data/gatehouse.db",
    ),
    run=run_migrate,
    add_arguments=add_migrate_arguments,
)
