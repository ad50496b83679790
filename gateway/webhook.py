"""``/webhooks/{platform}``: bytes in, verified, parsed, accepted durably, and only then 200.

    body ─▶ verify ─▶ parse ─▶ reply policy ─▶ access ─▶ command? ─▶ accept (one commit) ─▶ 200 with the message's id

A redelivery gets the same answer with the same id and starts nothing. Whatever a body holds, the answer is a 200, a
4xx that says what is wrong, or a 503 that says when to come again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Container, Iterable, Mapping

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from gateway.access import Access, Admission
from gateway.amendments import Amendments
from gateway.bounded_http import WHOLE_BODY
from gateway.chat_moves import ChatMoves
from gateway.commands import Commands, Inquiry
from gateway.intake import Intake
from gateway.platform_calls import PlatformCalls
from gateway.platforms.port import MOST_TEXT, Adapter, File, Inbound, Kind, Parsed, WebhookRequest, WebhookResponse
from gateway.queue_notice import QueueNotice
from gateway.responses import Refused, error_response, json_response, too_large
from shared.attachments import Attachment, AttachmentLimits, read_uploads
from shared.command import Command
from shared.errors import InboxFull, RequestRejected, SignatureRejected, StoreUnavailable
from shared.events import Event, Events
from shared.ids import new_message_id
from shared.messages import Arrival, MessageState

#: what is a message or stands for one
SPOKEN = frozenset({Kind.MESSAGE, Kind.COMMAND, Kind.ACTION})

#: what changes an earlier message
AMENDING = frozenset({Kind.EDIT, Kind.DELETE})

#: how much of a body that is too large is still taken in and dropped: who is cut off while sending sees no answer
MOST_DROPPED_BYTES = 33_554_432

#: how long a body may take to come in
BODY_TIMEOUT_S = 15.0

#: what a platform waits before it repeats what the store could not commit
STORE_RETRY_AFTER_S = 2

MESSAGE_HEADER = "X-Gatehouse-Message"

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)

#: why a message of somebody who may not talk was ignored, as the platform is told
NOT_ADMITTED = {
    Admission.REFUSED: "this sender is not among those who may talk (GATEHOUSE_ALLOW)",
    Admission.STRANGER: "this sender was given a pairing code; an operator has to approve it",
}


class Webhooks:
    """Receives webhooks; see the module's picture.

    ``debounce_s`` seconds have to pass after a message before its turn begins; see ``Arrival``. ``public_url`` is what
    the platforms' urls of this gateway begin with, empty for what each request names.
    """

    def __init__(
        self,
        platforms: Mapping[str, Adapter],
        intake: Intake,
        access: Access,
        events: Events,
        commands: Commands,
        queue_notice: QueueNotice,
        debounce_s: float = 0.0,
        public_url: str = "",
        calls: PlatformCalls | None = None,
        attachments: AttachmentLimits = AttachmentLimits(),  # noqa: B008 - frozen
    ) -> None:
        self._platforms = platforms
        self._intake = intake
        self._access = access
        self._events = events
        self._commands = commands
        self._queue_notice = queue_notice
        self._debounce_s = debounce_s
        self._public_url = public_url
        self._calls = calls or PlatformCalls()
        self._amendments = Amendments(intake.store, intake)
        self._moves = ChatMoves(intake.store, events)
        self._attachments = attachments

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
        req = await self._calls.with_keys(platform, await self._read(platform, request))
        platform.verify(req)
        parsed = platform.parse(req)
        if not await self._calls.make(platform, parsed.calls):
            raise not_known_yet(platform)
        traceparent = req.headers.get("traceparent", "")
        traceparent = traceparent if TRACEPARENT.fullmatch(traceparent) else ""
        addressed = await self._addressed(platform, parsed)
        ids = [await self._accept(platform, inbound, traceparent) for inbound in addressed]
        reason = parsed.ignored or ("it starts no turn" if addressed else "nothing was addressed to the bot")
        return acknowledge(parsed.ack, [message_id for message_id in ids if message_id], reason)

    async def _read(self, platform: Adapter, request: Request) -> WebhookRequest:
        headers = read_headers(request.scope["headers"], platform.capabilities.signature_headers)
        most_bytes = platform.capabilities.most_body_bytes
        if WHOLE_BODY in request.scope.get("extensions", ()):  # a timer for each costs as much as reading it
            raw = await read_whole(request, most_bytes)
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
            now=self._intake.clock(),
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

    async def _addressed(self, platform: Adapter, parsed: Parsed) -> list[Inbound]:
        completed = [await self._calls.completed(platform, inbound) for inbound in parsed.inbound]
        if None in completed:
            raise not_known_yet(platform)
        addressed = [inbound for inbound in completed if inbound and is_for_us(inbound)]
        if not addressed:
            reason = parsed.ignored or "not addressed to the bot"
            self._events.emit(Event.WEBHOOK_IGNORED, platform=platform.name, reason=reason)
        return addressed

    async def _accept(self, platform: Adapter, inbound: Inbound, traceparent: str) -> str:
        """Accept one message and return its id, empty where its sender may not talk or it only asks a question."""
        if inbound.kind is Kind.MOVED:
            await self._moves.move(platform, inbound.amends, inbound.session, inbound.reply)
            return ""
        session = await self._moves.session_of(platform, inbound.session)
        if session != inbound.session:
            inbound = msgspec.structs.replace(inbound, session=session)
        if inbound.kind in AMENDING:  # what it amends was let in, or is not there
            return await self._amendments.amend(inbound, self._arrival(platform, inbound, traceparent, None))
        admission = await self._access.admit(platform, inbound)
        if admission is not Admission.ALLOWED:
            return self._turn_away(platform, inbound, admission)
        command = self._commands.find(inbound.text)
        if isinstance(command, Inquiry):
            await self._commands.answer(platform, inbound, command)
            self._events.emit(Event.COMMAND_ANSWERED, session=inbound.session, platform=platform.name)
            return ""
        receipt = await self._intake.accept(self._arrival(platform, inbound, traceparent, command))
        if not receipt.duplicate and receipt.state is MessageState.WAITING:
            await self._queue_notice.tell(platform, inbound, receipt)
        return receipt.message_id

    def _arrival(self, platform: Adapter, inbound: Inbound, traceparent: str, command: Command | None) -> Arrival:
        """Return an event as a message to accept."""
        waiting, named = files_of(platform, inbound)
        read = read_uploads(text_of(inbound, named), inbound.uploads, self._attachments)
        return Arrival(
            id=new_message_id(),
            session=inbound.session,
            platform=platform.name,
            user=inbound.user,
            text=read.text,
            reply=inbound.reply,
            dedupe=inbound.dedupe,
            dedupe_ttl_s=platform.capabilities.dedupe_ttl_s,
            at=self._intake.clock(),
            traceparent=traceparent,
            quiet_s=0.0 if command else max(self._debounce_s, inbound.gather_s),
            command=command,
            attachments=(*read.attachments, *waiting),
            attachment_data=read.data,
        )

    def _turn_away(self, platform: Adapter, inbound: Inbound, admission: Admission) -> str:
        event = Event.STRANGER if admission is Admission.STRANGER else Event.MESSAGE_REFUSED
        self._events.emit(event, platform=platform.name, user=inbound.user, reason=NOT_ADMITTED[admission])
        return ""

    def _reject(
        self, name: str, status: int, reason: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        self._events.emit(Event.WEBHOOK_REJECTED, platform=name[:40], status=status, reason=reason)
        return error_response(status, reason, code=code, headers=headers)


def is_for_us(inbound: Inbound) -> bool:
    """Tell whether an event concerns the agent: it is said to it, or changes what was said to it, or where."""
    return inbound.kind not in SPOKEN or inbound.addressed


def not_known_yet(platform: Adapter) -> Refused:
    """Return the refusal of an event for which its platform did not answer a question of ours: it comes again."""
    again = {"Retry-After": str(STORE_RETRY_AFTER_S)}
    return Refused(503, f"{platform.name} did not answer what the event leaves open", headers=again)


def files_of(platform: Adapter, inbound: Inbound) -> tuple[tuple[Attachment, ...], str]:
    """Return the files that are to be fetched when the message's turn begins, and what is said of all of them."""
    waiting = tuple(
        Attachment(file.name, file.media, file.size_bytes, "", msgspec.json.encode(file))
        for file in inbound.files
        if can_fetch(platform, file)
    )
    names = [file.name for file in inbound.files]
    if not names:
        return (), ""
    return waiting, f"(attached{'' if waiting else ', not readable here'}: {', '.join(names)})"


def can_fetch(platform: Adapter, file: File) -> bool:
    """Tell whether a platform has a door for a file."""
    try:
        return platform.fetch(file) is not None
    except RequestRejected:  # its id is none
        return False


def text_of(inbound: Inbound, attached: str) -> str:
    """Return what the model reads of an event, its files named."""
    return "\n".join(part for part in (inbound.prompt, attached) if part)[:MOST_TEXT]


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
