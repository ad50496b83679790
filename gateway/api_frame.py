"""What every request of the API gets before and after its route: one spelling of its path, an id, and CORS headers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: paths whose end is a name that may hold any letter, and those whose sender signs them as they are
AS_THEY_ARE = ("/v1/sessions/", "/webhooks/")
METHODS = ("GET", "POST", "DELETE", "OPTIONS")
EXPOSED = ("x-request-id", "x-gatehouse-message", "x-gatehouse-session-key", "retry-after")
_SLASHES = re.compile(r"/{2,}")


class ApiFrame:
    """Wraps the app; pages of ``cors_origins`` may call the API with a key, cookies are never theirs."""

    def __init__(self, app: ASGIApp, cors_origins: Sequence[str]) -> None:
        self.app = app
        if cors_origins:
            self._api: ASGIApp = CORSMiddleware(
                app, allow_origins=cors_origins, allow_methods=METHODS, allow_headers=["*"], expose_headers=EXPOSED
            )
        else:
            self._api = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = one_spelling(scope["path"])
        if path != scope["path"]:
            scope = {**scope, "path": path, "raw_path": path.encode()}
        if not path.startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(16)}"

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._api(scope, receive, send_with_id)


def one_spelling(path: str) -> str:
    """Return a path without empty parts: clients join a base url and a path with a slash too many."""
    plain = _SLASHES.sub("/", path)
    if plain.startswith(AS_THEY_ARE):
        return plain if path.startswith("//") else path
    return plain.rstrip("/") or "/"
