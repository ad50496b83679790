"""Runs a host of workers until a signal ends it: what ``python -m worker`` does.

On one machine, without a database that hosts share, the gateway runs its own workers: this says so once and stays up
idle, so that whoever starts every type of the Procfile can go on.
"""

from __future__ import annotations

import asyncio
import functools
import sys

import uvloop

from shared.errors import SettingsError, StoreUnavailable, StoreUnusable
from shared.events import Events, LogWriter
from shared.hidden_environment import hide_environment
from shared.settings import load_settings, scrub_environment
from worker.host import WorkerHost, idle
from worker.pool.worker_config import known_secrets

NOTHING_TO_DO = (
    "nothing to do here: without a DATABASE_URL that names a server, `python -m gateway` runs its own workers; "
    "this process stays up idle"
)


def main() -> int:
    """Run the host until a signal ends it, and return the exit status."""
    try:
        settings = load_settings()
        hide_environment(scrub_environment(settings.proxies))
        log = LogWriter(known_secrets(settings))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if not settings.database_url.startswith("postgres"):
                runner.run(idle(functools.partial(complain, NOTHING_TO_DO)))
                return 0
            log.start()
            try:
                runner.run(WorkerHost(settings, Events()).run())
            finally:
                log.stop()
    except SettingsError as error:
        complain(str(error))
        return 2
    except (StoreUnusable, StoreUnavailable) as error:
        complain(f"the message store cannot be opened: {error} (DATABASE_URL says where it lies)")
        return 1
    except OSError as error:
        complain(f"PORT: health and metrics cannot be served: {error}")
        return 1
    return 0


def complain(line: str) -> None:
    """Write one line for the user to stderr."""
    sys.stderr.write(f"gatehouse: {line}\n")
    sys.stderr.flush()
