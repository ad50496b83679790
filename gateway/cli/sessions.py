"""``sessions``: list the sessions, latest first."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

import msgspec

from gateway.cli.command import Invocation, Subcommand
from gateway.cli.database import opened_store
from gateway.cli.running_gateway import RunningGateway, find_gateway
from gateway.cli.terminal import table
from gateway.trace_text import moment
from shared.traces import SessionPage, SessionQuery, SessionSummary

#: rows of one page
PAGE_ROWS = 200
#: entries that a list can be asked for
MOST = 1_000_000


async def run(invocation: Invocation) -> int:
    """Print the latest sessions that the filters let through."""
    found = await latest_sessions(invocation)
    invocation.terminal.show(
        {"sessions": found},
        session_lines(found),
        "no session fits" if is_filtered(invocation) else "there is no session yet",
    )
    return 0


def is_filtered(invocation: Invocation) -> bool:
    """Tell whether the arguments ask for some sessions only."""
    wanted = invocation.arguments
    return bool(wanted.words or wanted.platform or wanted.waiting)


async def latest_sessions(invocation: Invocation) -> list[SessionSummary]:
    """Return the sessions asked for, latest first; those of stateless calls are left out."""
    wanted = invocation.arguments
    query = SessionQuery(wanted.words, wanted.platform, "waiting" if wanted.waiting else "", None, 0)
    gateway = await find_gateway(invocation.settings)
    if gateway is not None:
        return await all_pages(query, wanted.limit, functools.partial(page_of_running, gateway))
    async with opened_store(invocation) as store:
        return await all_pages(query, wanted.limit, store.sessions.page)


async def all_pages(
    query: SessionQuery, limit: int, page: Callable[[SessionQuery], Awaitable[SessionPage]]
) -> list[SessionSummary]:
    """Return the rows of as many pages as there are, up to a limit."""
    rows: list[SessionSummary] = []
    after = None
    while len(rows) < limit:
        found = await page(msgspec.structs.replace(query, after=after, limit=min(PAGE_ROWS, limit - len(rows))))
        rows += found.sessions
        after = found.after
        if after is None:
            break
    return rows


async def page_of_running(gateway: RunningGateway, query: SessionQuery) -> SessionPage:
    """Return one page, from a gateway that runs."""
    given = {"q": query.words, "platform": query.platform, "state": query.state, "limit": str(query.limit)}
    if query.after is not None:
        given["after"] = f"{query.after[0]!r},{query.after[1]}"
    answer = await gateway.get(f"/v1/sessions?{urlencode(given)}")
    rows = msgspec.convert(answer["sessions"], tuple[SessionSummary, ...])
    updated_at, _, key = str(answer.get("next") or "").partition(",")
    return SessionPage(rows, (float(updated_at), key) if key else None)


def session_lines(rows: list[SessionSummary]) -> list[str]:
    """Return a line for each session."""
    return table(
        ("SESSION", "LAST USED", "STATE", "WAITING", "NAME"),
        (
            (row.key, moment(row.updated_at), "running" if row.running else "idle", row.waiting, row.title)
            for row in rows
        ),
    )


def positive(text: str) -> int:
    """Return a count of at least 1. Raises ArgumentTypeError, which argparse tells the user."""
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MOST):
        raise argparse.ArgumentTypeError(f"has to be a whole number from 1 to {MOST:,}, not {text!r}")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the filters."""
    parser.add_argument("words", nargs="?", default="", metavar="WORDS", help="what the key holds, in any case")
    parser.add_argument("--limit", type=positive, default=200, metavar="N", help="how many at most (200)")
    parser.add_argument("--platform", default="", metavar="NAME", help="those of one platform: slack, telegram, api …")
    parser.add_argument("--waiting", action="store_true", help="those with messages that wait")


COMMAND = Subcommand(
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
