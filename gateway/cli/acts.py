"""What a command leaves in the audit trail: at once where no gateway runs, else by the gateway's hand."""

from __future__ import annotations

import contextlib

from gateway.cli.command import CommandFailed, Invocation
from gateway.cli.database import database_file
from gateway.cli.running_gateway import find_gateway
from gateway.command_acts import CommandActs, leave_act
from shared.errors import StoreError
from shared.store import open_store


async def keep_act(invocation: Invocation, action: str, target: str) -> None:
    """Leave an act for the audit trail; what was done is not undone because no file can be written."""
    leave(invocation, action, target)
    with contextlib.suppress(CommandFailed, StoreError, OSError):  # the gateway takes it at its next start
        if await find_gateway(invocation.settings) is None:
            await _take(invocation)


def leave(invocation: Invocation, action: str, target: str) -> None:
    """Leave an act for the next start of a gateway, or for the one that runs."""
    try:
        leave_act(invocation.settings.data_dir, action, target)
    except OSError as error:
        invocation.terminal.note(f"the audit trail has no row of this: {error.strerror} (GATEHOUSE_DATA_DIR)")


async def _take(invocation: Invocation) -> None:
    """Make a row of it in a database that is there; none is made or brought forward for it. Raises StoreError."""
    settings = invocation.settings
    path = database_file(settings)
    if path and not path.exists():
        return
    for read_only in (True, False):
        store = open_store(
            settings.database_url, settings.data_dir, inbox_limit=settings.inbox_limit, read_only=read_only
        )
        try:
            await store.open()
            if not read_only:
                await CommandActs(settings.data_dir).take(store)
        finally:
            await store.close()
