"""A chat platform that receives replies: Standard Webhooks, Telegram's Bot API and Slack's Web API.

It records every reply with its time, answers as the real one does, and fails as scripted. ``running_platform()`` gives
one to a test, ``python -m loadtests.platform --port 0`` runs one with control routes; see docs/load-testing.md.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading
from collections.abc import Iterator, Mapping

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from loadtests.loopback import HOST, Exchange, Loopback, exchange, port_argument
from loadtests.platform_wire import (
    PLATFORMS,
    UNAUTHORIZED,
    Fault,
    Received,
    Secrets,
    authentic,
    read_body,
    read_message,
    refusal,
    success,
)

__all__ = ["Fault", "Platform", "Received", "RunningPlatform", "Secrets", "running_platform"]


class Platform:
    """The platform's state: what it received and what is scripted; safe to use from any thread."""

    def __init__(self, secrets: Secrets) -> None:
        self.secrets = secrets
        self.requests = 0
        self.refused = 0  #: requests with a wrong signature or token
        self._received: list[Received] = []
        self._faults: dict[str, collections.deque[Fault]] = {name: collections.deque() for name in PLATFORMS}
        self._arrival = threading.Condition()

    def app(self) -> Starlette:
        """Return the platform as an application, with its control routes."""
        return Starlette(
            routes=[
                Route("/standard", Door(self, "standard"), methods=["POST"]),
                Route("/api/{method}", Door(self, "slack"), methods=["POST"]),
                Route("/replies", self._replies, methods=["GET", "DELETE"]),
                Route("/script", self._set_script, methods=["POST"]),
                Route("/stats", self._stats),
                Route("/bot{token}/{method}", Door(self, "telegram"), methods=["POST"]),
            ]
        )

    def script(self, platform: str, *faults: Fault) -> None:
        """Queue faults for the platform's next requests, one each."""
        self._faults[platform].extend(faults)

    def next_fault(self, platform: str) -> Fault | None:
        with contextlib.suppress(IndexError):
            return self._faults[platform].popleft()
        return None

    def take(self, reply: Received) -> None:
        """Record a reply."""
        with self._arrival:
            self._received.append(reply)
            self._arrival.notify_all()

    def received(self, platform: str | None = None, conversation: str | None = None) -> list[Received]:
        """Return the messages received so far, oldest first, of one platform or conversation where given."""
        with self._arrival:
            return self._matching(platform, conversation)

    def wait(
        self, count: int, platform: str | None = None, conversation: str | None = None, within_s: float = 10.0
    ) -> list[Received]:
        """Wait until this many messages are here and return all there are. Raises TimeoutError."""
        with self._arrival:
            if not self._arrival.wait_for(lambda: len(self._matching(platform, conversation)) >= count, within_s):
                found = self._matching(platform, conversation)
                raise TimeoutError(f"{len(found)} of {count} replies came in {within_s:g} s")
            return self._matching(platform, conversation)

    def forget(self) -> None:
        """Drop what was received and what is scripted."""
        with self._arrival:
            self._received.clear()
            for queue in self._faults.values():
                queue.clear()

    def _matching(self, platform: str | None, conversation: str | None) -> list[Received]:
        return [
            reply
            for reply in self._received
            if reply.platform == (platform or reply.platform)
            and reply.conversation == (conversation or reply.conversation)
        ]

    async def _replies(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.forget()
            return JSONResponse({})
        query = request.query_params
        wanted = (int(query.get("count", 0)), query.get("platform"), query.get("conversation"))
        try:
            found = await asyncio.to_thread(self.wait, *wanted, within_s=float(query.get("within_s", 0)))
        except TimeoutError as problem:
            return JSONResponse({"error": str(problem)}, 504)
        return JSONResponse({"replies": msgspec.to_builtins(found)})

    async def _set_script(self, request: Request) -> Response:
        try:
            scripted = msgspec.json.decode(await request.body(), type=dict[str, list[Fault]])
        except msgspec.DecodeError as problem:
            return JSONResponse({"error": str(problem)}, 400)
        if unknown := scripted.keys() - set(PLATFORMS):
            return JSONResponse({"error": f"there is no platform {', '.join(sorted(unknown))}"}, 400)
        for platform, faults in scripted.items():
            self.script(platform, *faults)
        return JSONResponse({})

    async def _stats(self, _request: Request) -> Response:
        by_platform = collections.Counter(reply.platform for reply in self.received())
        return JSONResponse({"requests": self.requests, "refused": self.refused, "received": by_platform})


class Door:
    """An ASGI endpoint that receives calls the way one platform's API does."""

    def __init__(self, platform: Platform, name: str) -> None:
        self._platform = platform
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with exchange(scope, receive, send) as out:
            await self._answer(out, scope["path_params"], await out.body())

    async def _answer(self, out: Exchange, path: Mapping[str, str], raw: bytes) -> None:
        platform = self._platform
        platform.requests += 1
        if not authentic(self._name, platform.secrets, out.headers, path, raw):
            platform.refused += 1
            return await out.answer(*refusal(self._name, Fault(status=401, error=UNAUTHORIZED[self._name])))
        body = read_body(raw)
        fault = platform.next_fault(self._name)
        method = path.get("method", "post")
        reply = read_message(self._name, method, platform.requests, dict(out.headers), body)
        if reply is not None and (fault is None or fault.taken):
            platform.take(reply)
        match fault:
            case None:
                return await out.answer(*success(self._name, method, reply))
            case Fault(reset=True):
                return await out.reset()
            case Fault(stall=True):
                return await out.pause(None)
            case _:
                return await out.answer(*refusal(self._name, fault))


class RunningPlatform:
    """A platform that listens; waits and scripts go through ``platform``."""

    def __init__(self, platform: Platform, server: Loopback) -> None:
        self._platform = platform
        self._server = server
        self.url = server.url
        self.secrets = platform.secrets

    @property
    def refused(self) -> int:
        """Count the requests with a wrong signature or token."""
        return self._platform.refused

    @property
    def requests(self) -> int:
        """Count all requests."""
        return self._platform.requests

    def environment(self) -> dict[str, str]:
        """Return the settings that make a gateway serve all three platforms against this one."""
        return platform_environment(self.url, self.secrets)

    def script(self, platform: str, *faults: Fault) -> None:
        """Queue faults for the platform's next requests, one each."""
        self._platform.script(platform, *faults)

    def received(self, platform: str | None = None, conversation: str | None = None) -> list[Received]:
        """Return the messages received so far, oldest first, of one platform or conversation where given."""
        return self._platform.received(platform, conversation)

    def wait(
        self, count: int, platform: str | None = None, conversation: str | None = None, within_s: float = 10.0
    ) -> list[Received]:
        """Wait until this many messages are here and return all there are. Raises TimeoutError."""
        return self._platform.wait(count, platform, conversation, within_s)

    async def arrived(
        self, count: int, platform: str | None = None, conversation: str | None = None, within_s: float = 10.0
    ) -> list[Received]:
        """Wait as ``wait`` does, without blocking the loop. Raises TimeoutError."""
        return await asyncio.to_thread(self.wait, count, platform, conversation, within_s)

    def forget(self) -> None:
        """Drop what was received and what is scripted."""
        self._platform.forget()


#: the key of a gateway whose API is asked too
API_KEY = "a-key-of-the-tests"


def platform_environment(url: str, secrets: Secrets) -> dict[str, str]:
    """Return the settings of a gateway that talks to the platform at ``url`` and lets everybody in."""
    return {
        "STANDARD_WEBHOOK_SECRET": secrets.standard_secret,
        "STANDARD_WEBHOOK_REPLY_URL": url + "/standard",
        "TELEGRAM_BOT_TOKEN": secrets.telegram_bot_token,
        "TELEGRAM_SECRET_TOKEN": secrets.telegram_secret_token,
        "TELEGRAM_API_BASE": url,
        "SLACK_SIGNING_SECRET": secrets.slack_signing_secret,
        "SLACK_BOT_TOKEN": secrets.slack_bot_token,
        "SLACK_API_BASE": url + "/api",
        "GATEHOUSE_ALLOW": "*",
        "GATEHOUSE_API_KEYS": API_KEY,
    }


def serve(port: int = 0, secrets: Secrets | None = None, address: str = HOST) -> tuple[Platform, Loopback]:
    """Make a platform and the server it listens on."""
    platform = Platform(secrets or Secrets())
    return platform, Loopback(platform.app(), port, address)


@contextlib.contextmanager
def running_platform(secrets: Secrets | None = None, address: str = HOST) -> Iterator[RunningPlatform]:
    """Run a platform in a thread while the context is open."""
    platform, server = serve(secrets=secrets, address=address)
    with server.in_thread():
        yield RunningPlatform(platform, server)


if __name__ == "__main__":
    serve(port_argument("loadtests.platform"))[1].run()
