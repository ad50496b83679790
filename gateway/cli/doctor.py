"""``doctor``: what `check` looks at, and all that has to be reached tried for real."""

from __future__ import annotations

from gateway.cli.check import check_everything
from gateway.cli.command import Invocation, Subcommand


async def run(invocation: Invocation) -> int:
    """Try everything and print what was found; the exit status is 1 if anything is wrong."""
    return await check_everything(invocation, live=True)


COMMAND = Subcommand(
    name="doctor",
    summary="try for real what the gateway needs: models, MCP servers, platforms, the way in from outside",
    examples=(
        "python -m gateway doctor      # asks each model for one word, which costs some tokens",
        "python -m gateway doctor --json | jq '.findings[] | select(.ok | not)'",
    ),
    run=run,
)
