"""``python -m loadtests.crash.gateway DIRECTORY``: the gateway, watched.

Its settings come from the environment as always. It is a package of its own because worker
processes import the main module of their parent, unless that is a ``__main__``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.server import serve
from loadtests.crash.composer import Composer
from loadtests.crash.shadow_disk import ShadowDisk
from shared.events import LogWriter
from shared.settings import load_settings, scrub_environment


def main(directory: Path) -> int:
    """Run the gateway until it is killed, or a signal ends it."""
    settings = load_settings()
    scrub_environment()
    # it is the default for as long as something holds it
    disk = None if settings.database_url else ShadowDisk(directory)
    log = LogWriter(settings.secrets())
    log.start()
    try:
        serve(settings, log, Composer(directory).compose)
    finally:
        log.stop()
        del disk
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
