"""The time before the store is open: short, but where an old database is brought to a new schema it may take minutes.

The gateway listens meanwhile: ``/livez`` answers, ``/readyz`` says 503 and how far it is, and all else gets a 503 with
``Retry-After``, so that platforms deliver again.
"""

from __future__ import annotations

import asyncio
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.responses import error_response, json_response
from shared.events import Emit, Event
from shared.store.engine import OpeningProgress

#: between two lines of the log that tell how far it is, in seconds
TELL_EVERY_S = 5.0
RETRY_AFTER_S = 10


class Opening:
    """How far the opening is; ``takes_time`` is set once a migration has begun."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._began_mono = 0.0
        self._told_mono = 0.0
        self._progress: OpeningProgress | None = None
        self.takes_time = asyncio.Event()
        self.done = False

    def tell(self, progress: OpeningProgress) -> None:
        """Take note of a step of a migration."""
        now = time.monotonic()
        if self._progress is None:
            self._began_mono = now
            self.takes_time.set()
        if self._progress is None or now - self._told_mono >= TELL_EVERY_S:
            self._told_mono = now
            self._emit(Event.MIGRATING, what=progress.what, done=progress.done, total=progress.total)
        self._progress = progress

    def finish(self) -> None:
        """Take note that the store is open, and what was left of earlier processes taken over."""
        self.done = True
        if self._progress is not None:
            self._emit(Event.MIGRATED, seconds=round(time.monotonic() - self._began_mono, 1))

    @property
    def reason(self) -> str:
        """Why nothing is taken yet, in words."""
        if self._progress is None:
            return "the store is being opened"
        percent = 100 * self._progress.done // max(1, self._progress.total)
        return f"migrating the database to this release's schema: {self._progress.what}, {percent} % done"


class WhileOpening:
    """Stands in front of the app until the opening is done."""

    def __init__(self, app: ASGIApp, opening: Opening) -> None:
        self.app = app
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if self._opening.done or scope["path"] == "/livez":
            await self.app(scope, receive, send)
            return
        reason = self._opening.reason
        if scope["path"] == "/readyz":
            answer = json_response({"status": "not ready", "reason": reason}, 503)
        else:
            again = {"Retry-After": str(RETRY_AFTER_S)}
            answer = error_response(503, f"{reason}; nothing was accepted", code="migrating", headers=again)
        await answer(scope, receive, send)
