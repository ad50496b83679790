"""Twilio: SMS and WhatsApp messages in by webhook, out by the Messages resource. https://www.twilio.com/docs/messaging

The signature covers the url as Twilio called it, so behind a proxy GATEHOUSE_PUBLIC_URL has to say what that is.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator
from typing import ClassVar
from urllib.parse import parse_qsl, urlsplit

from gateway.platforms.api_call import form_call, get_call
from gateway.platforms.decode import as_key_part, as_text, as_title, read_form
from gateway.platforms.json_api import AnswerShape, ErrorCodes, JsonApiAdapter, Place, TextLimit
from gateway.platforms.port import (
    ApiRequest,
    ApiResponse,
    Capabilities,
    Chat,
    File,
    Inbound,
    Kind,
    Parsed,
    Rate,
    Setup,
    WebhookRequest,
    WebhookResponse,
)
from gateway.platforms.signature import required_header, same
from shared.errors import BodyRejected, SignatureRejected
from shared.messages import Reply, session_key
from shared.platform_settings import TwilioSettings

#: a phone number, a short code or a name, on one of Twilio's channels
PARTY = re.compile(r"(?:(whatsapp|messenger|rcs):)?([+\w.@-]{1,100})", re.ASCII)

#: what a phone number of ours may send, to all people together; Twilio queues what is more
LONG_CODE = re.compile(r"\+\d{7,15}", re.ASCII)
LONG_CODE_RATES = (Rate(1, 1.0),)
WHATSAPP_RATES = (Rate(80, 1.0),)

EMPTY_TWIML = WebhookResponse(body=b"<Response/>", media="text/xml")
MOST_FILES = 10


class Address(Place, frozen=True):
    """Where a reply goes, from which number of ours, and the message it answers."""

    to: str
    sender: str
    message_sid: str


class Twilio(JsonApiAdapter, frozen=True):
    """The adapter of one account."""

    settings: TwilioSettings

    name: ClassVar[str] = "twilio"
    capabilities: ClassVar[Capabilities] = Capabilities(
        signature_headers=frozenset({"x-twilio-signature"}),
        dedupe_ttl_s=86400.0,
        open_to_strangers=True,
        life_sign_every_s=20.0,
    )
    place: ClassVar[type[Address]] = Address
    writes: ClassVar[TextLimit] = TextLimit(1600)
    answers: ClassVar[AnswerShape] = AnswerShape(id="sid", code="code", said="message")
    codes: ClassVar[ErrorCodes] = ErrorCodes(
        passing=frozenset({20429, 14107, 63018}), gone=frozenset({21610, 21211, 21612, 21614, 63016, 63024})
    )

    @property
    def tokens(self) -> list[str]:
        """The account's tokens, the current one first."""
        return [token for token in re.split(r"[,\s]+", self.settings.auth_token) if token]

    def verify(self, req: WebhookRequest) -> None:
        """Check the signature over the url and the sorted fields of the form, or over the url with the body's hash."""
        signature = required_header(req.headers, "x-twilio-signature")
        wanted = req.query.get("bodySHA256")
        try:
            pairs = [] if wanted is not None else form_pairs(req.raw)
        except ValueError:
            raise SignatureRejected("the form has too many fields to be one of Twilio's") from None
        expected = [sign(token, url, pairs) for token in self.tokens for url in spellings(req.url)]
        matches = [same(signature, one) for one in expected]  # all of them: time tells nothing
        if "x-twilio-webhooks-signature-settings" in req.headers and not any(matches):
            raise SignatureRejected(
                "the request is signed with a shared key (X-Twilio-Webhooks-Signature-Settings), which is not taken: "
                "switch it off in the Twilio console, so that Twilio signs with the account's token"
            )
        if not any(matches) or (wanted is not None and not same(hashlib.sha256(req.raw).hexdigest(), wanted)):
            raise SignatureRejected(
                "X-Twilio-Signature does not match: TWILIO_AUTH_TOKEN must be this account's, and GATEHOUSE_PUBLIC_URL "
                "the address that Twilio calls"
            )

    def parse(self, req: WebhookRequest) -> Parsed:
        """Read a message; reports on our own messages are ignored."""
        fields = read_form(req.raw)
        if "MessageStatus" in fields or "MessageSid" not in fields:
            return Parsed(EMPTY_TWIML, ignored="no message of a person")
        sender, to = party(fields.get("From", ""), "From"), party(fields.get("To", ""), "To")
        sid = as_key_part(fields["MessageSid"], "MessageSid")
        files = tuple(media_files(fields))
        text = as_text(fields.get("ButtonPayload") or fields.get("Body", ""))
        if not text and not files:
            return Parsed(EMPTY_TWIML, ignored="neither text nor attachment")
        inbound = Inbound(
            kind=Kind.ACTION if fields.get("ButtonPayload") else Kind.MESSAGE,
            session=session_key(self.name, self.settings.account_sid, to.rpartition(":")[2], sender),
            dedupe=(f"twilio:{sid}",),
            user=sender,
            text=text,
            direct=True,
            mentioned=False,
            reply=Address(sender, to, sid).packed,
            context="(forwarded)" if fields.get("Forwarded") == "true" else "",
            files=files,
            title=as_title(fields.get("ProfileName")),
        )
        return Parsed(EMPTY_TWIML, (inbound,))

    def call(self, reply: Reply, now: float, *, plain: bool = False) -> ApiRequest:  # noqa: ARG002 - it is always plain
        """Build a message."""
        address = Address.of(reply.address)
        url = f"{self.settings.api_base}/2010-04-01/Accounts/{self.settings.account_sid}/Messages.json"
        return form_call(url, {"To": address.to, "From": address.sender, "Body": reply.text}, self._basic())

    def chat(self, address: bytes) -> Chat:
        """Return the number that sends: its rate is one for everybody it writes to."""
        sender = Address.of(address).sender
        if sender.startswith("whatsapp:"):
            return Chat(sender, WHATSAPP_RATES)
        return Chat(sender, LONG_CODE_RATES if LONG_CODE.fullmatch(sender) else ())

    def life_sign(self, address: bytes, activity: str) -> ApiRequest | None:  # noqa: ARG002 - it shows no words
        """Show that something is typed; only on WhatsApp."""
        place = Address.of(address)
        if not place.to.startswith("whatsapp:"):
            return None
        url = f"{self.settings.messaging_api_base}/v2/Indicators/Typing.json"
        return form_call(url, {"messageId": place.message_sid, "channel": "whatsapp"}, self._basic())

    def fetch(self, file: File, answer: ApiResponse | None = None) -> ApiRequest | None:
        """A file lies at the API, for our token; that leads to a host of its content network, which is not shown it."""
        if answer is None:
            mine = file.url.startswith(self.settings.api_base + "/")
            return ApiRequest(file.url, {"authorization": self._basic()}, b"", "GET") if mine else None
        url = answer.headers.get("location", "") if answer.status in {301, 302, 307, 308} else ""
        return get_call(url) if url.startswith("https://") else None

    def token_test(self) -> ApiRequest:
        """Ask for the account."""
        url = f"{self.settings.api_base}/2010-04-01/Accounts/{self.settings.account_sid}.json"
        return ApiRequest(url, {"authorization": self._basic()}, b"", "GET")

    def setup(self, url: str) -> Setup:
        """A number's webhook is set in the console."""
        return Setup(
            f"In the Twilio console, 'A message comes in' of the number or the WhatsApp sender: webhook {url}, POST. "
            "GATEHOUSE_PUBLIC_URL must be the part of it before /webhooks."
        )

    def _basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.settings.account_sid}:{self.tokens[0]}".encode()).decode()


