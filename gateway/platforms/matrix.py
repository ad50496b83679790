"""Matrix: an application service's transactions in, the client-server API out. https://spec.matrix.org/latest

One transaction carries events of many rooms and is repeated until it is answered with 200, everything behind it
waiting: an event that cannot be read is passed over. Our own events come back too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import msgspec

from gateway.chunking import utf8_bytes
from gateway.formatting import MATRIX_HTML, unmarked
from gateway.platforms.api_call import get_call, json_call, read_answer
from gateway.platforms.decode import as_text, as_title, decode, decode_or_none, each_readable
from gateway.platforms.edited_message import EditingAdapter, ShownPlace
from gateway.platforms.json_api import AnswerShape, TextLimit
from gateway.platforms.matrix_event import Content, Event, Named, Page, Transaction
from gateway.platforms.port import (
    MEBIBYTE,
    ApiRequest,
    ApiResponse,
    Capabilities,
    File,
    Inbound,
    Kind,
    Parsed,
    SendResult,
    Setup,
    WebhookRequest,
    WebhookResponse,
)
from gateway.platforms.signature import same
from shared.attachments import Attachment
from shared.command import CHAT_COMMANDS
from shared.errors import BodyRejected, SignatureRejected
from shared.messages import Reply, session_key
from shared.platform_settings import MatrixSettings

#: with a device our transaction ids outlive a restart of the homeserver
DEVICE = "GATEHOUSE"

NOTHING = WebhookResponse(body=b"{}")
NOT_OURS = WebhookResponse(404, b'{"errcode":"M_NOT_FOUND"}')


#: events of a room that are looked at for its invitation
MOST_LOOKED_BACK = 50


class KeptFile(msgspec.Struct, frozen=True):
    """What the homeserver calls a file that was brought to it."""

    content_uri: str = ""


class Address(ShownPlace, frozen=True):
    """Where a reply goes: a room, a thread in it, and the event it answers."""

    room: str
    event: str
    thread: str = ""
    quotes: bool = False


class Predecessor(msgspec.Struct, frozen=True):
    """The room that went before a room."""

    room_id: str = ""


class RoomAnswer(msgspec.Struct, frozen=True):
    """What the homeserver tells of a room: its members, or what it follows."""

    joined: dict[str, msgspec.Raw] | None = None
    predecessor: Predecessor | None = None


def event_bytes(markup: str) -> int:
    """Count what a text and its HTML take in an event, as JSON."""
    return utf8_bytes(msgspec.json.encode([unmarked(markup), markup]).decode())


class Matrix(EditingAdapter, frozen=True):
    """The adapter of one application service; a homeserver repeats a transaction for as long as it takes."""

    settings: MatrixSettings

    name: ClassVar[str] = "matrix"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset({"authorization"}),
        dedupe_ttl_s=30 * 86400.0,
        open_to_strangers=True,
        on_internet=False,
        methods=("PUT", "POST", "GET"),
        takes_paths=True,
        most_body_bytes=8 * MEBIBYTE,
        life_sign_every_s=25.0,
        stream_gap_s=1.5,
        idempotent=True,
        chats_move=True,
    )
    place: ClassVar[type[Address]] = Address
    #: an event is at most 65,536 bytes; what is around the text takes some
    writes: ClassVar[TextLimit] = TextLimit(60_000, MATRIX_HTML, event_bytes)
    answers: ClassVar[AnswerShape] = AnswerShape(
        id="event_id", ok="event_id", code="errcode", said="error", wait=("retry_after_ms", 0.001)
    )

    def verify(self, req: WebhookRequest) -> None:
        """Compare the token that the registration gave the homeserver; old ones send it in the query."""
        scheme, _, token = req.headers.get("authorization", "").partition(" ")
        token = token if scheme.lower() == "bearer" else req.query.get("access_token", "")
        if not token or not same(token, self.settings.hs_token):
            raise SignatureRejected("the bearer token is not MATRIX_HS_TOKEN, the registration's hs_token")

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read a transaction, or answer the homeserver's questions: a ping, or whether somebody is ours."""
        path = req.path.removeprefix("_matrix/app/v1/")
        if not path.startswith("transactions/"):
            return Parsed(NOTHING if path == "ping" else NOT_OURS, ignored="no transaction")
        events = each_readable(decode(req.raw, Transaction, "a transaction").events, Event)
        known = [event for event in events if event.sender != self.settings.user_id]
        inbound = tuple(self._inbounds(known))
        invited = [event.room_id for event in known if event.invites(self.settings.user_id)]
        joins = tuple(self._join(room) for room in [*invited, *(filter(None, (event.successor for event in known)))])
        # what is written at once is not pushed: the homeserver tells only those who have joined
        backwards = tuple(self._said_in(room) for room in invited)
        return Parsed(NOTHING, inbound, "" if inbound else "no message of a person", joins, backwards)

    def missed(self, answer: ApiResponse) -> tuple[Inbound, ...]:
        """Read what was said in a room since the bot was invited."""
        page = read_answer(answer, Page) if answer.status == 200 else None
        since: list[Event] = []
        for event in each_readable(page.chunk if page else (), Event):  # the newest is the first
            if event.invites(self.settings.user_id):
                return tuple(self._inbounds([one for one in reversed(since) if one.sender != self.settings.user_id]))
            since.append(event)
        return ()

    def _said_in(self, room: str) -> ApiRequest:
        path = f"rooms/{quote(room, safe='')}/messages?dir=b&limit={MOST_LOOKED_BACK}&{self._as_bot()}"
        return get_call(f"{self.settings.api_base}/_matrix/client/v3/{path}", self.settings.as_token)

    def _inbounds(self, events: list[Event]) -> Iterator[Inbound]:
        for event in events:
            content = decode_or_none(bytes(event.content), Content)
            with contextlib.suppress(BodyRejected):
                if event.type == "m.room.redaction" and (event.redacts or (content and content.redacts)):
                    redacted = event.redacts or (content.redacts if content else "")
                    yield self._inbound(event, Content(), Kind.DELETE, redacted)
                elif event.successor:
                    yield self._moved(event)
                elif event.type == "m.room.message" and content and content.is_spoken:
                    kind = Kind.EDIT if content.replaces else Kind.MESSAGE
                    yield self._inbound(event, content, kind, content.replaces)

    def _inbound(self, event: Event, content: Content, kind: Kind, amends: str) -> Inbound:
        thread = content.thread
        name = self.settings.user_id
        mentioned = name in content.mentioned or (not content.mentions and name in content.words)
        text = as_text(content.words_to(name)) or as_text(content.words)
        if (command := text.strip().lower().replace("!", "/", 1)) in CHAT_COMMANDS:
            text = command  # with "!": some clients send no text that begins with a slash
        if not text and not content.files and kind is not Kind.DELETE:
            raise BodyRejected("neither text nor attachment")
        return Inbound(
            kind=kind,
            session=session_key(self.name, self._server, quote(event.room_id, safe="!"), thread or None),
            dedupe=(f"matrix:{event.event_id}",),
            user=event.sender,
            text=text,
            mentioned=mentioned,
            reply=Address(event.room_id, event.event_id, thread, mentioned and not thread).packed,
            files=content.files,
            threaded=bool(thread),
            amends=f"matrix:{amends}" if amends else "",
        )

    @property
    def _server(self) -> str:
        return self.settings.user_id.partition(":")[2].replace(":", "%3A")

    def _moved(self, event: Event) -> Inbound:
        """Read that a room goes on as another one."""

        def session_of(room: str) -> str:
            return session_key(self.name, self._server, quote(room, safe="!"))

        new, place = event.successor, Address(event.successor, "").packed
        return Inbound(Kind.MOVED, session_of(new), reply=place, amends=session_of(event.room_id))

    def _join(self, room: str) -> ApiRequest:
        return self._api("POST", f"join/{quote(room, safe='')}", {})

    def lookup(self, inbound: Inbound) -> ApiRequest:
        """An event does not tell whether its room is a conversation of two, or really follows another one."""
        room = quote(Address.of(inbound.reply).room, safe="")
        asked = "state/m.room.create" if inbound.kind is Kind.MOVED else "joined_members"
        url = f"{self.settings.api_base}/_matrix/client/v3/rooms/{room}/{asked}"
        return get_call(f"{url}?{self._as_bot()}", self.settings.as_token)

    def completed(self, inbound: Inbound, answer: ApiResponse | None) -> Inbound | None:
        """A room of two is a direct conversation; without an answer the homeserver has to ask again."""
        if answer is None or answer.status == 429 or answer.status >= 500:
            return None
        found = read_answer(answer, RoomAnswer)
        if inbound.kind is Kind.MOVED:
            # the room names its successor, and that names the room: else anybody could lead another's room into theirs
            before = found.predecessor.room_id if found and found.predecessor else ""
            is_named = quote(before, safe="!") == inbound.amends.split(":", 2)[2]
            return inbound if is_named else msgspec.structs.replace(inbound, kind=Kind.MESSAGE)
        two = found is not None and found.joined is not None and len(found.joined) <= 2
        return msgspec.structs.replace(inbound, direct=two)

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - nothing is timed
        """Send an event under a transaction id of its own, the same on every attempt."""
        new = message(reply.text, plain=plain)
        shown = Address.of(reply.address).shown
        if not shown or not reply.begins:
            return self._send(reply, new, reply.idempotency_key)
        replaced = {"rel_type": "m.replace", "event_id": shown}
        content = {**new, "body": f"* {new['body']}", "m.new_content": new, "m.relates_to": replaced}
        return self._send(reply, content, reply.idempotency_key)

    def _send(self, reply: Reply, content: dict[str, Any], transaction: str) -> ApiRequest:
        address = Address.of(reply.address)
        if address.thread:
            answered = {"m.in_reply_to": {"event_id": address.event}, "is_falling_back": True}
            content.setdefault("m.relates_to", {"rel_type": "m.thread", "event_id": address.thread, **answered})
        elif address.quotes and reply.begins:
            content.setdefault("m.relates_to", {"m.in_reply_to": {"event_id": address.event}})
        room = quote(address.room, safe="")
        return self._api("PUT", f"rooms/{room}/send/m.room.message/{quote(transaction, safe='')}", content)

    def life_sign(self, address: bytes, activity: str) -> ApiRequest:  # noqa: ARG002 - it shows no words
        """Show that something is typed, for 30 s."""
        room = quote(Address.of(address).room, safe="")
        user = quote(self.settings.user_id, safe="")
        return self._api("PUT", f"rooms/{room}/typing/{user}", {"typing": True, "timeout": 30_000})

    def upload(
        self, reply: Reply, file: Attachment, data: bytes, answers: Sequence[ApiResponse] = ()
    ) -> ApiRequest | SendResult:
        """Bring the file to the homeserver, then send an event that names it."""
        if not answers:
            named = f"filename={quote(file.name, safe='')}"
            url = f"{self.settings.api_base}/_matrix/media/v3/upload?{named}&{self._as_bot()}"
            headers = {"authorization": f"Bearer {self.settings.as_token}", "content-type": file.media_type}
            return ApiRequest(url, headers, data)
        kept = read_answer(answers[0], KeptFile) if answers[0].status == 200 else None
        if len(answers) == 2 or kept is None or not kept.content_uri:
            return self.result(reply, answers[-1])
        kind = file.media_type.partition("/")[0]
        content: dict[str, Any] = {
            "msgtype": f"m.{kind}" if kind in {"image", "audio", "video"} else "m.file",
            "body": file.name,
            "filename": file.name,
            "url": kept.content_uri,
            "info": {"mimetype": file.media_type, "size": len(data)},
        }
        return self._send(reply, content, reply.idempotency_key)

    def fetch(self, file: File, answer: ApiResponse | None = None) -> ApiRequest | None:
        """A file is named ``mxc://server/id`` and lies at our homeserver."""
        server, _, media = file.url.removeprefix("mxc://").partition("/")
        if answer is not None or not media or not file.url.startswith("mxc://"):
            return None
        path = f"{quote(server, safe='')}/{quote(media, safe='')}"
        return get_call(f"{self.settings.api_base}/_matrix/client/v1/media/download/{path}", self.settings.as_token)

    def name_calls(self, inbound: Inbound) -> tuple[ApiRequest, ...]:
        """Ask for the room's name, and in a direct conversation for the other's."""
        room, base = quote(Address.of(inbound.reply).room, safe=""), f"{self.settings.api_base}/_matrix/client/v3"
        paths = [f"rooms/{room}/state/m.room.name"]
        if inbound.direct:
            paths.append(f"profile/{quote(inbound.user, safe='')}/displayname")
        return tuple(get_call(f"{base}/{path}?{self._as_bot()}", self.settings.as_token) for path in paths)

    def told_name(self, answer: ApiResponse) -> str:
        """Read it from either."""
        found = read_answer(answer, Named)
        return as_title(found.name, found.displayname) if found else ""

    def token_test(self) -> ApiRequest:
        """Ask who the bot is."""
        url = f"{self.settings.api_base}/_matrix/client/v3/account/whoami?{self._as_bot()}"
        return get_call(url, self.settings.as_token)

    def handshake(self, url: str, now: float) -> ApiRequest:  # noqa: ARG002 - the token is no signature
        """Build the ping that a homeserver makes when it is asked to."""
        return json_call(f"{url}/_matrix/app/v1/ping", {"transaction_id": "doctor"}, self.settings.hs_token)

    def setup(self, url: str) -> Setup:
        """The homeserver reads a registration file at its start."""
        local = self.settings.user_id[1:].partition(":")[0]
        registration = (
            f"id: gatehouse\nurl: {url}\nas_token: <MATRIX_AS_TOKEN>\nhs_token: <MATRIX_HS_TOKEN>\n"
            f'sender_localpart: {local}\nrate_limited: false\nnamespaces: {{users: [{{exclusive: true, regex: "'
            f'{self.settings.user_id}"}}], aliases: [], rooms: []}}\n'
        )
        register = {"type": "m.login.application_service", "username": local, "device_id": DEVICE}
        call = json_call(f"{self.settings.api_base}/_matrix/client/v3/register", register, self.settings.as_token)
        return Setup(f"Write a file and name it in app_service_config_files:\n\n{registration}", (call,))

    def _api(self, method: str, path: str, body: object) -> ApiRequest:
        url = f"{self.settings.api_base}/_matrix/client/v3/{path}?{self._as_bot()}"
        return json_call(url, body, self.settings.as_token, method=method)

    def _as_bot(self) -> str:
        devices = {"device_id": DEVICE, "org.matrix.msc3202.device_id": DEVICE}
        return urlencode({"user_id": self.settings.user_id, **devices})


def message(markup: str, *, plain: bool) -> dict[str, Any]:
    """Return an event's content: the text, and its HTML unless ``plain``."""
    content = {"msgtype": "m.text", "body": unmarked(markup)}
    if plain or markup == content["body"]:
        return content
    return {**content, "format": "org.matrix.custom.html", "formatted_body": markup}
