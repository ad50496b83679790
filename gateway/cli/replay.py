"""``replay``: run a recorded session again in the code of today."""

from __future__ import annotations

import argparse
import asyncio
import subprocess

import msgspec

from gateway.cli.command import Invocation, Subcommand
from gateway.cli.session_export import SessionRecord, read_session
from gateway.own_module import own_module_command


async def run(invocation: Invocation) -> int:
    """Print where a session run again differs; the exit status is 1 where it does."""
    record = await read_session(invocation, invocation.arguments.session)
    return await asyncio.to_thread(replay, record)


def replay(record: SessionRecord) -> int:
    """Run a session again in a process of its own, which prints where it differs; return its exit status."""
    recording = msgspec.json.encode({"session": record.key, "messages": record.messages, "todos": record.todos})
    command = own_module_command("worker.replay")
    return subprocess.run(command, input=recording, check=False).returncode  # noqa: S603 - our own module


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the session's key."""
    parser.add_argument("session", metavar="SESSION", help="the key that `sessions` shows")


COMMAND = Subcommand(
    name="replay",
    summary="run a recorded session again and print where the code of today does otherwise",
    examples=("python -m gateway replay slack:T1:C2",),
    run=run,
    add_arguments=add_arguments,
    prints=False,
)
