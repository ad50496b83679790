"""``python -m loadtests.traced``: the gateway, counting its calls into the folder it was started in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.app import Gateway, store_of
from gateway.server import serve
from loadtests.traced.counting import CallCounts
from shared.events import LogWriter
from shared.settings import load_settings, scrub_environment
from shared.store.engine import Engine
from shared.store.port import Store


class CountingEngine:
    """An engine whose jobs are counted; the rest of it is the engine's own."""

    def __init__(self, engine: Engine, counts: CallCounts) -> None:
        self._engine = engine
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def run(self, session: str, job: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Count a job and run it."""
        self._counts.jobs += 1
        return await self._engine.run(session, job, *args, **kwargs)

    async def run_relaxed(self, session: str, job: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Count a job and run it."""
        self._counts.jobs += 1
        return await self._engine.run_relaxed(session, job, *args, **kwargs)


def main() -> int:
    """Run the gateway until a signal ends it."""
    settings = load_settings()
    scrub_environment()
    counts = CallCounts(Path.cwd())
    counts.start()
    log = LogWriter(settings.secrets())
    log.start()

    def compose(_: Any) -> Gateway:
        plain = store_of(settings)
        store = Store(CountingEngine(plain.engine, counts), settings.inbox_limit, settings.sender_share)
        gateway = Gateway(settings, store)
        gateway.pool._supervisor._spares._entry = "loadtests.traced.child"
        return gateway

    try:
        serve(settings, log, compose)
    finally:
        log.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
