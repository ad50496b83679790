"""``sessions``: list the sessions, latest first."""

from __future__ import annotations

import argparse

import msgspec

from gateway.cli.command import Command, Invocation
from gateway.cli.database import opened_store
from gateway.cli.running_gateway import find_gateway
from gateway.cli.terminal import table
from gateway.trace_text import moment
from shared.messages import is_stateless
from shared.traces import SessionSummary


async def run(invocation: Invocation) -> int:
    """Print the latest sessions that the filters let through."""
    wanted = invocation.arguments
    found = [
        row
        for row in await latest_sessions(invocation)
        if (not wanted.platform or row.platform == wanted.platform) and (not wanted.waiting or row.waiting)
    ]
    invocation.terminal.show({"sessions": found}, session_lines(found))
    return 0


async def latest_sessions(invocation: Invocation) -> list[SessionSummary]:
    """Return the latest sessions but those of stateless calls."""
    limit: int = invocation.arguments.limit
    gateway = await find_gateway(invocation.settings)
    if gateway is not None:
        rows = (await gateway.get(f"/v1/sessions?limit={limit}"))["sessions"]
        return msgspec.convert(rows, list[SessionSummary])[:limit]
    async with opened_store(invocation) as store:
        return [row for row in await store.sessions.latest(limit) if not is_stateless(row.key)]


def session_lines(rows: list[SessionSummary]) -> list[str]:
    """Return a line for each session."""
    return table(
        ("SESSION", "LAST USED", "STATE", "WAITING"),
        ((row.key, moment(row.updated_at), "running" if row.running else "idle", row.waiting) for row in rows),
    )


def positive(text: str) -> int:
    """Return a count of at least 1. Raises ValueError, which argparse tells the user."""
    if not 1 <= (count := int(text)) <= 1_000_000:
        raise ValueError(text)
    return count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the filters."""
    parser.add_argument("--limit", type=positive, default=200, metavar="N", help="how many at most (200)")
    parser.add_argument("--platform", default="", metavar="NAME", help="those of one platform: slack, telegram, api …")
    parser.add_argument("--waiting", action="store_true", help="those with messages that wait")


COMMAND = Command(
    name="sessions",
    summary="list the sessions, latest first",
    examples=(
        "python -m gateway sessions --limit 20",
        "python -m gateway sessions --platform slack --waiting",
        "python -m gateway sessions --json | jq -r '.sessions[].key'",
    ),
    run=run,
    add_arguments=add_arguments,
)
