"""``salvage``: read what can be read of a damaged database into a new one."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from gateway.cli.acts import leave
from gateway.cli.command import Invocation, Subcommand
from gateway.cli.database import check_it_exists, needs_file
from gateway.cli.terminal import PageProgress
from shared.store.sqlite.salvage import salvage
from shared.store.sqlite.salvage.report import lines_of


async def run(invocation: Invocation) -> int:
    """Write the new database and print what is in it and what is lost."""
    source: Path | None = invocation.arguments.source
    if source is None:
        source = needs_file(invocation.settings, "its server has tools of its own to recover it")
        check_it_exists(invocation.settings)
    target: Path = invocation.arguments.target or source.with_name(f"{source.name}.salvaged")
    with PageProgress(invocation.terminal, "salvage") as progress:
        report = await asyncio.to_thread(salvage, source, target, progress, replace=invocation.arguments.replace)
    leave(invocation, "database_salvaged", f"{source} into {target}")
    invocation.terminal.show(report, lines_of(report))
    invocation.terminal.note(f"to go on with it: python -m gateway restore {target}   ({source} is kept then, too)")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where from, and where to."""
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="the damaged one (the gateway's own)")
    parser.add_argument("--to", dest="target", type=Path, metavar="FILE", help="the new one (FILE.salvaged)")
    parser.add_argument("--replace", action="store_true", help="replace the new one if it exists")


COMMAND = Subcommand(
    name="salvage",
    summary="read what can be read of a damaged database into a new one, and name what is lost",
    examples=(
        "python -m gateway salvage               # the gateway's database, which has to be stopped",
        "python -m gateway salvage --from gatehouse.db.replaced-20270101-120000 --to salvaged.db",
        "python -m gateway restore data/gatehouse.db.salvaged     # and put it in place",
    ),
    run=run,
    add_arguments=add_arguments,
)
