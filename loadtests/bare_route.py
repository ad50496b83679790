"""The least a webhook route can do: verify, parse, answer, store nothing. The gateway's ack is compared with it."""

from __future__ import annotations

import time

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from loadtests.loopback import Loopback, port_argument
from loadtests.platform_wire import Secrets
from loadtests.signing import standard_verifies

SECRET = Secrets().standard_secret


class Message(msgspec.Struct):
    """The body of a Standard webhook."""

    session: str
    user: str
    text: str


async def receive(request: Request) -> Response:
    """Verify and parse one Standard webhook."""
    raw = await request.body()
    if not standard_verifies(SECRET, request.headers, raw, time.time()):
        return Response(status_code=401)
    message = msgspec.json.decode(raw, type=Message)
    return JSONResponse({"ok": bool(message.session)}, headers={"x-gatehouse-message": request.headers["webhook-id"]})


app = Starlette(routes=[Route("/webhooks/standard", receive, methods=["POST"], max_body_size=1 << 20)])

if __name__ == "__main__":
    Loopback(app, port_argument("loadtests.bare_route")).run()
