"""The ASGI entry of webhooks: past the app's router and middlewares, which cost more than a webhook's own work.

It takes ``POST /webhooks/NAME``; every other path and method goes to the app, whose routes answer the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.webhook import Webhooks

PREFIX = "/webhooks/"


class WebhookEntry:
    """Stands in front of an app; ``handlers`` turn errors into answers, as the app's own do."""

    def __init__(
        self, app: ASGIApp, webhooks: Webhooks, handlers: Mapping[Any, Callable[[Request, Any], Response]]
    ) -> None:
        self.app = app
        self._webhooks = webhooks
        (self._route, _) = webhooks.routes()
        self._expected = {kind: handler for kind, handler in handlers.items() if kind is not Exception}
        self._unexpected = handlers[Exception]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(PREFIX):
            name = scope["path"][len(PREFIX) :]
            if name and "/" not in name:
                scope["path_params"] = {"platform": name}
                scope["route"] = self._route
                await self._receive(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _receive(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp
        try:
            answer = await self._webhooks.receive(Request(scope, receive, send))
        except Exception as error:  # noqa: BLE001 - what the app's own middlewares would catch
            answer = ServerErrorMiddleware(ExceptionMiddleware(raising(error), self._expected), self._unexpected)
        await answer(scope, receive, send)


def raising(error: Exception) -> ASGIApp:
    """Return an app that raises this, for middlewares that make answers of errors."""

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    return app
