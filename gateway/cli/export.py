"""``export``: write a session as one JSON document."""

from __future__ import annotations

import argparse
import asyncio

from gateway.cli.command import Invocation, Subcommand
from gateway.cli.session_export import document, read_session


async def run(invocation: Invocation) -> int:
    """Print the document of a session; secrets in it are ``***``."""
    record = await read_session(invocation, invocation.arguments.session)
    invocation.terminal.write_json(await asyncio.to_thread(document, invocation, record))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the session's key."""
    parser.add_argument("session", metavar="SESSION", help="the key that `sessions` shows")


COMMAND = Subcommand(
    name="export",
    summary="write a session as one JSON document, without secrets",
    examples=("python -m gateway export slack:T1:C2 > session.json",),
    run=run,
    add_arguments=add_arguments,
)
