"""``key``: make, list and revoke the keys of the API and the console."""

from __future__ import annotations

import argparse

import msgspec

from gateway.cli.acts import keep_act
from gateway.cli.command import CommandFailed, Invocation, Subcommand
from gateway.cli.terminal import table
from gateway.keys import KEY_ADDED, Keys
from gateway.trace_text import moment
from shared.api_keys import Role, entry_of

SHOWN_ONCE = "this is the only time the key is shown: the gateway keeps its hash"
WHERE = "GATEHOUSE_DATA_DIR says where the keys lie"


async def run(invocation: Invocation) -> int:
    """Make, list or revoke. Raises KeyRefused and CommandFailed."""
    keys, terminal, given = Keys(invocation.settings), invocation.terminal, invocation.arguments
    try:
        match given.action:
            case "add":
                key, secret = keys.add(given.name, Role(given.role))
                await keep_act(invocation, KEY_ADDED, f"{key.name} {key.role}")
                entry = entry_of(key)
                terminal.show({"name": key.name, "role": key.role, "key": secret, "entry": entry}, [secret])
                terminal.note(f"{SHOWN_ONCE}; on other hosts, add to GATEHOUSE_API_KEYS: {entry}")
            case "revoke":
                keys.revoke(given.name)
                await keep_act(invocation, "key_revoked", given.name)
                terminal.show({"name": given.name, "revoked": True}, [f"{given.name}  revoked"])
            case _:
                show(invocation, keys)
    except OSError as error:
        raise CommandFailed(f"the keys cannot be kept: {error} ({WHERE})") from None
    return 0


def show(invocation: Invocation, keys: Keys) -> None:
    """Print every key."""
    rows = [(key, "GATEHOUSE_API_KEYS" if key in keys.listed else "keys.json") for key in keys.all()]
    invocation.terminal.show(
        {"keys": [msgspec.structs.asdict(key) | {"where": where} for key, where in rows]},
        table(
            ("NAME", "ROLE", "MADE", "WHERE"),
            ((key.name, key.role, moment(key.created_at) if key.created_at else "-", where) for key, where in rows),
        ),
        "there is no key: `key add NAME` makes one",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to do, and with which key."""
    actions = parser.add_subparsers(dest="action", metavar="{list,add,revoke}", title="actions")
    parser.set_defaults(action="list")
    listing = actions.add_parser("list", help="list the keys")
    add = actions.add_parser("add", help="make a key and show it once")
    add.add_argument("name", metavar="NAME", help="who holds it; budgets and metrics count by it")
    add.add_argument(
        "--role",
        choices=[role.value for role in Role],
        default=Role.CHAT.value,
        help="chat: call the models alone (default); read: look at everything; admin: everything",
    )
    revoke = actions.add_parser("revoke", help="refuse a key from its next request on")
    revoke.add_argument("name", metavar="NAME", help="the key's name")
    for below in (listing, add, revoke):
        below.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON value")


COMMAND = Subcommand(
    name="key",
    summary="add, list or revoke a key of the API and the console",
    examples=(
        "python -m gateway key add ana --role chat      # a person or program that calls the models",
        "python -m gateway key add grafana --role read  # looks at everything, changes nothing",
        "python -m gateway key revoke ana               # also while the gateway runs",
    ),
    run=run,
    add_arguments=add_arguments,
)
