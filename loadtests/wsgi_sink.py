"""The receiving platform as a WSGI application, for processes that run on gevent instead of asyncio."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from loadtests.platform_wire import UNAUTHORIZED, Answer, Fault, Received, Secrets, authentic, read_body, read_message
from loadtests.platform_wire import refusal as refused
from loadtests.platform_wire import success as taken

ROUTES = (
    ("standard", re.compile(r"/standard")),
    ("telegram", re.compile(r"/bot(?P<token>[^/]+)/(?P<method>[A-Za-z]+)")),
    ("slack", re.compile(r"/api/(?P<method>[A-Za-z.]+)")),
)
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class ReplyDoor:
    """Receives replies of all three platforms and hands each message to ``on_reply``."""

    def __init__(self, secrets: Secrets, on_reply: Callable[[Received], None]) -> None:
        self._secrets = secrets
        self._on_reply = on_reply
        self._numbers = itertools.count(1)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        status, headers, body = self._answer(environ)
        start_response(f"{status} {HTTPStatus(status).phrase}", [*headers.items(), ("content-length", str(len(body)))])
        return [body]

    def _answer(self, environ: dict[str, Any]) -> Answer:
        for name, pattern in ROUTES:
            if route := pattern.fullmatch(environ["PATH_INFO"]):
                return self._receive(name, route.groupdict(), read_headers(environ), environ["wsgi.input"].read())
        return 404, {}, b""

    def _receive(self, name: str, path: dict[str, str], headers: dict[str, str], raw: bytes) -> Answer:
        if not authentic(name, self._secrets, headers, path, raw):
            return refused(name, Fault(status=401, error=UNAUTHORIZED[name]))
        body = read_body(raw)
        method = path.get("method", "post")
        reply = read_message(name, method, next(self._numbers), headers, body)
        if reply is not None:
            self._on_reply(reply)
        return taken(name, method, reply)


def read_headers(environ: dict[str, Any]) -> dict[str, str]:
    """Return a request's headers with lower-case names."""
    return {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
