"""``backup`` and ``restore``: a verified copy of the database while the gateway runs, and back into its place."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import msgspec

from gateway.cli.acts import keep_act
from gateway.cli.command import CommandFailed, Invocation, Subcommand
from gateway.cli.database import check_it_exists, database_name, needs_file
from gateway.cli.terminal import PageProgress
from shared.store.sqlite.backup import back_up
from shared.store.sqlite.backup import restore as put_back

MIB = 2**20


async def run_backup(invocation: Invocation) -> int:
    """Copy the database and print what the copy holds."""
    source = needs_file(invocation.settings, "pg_dump --format=custom makes a backup of it")
    check_it_exists(invocation.settings)
    target: Path = invocation.arguments.file
    if not target.parent.is_dir():
        raise CommandFailed(f"there is no directory {target.parent}")
    with PageProgress(invocation.terminal, "backup") as progress:
        report = await asyncio.to_thread(back_up, source, target, progress, replace=invocation.arguments.replace)
    size = f"{report.size_bytes / MIB:.1f} MiB"
    held = f"{report.sessions} sessions, {report.messages} messages"
    invocation.terminal.show(report, [f"{report.path}: {size}, verified; {held}, from {source}"])
    return 0


async def run_restore(invocation: Invocation) -> int:
    """Put a backup in the database's place and print what became of the one that was there."""
    settings = invocation.settings
    database = needs_file(settings, "pg_restore puts a backup of it back")
    with PageProgress(invocation.terminal, "restore") as progress:
        report = await asyncio.to_thread(put_back, invocation.arguments.file, database, progress)
    restored = report.restored
    await keep_act(invocation, "database_restored", f"from {invocation.arguments.file}")
    lines = [f"{database_name(settings)}: restored; {restored.sessions} sessions, {restored.messages} messages"]
    if report.kept:
        lines.append(f"what was there is kept as {report.kept}")
    if report.only_in_kept is None:
        lines.append(
            "it cannot be read, so nobody knows which messages it alone has: `salvage --from` reads what can be"
        )
    elif report.only_in_kept:
        lines.append(f"{len(report.only_in_kept)} messages are in that one alone:")
        lines += [f"  {message_id}" for message_id in report.only_in_kept]
    invocation.terminal.show(msgspec.structs.asdict(report), lines)
    return 0


def add_backup_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the copy goes."""
    parser.add_argument("file", type=Path, metavar="FILE", help="where the copy goes; it appears when it is whole")
    parser.add_argument("--replace", action="store_true", help="replace FILE if it exists")


def add_restore_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the copy is."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a file that `backup` or `salvage` has written")


BACKUP = Subcommand(
    name="backup",
    summary="copy the database into a file, verified, while the gateway runs",
    examples=(
        "python -m gateway backup /srv/backup/gatehouse.db",
        "python -m gateway backup --replace /srv/backup/latest.db",
        "GATEHOUSE_BACKUP_DIR=/srv/backup python -m gateway   # the gateway makes them itself, once a day",
    ),
    run=run_backup,
    add_arguments=add_backup_arguments,
)
RESTORE = Subcommand(
    name="restore",
    summary="put a backup in the database's place, with the gateway stopped; what was there is kept",
    examples=("python -m gateway restore /srv/backup/gatehouse.db",),
    run=run_restore,
    add_arguments=add_restore_arguments,
)