def form_pairs(raw: bytes) -> list[tuple[str, str]]:
    """Return all fields of a form, blank ones too. Raises ValueError for far too many."""
    return parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=1000)


def sign(token: str, url: str, pairs: list[tuple[str, str]]) -> str:
    """Return the signature of a url and the distinct fields of a form, in order."""
    content = url + "".join(name + value for name, value in sorted(set(pairs)))
    return base64.b64encode(hmac.digest(token.encode(), content.encode("utf-8", "replace"), hashlib.sha1)).decode()


def spellings(url: str) -> list[str]:
    """Return a url with and without its scheme's port: Twilio signs either."""
    try:
        parts = urlsplit(url)
        port = {"https": 443, "http": 80}.get(parts.scheme, 0)
        bare = parts._replace(netloc=parts.netloc.removesuffix(f":{parts.port}") if parts.port else parts.netloc)
        return [url, bare.geturl(), bare._replace(netloc=f"{bare.netloc}:{parts.port or port}").geturl()]
    except ValueError:
        return [url]


def party(text: str, name: str) -> str:
    """Return a number or name on a channel, as Twilio writes it. Raises BodyRejected."""
    if not PARTY.fullmatch(text):
        raise BodyRejected(f"{name} is no number as Twilio writes them")
    return text


def media_files(fields: dict[str, str]) -> Iterator[File]:
    """Yield what is attached."""
    for number in range(MOST_FILES):
        if url := fields.get(f"MediaUrl{number}"):
            media = fields.get(f"MediaContentType{number}", "")
            yield File(url.rpartition("/")[2][:100], f"file {number + 1}", media, 0, url)
