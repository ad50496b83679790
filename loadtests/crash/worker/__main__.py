"""``python -m loadtests.crash.worker DIRECTORY``: a worker host, watched.

Its settings come from the environment as always. It is a package of its own for the reason that the gateway's is.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from loadtests.crash.composer import Composer
from shared.events import LogWriter
from shared.settings import load_settings, scrub_environment


def main(directory: Path) -> int:
    """Run the host until it is killed, or a signal ends it."""
    settings = load_settings()
    scrub_environment()
    log = LogWriter(settings.secrets())
    log.start()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Composer(directory).compose_host(settings).run())
    finally:
        log.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
