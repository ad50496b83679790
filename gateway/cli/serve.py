"""``serve``: run the gateway until a signal ends it; what happens without a command."""

from __future__ import annotations

from gateway.cli.command import Command, CommandFailed, Invocation
from gateway.tool_check import check_tool_modules
from shared.events import Event, Events, LogWriter
from shared.settings import scrub_environment
from worker.pool.worker_config import known_secrets


def run(invocation: Invocation) -> int:
    """Run the gateway until a signal ends it. Raises SettingsError and CommandFailed."""
    from gateway.server import CannotStart, serve  # with all it needs it takes longer than most commands

    settings = invocation.settings
    scrub_environment()
    warnings = check_tool_modules(settings.tool_modules, fetch_allow=settings.fetch_allow)
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


COMMAND = Command(
    name="serve",
    summary="run the gateway with its workers (also what happens without a command)",
    examples=(
        "python -m gateway serve",
        "PORT=9000 GATEHOUSE_MODEL=offline python -m gateway serve   # settings come from the environment and .env",
    ),
    run=run,
    prints=False,
)
