"""``pair``: list, approve and revoke who may talk on platforms that are open to strangers."""

from __future__ import annotations

import argparse

from gateway.cli.command import CommandFailed, Invocation, Subcommand
from gateway.cli.running_gateway import RunningGateway, find_gateway, segment
from gateway.cli.terminal import table

ACTIONS = ("list", "approve", "revoke")


async def run(invocation: Invocation) -> int:
    """List pairings, approve a code or revoke an approval, at the gateway that runs: it tells the sender."""
    gateway = await find_gateway(invocation.settings)
    if gateway is None:
        raise CommandFailed("no gateway runs where the settings say; start it: it tells the sender and answers")
    action, name = invocation.arguments.action, invocation.arguments.name
    if action == "list":
        return await show(invocation, gateway)
    if not name:
        raise CommandFailed(f"pair {action} needs {'a pairing code' if action == 'approve' else 'platform:user'}")
    what = "pairing code that waits" if action == "approve" else "approval of this sender"
    await gateway.ask("POST", f"/v1/pairings/{segment(name)}/{action}", what)
    done = "approved" if action == "approve" else "revoked"
    invocation.terminal.show({"name": name, "state": done}, [f"{name} {done}"])
    return 0


async def show(invocation: Invocation, gateway: RunningGateway) -> int:
    """Print who waits and who was let in."""
    found = await gateway.get("/v1/pairings")
    rows = [(one["sender"], one["code"], "waits") for one in found["pairings"]]
    rows += [(sender, "", "let in") for sender in found["approved"]]
    invocation.terminal.show(found, table(("SENDER", "CODE", "STATE"), rows), "nobody waits, and nobody was let in")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action and whom it is about."""
    parser.add_argument("action", choices=ACTIONS, nargs="?", default="list", help="what to do")
    parser.add_argument("name", nargs="?", default="", help="approve: the pairing code; revoke: platform:user")


COMMAND = Subcommand(
    "pair",
    "list, approve and revoke who may talk on platforms that are open to strangers",
    (
        "python -m gateway pair                          # who waits, and who was let in",
        "python -m gateway pair approve ABCD2345         # let the sender of this code in",
        "python -m gateway pair revoke telegram:12345    # let this sender in no longer",
    ),
    run,
    add_arguments,
)
