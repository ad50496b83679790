"""``trace``: tell where one message is."""

from __future__ import annotations

import argparse

import msgspec

from gateway.cli.command import CommandFailed, Invocation, Subcommand
from gateway.cli.database import database_name, opened_store
from gateway.cli.running_gateway import find_gateway, segment
from gateway.trace_text import trace_lines
from shared.errors import NotFound
from shared.traces import MessageTrace
from shared.usage import usage_entry


async def run(invocation: Invocation) -> int:
    """Print every stage of one message."""
    message_id: str = invocation.arguments.id
    found = await read_trace(invocation, message_id)
    entry = msgspec.structs.asdict(found) | {"usage": usage_entry(found.usage)}
    invocation.terminal.show(entry, trace_lines(found))
    return 0


async def read_trace(invocation: Invocation, message_id: str) -> MessageTrace:
    """Return every stage of one message. Raises CommandFailed where there is none."""
    gateway = await find_gateway(invocation.settings)
    if gateway is not None:
        answer = await gateway.ask("GET", f"/v1/messages/{segment(message_id)}", f"message {message_id}")
        try:
            return msgspec.json.decode(answer, type=MessageTrace)
        except msgspec.DecodeError as error:
            raise CommandFailed(f"the gateway at {gateway.url} is of another release: {error}") from None
    async with opened_store(invocation) as store:
        try:
            return await store.inbox.trace(message_id)
        except NotFound:
            where = database_name(invocation.settings)
            raise CommandFailed(f"there is no message {message_id} in {where}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the message's id."""
    parser.add_argument("id", metavar="ID", help="the id that the webhook's answer and the log name: msg_…")


COMMAND = Subcommand(
    name="trace",
    summary="tell where one message is: every stage with its time",
    examples=(
        "python -m gateway trace msg_0197a3c0d1e2…",
        "python -m gateway trace --json msg_0197a3c0d1e2… | jq .state",
    ),
    run=run,
    add_arguments=add_arguments,
)
