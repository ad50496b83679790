"""``/webhooks/{platform}``: bytes in, verified, parsed, accepted durably, and only then 200.

    body ─▶ verify ─▶ parse ─▶ inbound events ─▶ accepted (one commit) ─▶ 200 with the message's id

A redelivery gets the same answer with the same id and starts nothing. Whatever a body holds, the answer is a 200, a
4xx that says what is wrong, or a 503 that says when to come again.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Container, Iterable, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from gateway.bounded_http import WHOLE_BODY
from gateway.inbound_events import InboundEvents
from gateway.platform_calls import PlatformCalls
from gateway.platforms.port import Adapter, Inbound, Parsed, WebhookRequest, WebhookResponse
from gateway.responses import STORE_RETRY_AFTER_S, Refused, error_response, json_response, too_large
from shared.errors import InboxFull, RequestRejected, SignatureRejected, StoreUnavailable
from shared.events import Event, Events

#: how much of a body that is too large is still taken in and dropped: who is cut off while sending sees no answer
MOST_DROPPED_BYTES = 33_554_432

#: how long a body may take to come in
BODY_TIMEOUT_S = 15.0

MESSAGE_HEADER = "X-Gatehouse-Message"

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


class Webhooks:
    """Receives webhooks; see the module's picture.

    ``public_url`` is what the platforms' urls of this gateway begin with, empty for what each request names; ``clock``
    is unix seconds.
    """

    def __init__(
        self,
        platforms: Mapping[str, Adapter],
        inbound_events: InboundEvents,
        events: Events,
        calls: PlatformCalls,
        public_url: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._platforms = platforms
        self._inbound_events = inbound_events
        self._events = events
        self._calls = calls
        self._public_url = public_url
        self._clock = clock

    def routes(self) -> tuple[Route, Route]:
        """Return the routes of all webhooks: the platform's own path, and what some have below it."""
        own, below = (
            Route(path, self.receive, methods=["GET", "POST", "PUT"])
            for path in ("/webhooks/{platform}", "/webhooks/{platform}/{rest:path}")
        )
        return own, below

    async def receive(self, request: Request) -> Response:
        """Answer one webhook."""
        name = request.path_params["platform"]
        try:
            return await self._accept_all(name, request)
        except RequestRejected as error:
            return self._reject(name, error.status, str(error))
        except Refused as error:
            return self._reject(name, error.status_code, str(error.detail), headers=error.headers)
        except InboxFull as error:
            again = {"Retry-After": str(error.retry_after_s)}
            return self._reject(name, 503, str(error), code="inbox_full", headers=again)
        except StoreUnavailable:
            again = {"Retry-After": str(STORE_RETRY_AFTER_S)}
            message = "the message store cannot commit now; nothing was accepted"
            return self._reject(name, 503, message, code="store_unavailable", headers=again)
        except ClientDisconnect:
            return self._reject(name, 400, "the sender left before its body was complete")

    async def _accept_all(self, name: str, request: Request) -> Response:
        platform = self._platforms.get(name)
        if platform is None:
            raise Refused(404, f"the platform {name[:40]!r} is not on; it is when its secrets are set")
        check_target(platform, request)
        req = await self._read(platform, request)
        if platform.key_sources:
            req = await self._calls.with_keys(platform, req)
        platform.verify(req)
        parsed = platform.parse(req)
        if parsed.calls and not await self._calls.make(platform, parsed.calls):
            raise not_known_yet(platform)
        traceparent = req.headers.get("traceparent", "")
        traceparent = traceparent if TRACEPARENT.fullmatch(traceparent) else ""
        said = [*await self._missed(platform, parsed), *parsed.inbound] if parsed.looks_back else parsed.inbound
        completed = [await self._calls.completed(platform, inbound) for inbound in said]
        if None in completed:
            raise not_known_yet(platform)
        taken = [await self._inbound_events.take(platform, inbound, traceparent) for inbound in completed if inbound]
        concerned = any(one.concerned for one in taken)
        if not concerned:
            reason = parsed.ignored or "not addressed to the bot"
            self._events.emit(Event.WEBHOOK_IGNORED, platform=platform.name, reason=reason)
        reason = parsed.ignored or ("it starts no turn" if concerned else "nothing was addressed to the bot")
        declined = next((one.declined for one in taken if one.declined), "")
        ack = (platform.declined(declined) if declined else None) or parsed.ack
        return acknowledge(ack, [one.message_id for one in taken if one.message_id], reason)

    async def _missed(self, platform: Adapter, parsed: Parsed) -> list[Inbound]:
        """Return what was said before the bot was there, as far as the platform tells it: no event waits for that."""
        answers = [await self._calls.ask(platform, request) for request in parsed.looks_back]
        return [inbound for answer in answers if answer for inbound in platform.missed(answer)]

    async def _read(self, platform: Adapter, request: Request) -> WebhookRequest:
        headers = read_headers(request.scope["headers"], platform.capabilities.signature_headers)
        most_bytes = platform.capabilities.most_body_bytes
        if WHOLE_BODY in request.scope.get("extensions", ()):  # a timer for each costs as much as reading it
            raw = await read_at_once(request, most_bytes)
        else:
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    raw = await read_whole(request, most_bytes)
            except TimeoutError:
                told = f"the body took longer than {BODY_TIMEOUT_S:g} s"
                raise Refused(408, told, headers={"Connection": "close"}) from None
        return WebhookRequest(
            method=request.method,
            headers=headers,
            raw=raw,
            now=self._clock(),
            url=self._url_of(request.scope, headers.get("host", "")),
            path=request.path_params.get("rest", ""),
            query=request.query_params if request.scope["query_string"] else {},
        )

    def _url_of(self, scope: Scope, host: str) -> str:
        """Return the url that was called, without reading it: a hostile Host header is no url at all."""
        base = self._public_url or f"{scope['scheme']}://{host}"
        path: bytes = scope["raw_path"]
        query: bytes = scope["query_string"]
        return base + (path + (b"?" + query if query else b"")).decode("latin-1")

    def _reject(
        self, name: str, status: int, reason: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        self._events.emit(Event.WEBHOOK_REJECTED, platform=name[:40], status=status, reason=reason)
        return error_response(status, reason, code=code, headers=headers)


def not_known_yet(platform: Adapter) -> Refused:
    """Return the refusal of an event for which its platform did not answer a question of ours: it comes again."""
    again = {"Retry-After": str(STORE_RETRY_AFTER_S)}
    return Refused(503, f"{platform.name} did not answer what the event leaves open", headers=again)


def check_target(platform: Adapter, request: Request) -> None:
    """Check method and path. Raises Refused: 405 for a method, 404 for a path that the platform does not use."""
    methods = platform.capabilities.methods
    if request.method not in methods:
        allowed = ", ".join(methods)
        raise Refused(405, f"webhooks of {platform.name} come as {allowed}", headers={"Allow": allowed})
    if request.path_params.get("rest") and not platform.capabilities.takes_paths:
        raise Refused(404, f"the webhook of {platform.name} is /webhooks/{platform.name}")


def read_headers(lines: Iterable[tuple[bytes, bytes]], once: Container[str]) -> dict[str, str]:
    """Return the first value of each header. Raises SignatureRejected where one of ``once`` came more than once."""
    headers: dict[str, str] = {}
    for line in lines:
        name = line[0].decode("latin-1")
        if name not in headers:
            headers[name] = line[1].decode("latin-1")
        elif name in once:
            raise SignatureRejected(f"the {name} header came more than once")
    return headers


async def read_at_once(request: Request, most_bytes: int) -> bytes:
    """Return a body that has come whole. Raises Refused with 413 for one over the limit."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    raw: bytes = message["body"]
    if len(raw) > most_bytes:
        raise too_large(most_bytes)
    return raw


async def read_whole(request: Request, most_bytes: int) -> bytes:
    """Return the body. Raises Refused with 413 for one over the limit, declared or not."""
    body = bytearray()
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size <= most_bytes:
            body += piece
        elif size > MOST_DROPPED_BYTES:
            break
    if size > most_bytes:
        raise too_large(most_bytes)
    return bytes(body)


def acknowledge(ack: WebhookResponse, message_ids: list[str], ignored: str) -> Response:
    """Return the answer a platform gets; it does not tell a redelivery from the first delivery."""
    headers = {MESSAGE_HEADER: ", ".join(message_ids)} if message_ids else {}
    if ack.body is not None:
        return Response(ack.body, ack.status, headers, ack.media)
    told = {"message": message_ids[0]} if message_ids else {"ignored": ignored}
    return json_response(told, ack.status, headers)
