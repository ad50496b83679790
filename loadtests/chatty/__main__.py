"""``python -m loadtests.chatty RATE``: the gateway, telling pages RATE events a second besides its own."""

from __future__ import annotations

import asyncio
import sys

from gateway.app import Gateway
from gateway.server import serve
from shared.events import LogWriter
from shared.settings import load_settings, scrub_environment

#: events are told in bursts this long, in seconds
BURST_S = 0.01


class Chatty(Gateway):
    """A gateway of which ``rate`` turns a second seem to change."""

    rate = 0

    async def start(self) -> None:
        """Start as every gateway does, and begin to talk."""
        await super().start()
        self._talking = asyncio.create_task(self._talk())

    async def _talk(self) -> None:
        loop = asyncio.get_running_loop()
        began, told = loop.time(), 0
        while True:
            await asyncio.sleep(BURST_S)
            while told < (loop.time() - began) * self.rate:
                session = f"telegram:1:{told % 1000}"
                self.broadcast.tell("turn", session=session, message=f"msg_{told:032x}", state="running", worker="0")
                told += 1


def main(rate: int) -> int:
    """Run the gateway until a signal ends it."""
    Chatty.rate = rate
    settings = load_settings()
    scrub_environment()
    log = LogWriter(settings.secrets())
    log.start()
    try:
        serve(settings, log, Chatty)
    finally:
        log.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
