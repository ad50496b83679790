"""``check``: would the gateway start? What the start refuses, this refuses too, in the same words."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.cli.command import CommandFailed, Invocation, Subcommand, denied
from gateway.cli.database import database_file, database_name
from gateway.cli.finding import Finding
from gateway.cli.running_gateway import RunningGateway, find_gateway
from gateway.start_report import hints
from gateway.tool_check import check_tool_modules
from shared.errors import GatehouseError, SettingsError, StoreError
from shared.store import open_store
from worker.pool.worker_config import worker_config

#: less free disk than this, in bytes, is said
DISK_LOW_BYTES = 512 * 2**20


async def run(invocation: Invocation) -> int:
    """Check one part after the other, all of them even if one is wrong; the exit status is 1 if any is."""
    return await check_everything(invocation, live=invocation.arguments.live)


async def check_everything(invocation: Invocation, *, live: bool) -> int:
    """Check, and with ``live`` also try what has to be reached; print it and return the exit status."""
    gateway = await find_gateway(invocation.settings)
    for hint in hints(invocation.settings):
        invocation.terminal.note(f"warning: {hint}")
    findings = [Finding("settings", ok=True)]
    for part, look in PARTS:
        try:
            findings.append(Finding(part, True, await look(invocation, gateway)))
        except SettingsError as error:
            findings.append(Finding(part, False, str(error)))
        except PermissionError as error:
            findings.append(Finding(part, False, denied(error)))
        except (CommandFailed, GatehouseError, OSError) as error:
            findings.append(Finding(part, False, " ".join(str(error).split())))
    if live:
        from gateway.cli.live_parts import live_findings  # with the platforms it takes longer than the rest

        findings += await live_findings(invocation.settings)
    ok = all(finding.ok for finding in findings)
    shown = (f"{finding.part}: {finding.text}" for finding in findings if finding.ok)
    invocation.terminal.show({"ok": ok, "findings": findings}, shown)
    for finding in findings:
        if not finding.ok:
            invocation.terminal.note(f"{finding.part}: {finding.text}")
    return 0 if ok else 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add whether to try what has to be reached."""
    parser.add_argument("--live", action="store_true", help="also try models, MCP servers, platforms and the way in")


async def look_at_tools(invocation: Invocation, _: RunningGateway | None) -> str:
    """Load the modules of GATEHOUSE_TOOLS as a worker does. Raises SettingsError."""
    settings = invocation.settings
    for warning in check_tool_modules(settings.tool_modules, fetch_allow=settings.fetch_allow):
        invocation.terminal.note(f"warning: {warning}")
    return ", ".join(settings.tool_modules) or "none"


async def look_at_mcp(invocation: Invocation, _: RunningGateway | None) -> str:
    """Look for the programs of the MCP servers. Raises SettingsError."""
    servers = worker_config(invocation.settings).mcp_servers
    for server in servers:
        check_program(server.name, server.command, server.cwd, server.env.get("PATH"))
    return ", ".join(server.name for server in servers) or "none"


def check_program(name: str, command: str, directory: str, search_path: str | None) -> None:
    """Raise SettingsError unless an MCP server's program can be found; one with a url has none."""
    setting = "GATEHOUSE_MCP_CONFIG"
    if directory and not Path(directory).is_dir():
        raise SettingsError(setting, f"server {name!r}: there is no directory {directory!r}")
    is_path = "/" in command
    there = (Path(directory or ".") / command).is_file() if is_path else shutil.which(command, path=search_path)
    if command and not there:
        raise SettingsError(setting, f"server {name!r}: there is no program {command!r}")


async def look_at_database(invocation: Invocation, gateway: RunningGateway | None) -> str:
    """Read the database from end to end. Raises CommandFailed and StoreError; creates and migrates nothing."""
    settings = invocation.settings
    path = database_file(settings)
    if path and not path.exists():
        check_can_be_made(path)
        return f"there is none yet; the start makes {path}"
    if gateway is not None:
        return f"in use by the gateway that runs now at {gateway.url}"
    for read_only in (True, False):  # what cannot be read is not touched by a write
        store = open_store(
            settings.database_url, settings.data_dir, inbox_limit=settings.inbox_limit, read_only=read_only
        )
        try:
            await store.open()
            await (store.verify() if read_only else store.check())
        except StoreError as error:
            raise CommandFailed(f"the message store cannot be used: {error}") from None
        finally:
            await store.close()
    return f"ok ({database_name(settings)})"


def check_can_be_made(path: Path) -> None:
    """Raise CommandFailed unless a file can be made there, with the directories above it."""
    there = next(parent for parent in path.parents if parent.exists())
    if not there.is_dir() or not _writable(there):
        raise CommandFailed(f"{path} cannot be opened for writing: {there} is no directory that can be written")


def _writable(directory: Path) -> bool:
    # a file system without any room, such as /proc, says yes to root and takes no file
    return os.access(directory, os.W_OK | os.X_OK) and shutil.disk_usage(directory).total > 0


async def look_at_disk(invocation: Invocation, _: RunningGateway | None) -> str:
    """Look how much room there is. Raises CommandFailed where it is too little to work."""
    settings = invocation.settings
    path = (database_file(settings) or settings.data_dir).absolute()
    there = next(parent for parent in path.parents if parent.exists())
    total, _used, free = shutil.disk_usage(there)
    if total == 0:
        return f"{there} is no disk"  # that nothing can be written there is said of the database
    if free < DISK_LOW_BYTES:
        raise CommandFailed(f"only {free // 2**20} MiB are free in {there}")
    return f"{free // 2**20} MiB free in {there}"


Look = Callable[[Invocation, RunningGateway | None], Awaitable[str]]
#: what is looked at beside the settings, in order
PARTS: tuple[tuple[str, Look], ...] = (
    ("tools", look_at_tools),
    ("mcp servers", look_at_mcp),
    ("database", look_at_database),
    ("disk", look_at_disk),
)

COMMAND = Subcommand(
    name="check",
    summary="verify what a start needs: settings, tools, MCP programs, the database and the disk",
    examples=(
        "python -m gateway check",
        "python -m gateway check && systemctl restart gatehouse",
        "python -m gateway check --live      # as `doctor`: an unreachable provider fails it, too",
    ),
    run=run,
    add_arguments=add_arguments,
)
