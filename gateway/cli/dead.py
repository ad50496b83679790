"""``dead``: list, retry and purge dead letters."""

from __future__ import annotations

import argparse
import sys
from urllib.parse import urlencode

import msgspec

from gateway.cli.command import CommandFailed, Invocation, Subcommand
from gateway.cli.database import database_name, opened_store
from gateway.cli.running_gateway import RunningGateway, find_gateway, segment
from gateway.cli.sessions import positive
from gateway.cli.terminal import table
from gateway.command_acts import act_of
from gateway.dead_filter import DeadFilter, fitting
from gateway.trace_text import last_line, moment
from shared.errors import NotFound
from shared.messages import DeadKind
from shared.traces import LETTER_PURGED, LETTER_RETRIED, DeadLetter

LIST_LIMIT = 200
#: letters that are asked for at once
PAGE = 1000


async def run(invocation: Invocation) -> int:
    """List, retry or purge dead letters."""
    if invocation.arguments.action == "list":
        limit: int = invocation.arguments.limit
        letters = await dead_letters(invocation, limit + 1)
        if len(letters) > limit:
            invocation.terminal.note(f"these are the newest {limit}; there are more: --limit, --kind, --platform")
        letters = letters[:limit]
        none = "there is no dead letter" if asked_for(invocation) == DeadFilter() else "no dead letter fits"
        invocation.terminal.show({"dead": letters}, letter_lines(letters), none)
        return 0
    return await change_letters(invocation)


async def dead_letters(invocation: Invocation, limit: int) -> list[DeadLetter]:
    """Return up to so many dead letters that fit, newest first, from the gateway that runs or from its database."""
    gateway = await find_gateway(invocation.settings)
    if gateway is not None:
        return await letters_of_gateway(gateway, asked_for(invocation), limit)
    async with opened_store(invocation) as store:
        return [letter async for _, letter in fitting(store, asked_for(invocation), None, limit)]


async def letters_of_gateway(gateway: RunningGateway, wanted: DeadFilter, limit: int) -> list[DeadLetter]:
    """Return up to so many of a gateway's dead letters that fit, newest first."""
    filters = {"kind": wanted.kind.value if wanted.kind else "", "platform": wanted.platform or "", "after": ""}
    letters: list[DeadLetter] = []
    while len(letters) < limit:
        query = urlencode({"limit": PAGE} | {name: value for name, value in filters.items() if value})
        found = await gateway.get(f"/v1/dead?{query}")
        letters += msgspec.convert(found["dead"], list[DeadLetter])
        if "next" not in found:
            break
        filters["after"] = found["next"]
    return letters[:limit]


def asked_for(invocation: Invocation) -> DeadFilter:
    """Return which letters the arguments ask for."""
    kind = invocation.arguments.kind
    return DeadFilter(DeadKind(kind) if kind else None, invocation.arguments.platform or None)


def letter_lines(letters: list[DeadLetter]) -> list[str]:
    """Return a line for each dead letter."""
    return table(
        ("ID", "DEAD SINCE", "SESSION", "ATTEMPTS", "ERROR"),
        ((one.id, moment(one.dead_at), one.session, one.attempts, last_line(one.error)) for one in letters),
    )


async def change_letters(invocation: Invocation) -> int:
    """Retry or purge dead letters one by one; what fails is said, and the others are done. Return the exit status."""
    action: str = invocation.arguments.action
    state = "waiting" if action == "retry" else "purged"
    changed: list[dict[str, str]] = []
    status = 0
    gateway = await find_gateway(invocation.settings)
    ids = await chosen_ids(invocation)
    with invocation.terminal.progress(action, len(ids), "letter") as bar:
        for message_id in ids:
            try:
                await change_one(invocation, gateway, action, message_id)
                changed.append({"id": message_id, "state": state})
            except CommandFailed as error:
                invocation.terminal.note(str(error))
                status = 1
            bar.update(1)
    invocation.terminal.show({"changed": changed}, (f"{one['id']}  {one['state']}" for one in changed))
    return status


async def chosen_ids(invocation: Invocation) -> list[str]:
    """Return the ids that were given, or with ``--all`` those of every dead letter that fits. Raises CommandFailed."""
    if invocation.arguments.ids and asked_for(invocation) != DeadFilter():
        raise CommandFailed("--kind and --platform choose among all: give them with --all, or ids alone")
    if invocation.arguments.all:
        return [letter.id for letter in await dead_letters(invocation, sys.maxsize)]
    return list(invocation.arguments.ids)


async def change_one(invocation: Invocation, gateway: RunningGateway | None, action: str, message_id: str) -> None:
    """Retry or purge one dead letter. Raises CommandFailed."""
    path = f"/v1/dead/{segment(message_id)}"
    if gateway is not None:
        method, path = ("POST", f"{path}/retry") if action == "retry" else ("DELETE", path)
        await gateway.ask(method, path, f"dead letter {message_id}")
        return
    async with opened_store(invocation, to_write=True) as store:
        try:
            if action == "retry":
                await store.inbox.retry_dead(message_id)
                await store.audit.add(act_of(LETTER_RETRIED, message_id))
            else:
                await store.inbox.purge_dead(message_id)
                await store.audit.add(act_of(LETTER_PURGED, message_id))
        except NotFound:
            where = database_name(invocation.settings)
            raise CommandFailed(f"there is no dead letter {message_id} in {where}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to do, and with which."""
    actions = parser.add_subparsers(dest="action", metavar="{list,retry,purge}", title="actions")
    parser.set_defaults(action="list", all=False, ids=[], limit=LIST_LIMIT, kind="", platform="")
    letters = actions.add_parser("list", help="list them, newest first")
    letters.add_argument(
        "--limit", type=positive, default=LIST_LIMIT, metavar="N", help=f"at most so many ({LIST_LIMIT})"
    )
    add_filters(letters)
    for name, what in (("retry", "let them run again"), ("purge", "remove them for good")):
        below = actions.add_parser(name, help=what)
        which = below.add_mutually_exclusive_group(required=True)
        which.add_argument("ids", nargs="*", default=[], metavar="ID", help="the messages' ids")
        which.add_argument("--all", action="store_true", help="every dead letter, or every one that fits")
        add_filters(below)
        below.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON value")
    letters.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON value")


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add which letters are meant."""
    parser.add_argument("--kind", choices=[kind.value for kind in DeadKind], default="", help="those of one kind")
    parser.add_argument("--platform", default="", metavar="NAME", help="those of one platform")


COMMAND = Subcommand(
    name="dead",
    summary="list, retry or purge dead letters: messages that used up their attempts",
    examples=(
        "python -m gateway dead list --kind model --limit 1000",
        "python -m gateway dead retry msg_0197a3c0d1e2… msg_0197a3c0d1e3…",
        "python -m gateway dead retry --all --kind model      # after the provider is back",
        "python -m gateway dead purge msg_0197a3c0d1e2…",
    ),
    run=run,
    add_arguments=add_arguments,
)
