"""``migrate``: moves everything to a database of another kind, or back; first while the gateway runs, then the rest."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from gateway.cli.acts import leave
from gateway.cli.command import CommandFailed, Invocation, Subcommand
from shared.errors import SettingsError, StoreOutdated, StoreUnusable
from shared.settings import read_database_url
from shared.settings_reader import SettingsReader
from shared.store import open_store, sqlite_path, transfer
from shared.store.port import Store

#: no message is accepted here, so no limit is met
NO_LIMIT = 2**31


class MoveReport(msgspec.Struct, frozen=True):
    """What was moved."""

    rows: dict[str, int]
    checksum: str
    #: whether both hold the same now; else a gateway still writes to the source
    whole: bool


async def run_migrate(invocation: Invocation) -> int:
    """Copy what differs; where no gateway runs, verify that nothing does any more and let the target go on."""
    given = invocation.arguments
    source_url, target_url = checked_url("--from", given.source), checked_url("--to", given.target)
    if source_url == target_url:
        raise CommandFailed("--from and --to are the same database")
    name = source_url.rpartition("@")[2]
    async with opened_source(source_url) as (source, in_use), opened_target(target_url) as target:
        await transfer.begin(target, name)
        total = sum((await transfer.count(source)).values())
        report = await one_pass(invocation, "copy", total, source, target)
        if in_use:
            show(invocation, MoveReport(report.rows, report.checksum, whole=False), "so far, while the gateway runs on")
            invocation.terminal.note("stop the gateway and call this again: it copies what has changed, and verifies")
            return 0
        proof = await one_pass(invocation, "verify", total, source, target)
        if proof.replaced:
            raise CommandFailed("the databases differ after the copy: something else writes to one of them")
        await transfer.finish(source, target, name)
    leave(invocation, "database_moved", f"{name} to {target_url.rpartition('@')[2]}")
    show(invocation, MoveReport(proof.rows, proof.checksum, whole=True), "moved and verified")
    invocation.terminal.note(f"start the gateway with DATABASE_URL={given.target}")
    return 0


async def one_pass(
    invocation: Invocation, what: str, total: int, source: Store, target: Store
) -> transfer.TransferReport:
    """Look at every row of both, and replace what differs."""
    with invocation.terminal.progress(what, total, "row") as bar:
        return await transfer.copy(source, target, bar.update)


def show(invocation: Invocation, moved: MoveReport, how: str) -> None:
    """Print what was moved."""
    counts = ", ".join(f"{count} {table}" for table, count in moved.rows.items() if count)
    invocation.terminal.show(moved, [f"{how}: {counts or 'nothing'}; checksum {moved.checksum[:16]}"])


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
