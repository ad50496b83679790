"""``serve``: run the gateway until a signal ends it; what happens without a command."""

from __future__ import annotations

from gateway import keys
from gateway.cli.command import CommandFailed, Invocation, Subcommand
from gateway.command_acts import leave_act
from gateway.tool_check import check_tool_modules
from shared.api_keys import Role
from shared.events import Event, Events, LogWriter
from shared.hidden_environment import hide_environment
from shared.settings import scrub_environment
from worker.pool.worker_config import known_secrets


def run(invocation: Invocation) -> int:
    """Run the gateway until a signal ends it. Raises SettingsError and CommandFailed."""
    from gateway.server import CannotStart, serve  # with all it needs it takes longer than most commands

    settings = invocation.settings
    hide_environment(scrub_environment(settings.proxies))
    warnings = check_tool_modules(settings.tool_modules, fetch_allow=settings.fetch_allow)
    make_first_key(invocation)
    log = LogWriter(known_secrets(settings))
    log.start()
    for warning in warnings:
        Events().emit(Event.TOOL_WARNING, warning=warning)
    try:
        serve(settings, log)
    except CannotStart as error:
        raise CommandFailed(str(error)) from None
    finally:
        log.stop()
    return 0


def make_first_key(invocation: Invocation) -> None:
    """Make the first admin key where one is needed and there is none, and show it. Raises CommandFailed."""
    try:
        secret = keys.make_first_key(invocation.settings)
        if secret is not None:
            leave_act(invocation.settings.data_dir, keys.KEY_ADDED, f"{keys.FIRST} {Role.ADMIN}")
    except OSError as error:
        raise CommandFailed(f"the first key cannot be kept: {error} (GATEHOUSE_DATA_DIR says where)") from None
    if secret is not None:
        invocation.terminal.note(
            "strangers can reach this gateway, so its API and console need a key. The first one, for admins, is shown "
            f"this once: {secret}"
        )
        invocation.terminal.note("`python -m gateway key add NAME` makes more, `key revoke first` takes this one away")


COMMAND = Subcommand(
    name="serve",
    summary="run the gateway with its workers (also what happens without a command)",
    examples=(
        "python -m gateway serve",
        "PORT=9000 GATEHOUSE_MODEL=offline python -m gateway serve   # settings come from the environment and .env",
    ),
    run=run,
    prints=False,
)
