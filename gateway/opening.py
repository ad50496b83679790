"""The time before the store is open: short, but where an old database is brought to a new schema it may take minutes.

The gateway listens meanwhile: ``/livez`` answers, ``/readyz`` says 503 and how far it is, and all else gets a 503 with
``Retry-After``, so that platforms deliver again.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.responses import error_response, json_response
from shared.opening import Opening

RETRY_AFTER_S = 10


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
