"""What libraries of bots sign, build and read, for the tests of our adapters.

Reads one JSON object: ``secrets`` by platform, ``now``, ``asked`` (what our adapters posted, by case) and ``judged``
(bodies with headers). Writes one: ``signed`` requests, ``built`` bodies by case, and a ``verdict`` on each judged one.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import sys
from typing import Any

import discord
import httpx  # noqa: TID251 - what pywa is made with
import pywa.utils
from discord.http import handle_message_parameters
from mautrix.types import Format, MessageType, RelatesTo, TextMessageEventContent
from pywa import WhatsApp
from pywa.types import Button
from slack_bolt.middleware.request_verification import RequestVerification
from slack_bolt.request import BoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.signature import SignatureVerifier
from svix.webhooks import Webhook, WebhookVerificationError

APPROVE, DENY = "/approve 0123456789abcdef", "/deny 0123456789abcdef"


def whatsapp_bodies() -> dict[str, Any]:
    """Return what pywa posts: an answer, one to a business-scoped id, one to a group, a question, a life sign."""
    sent: list[Any] = []

    def record(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        contact = {"input": "1", "wa_id": "1"}
        return httpx.Response(200, json={"contacts": [contact], "messages": [{"id": "wamid.9"}], "success": True})

    client = WhatsApp("106540352242922", "token", session=httpx.Client(transport=httpx.MockTransport(record)))
    buttons = [Button("Approve", APPROVE), Button("Deny", DENY)]
    client.send_message("15551234567", "hi", reply_to_message_id="wamid.1")
    client.send_message("US.13491208655302741918", "hi", reply_to_message_id="wamid.1")
    client.send_message("Y2FwaV9ncm91cDoxOTUwNTU1MDA3OToxMjAzNjMzOTQz", "hi")
    client.send_message("15551234567", "May I?", buttons=buttons, reply_to_message_id="wamid.1")
    client.indicate_typing("wamid.1")
    return dict(zip(["answer", "by user id", "group", "question", "life sign"], sent, strict=True))


async def discord_body() -> dict[str, Any]:
    """Return what discord.py posts for a question with two buttons that may be sent twice."""
    view = discord.ui.View()
    for style, label, says in (
        (discord.ButtonStyle.success, "Approve", APPROVE),
        (discord.ButtonStyle.danger, "Deny", DENY),
    ):
        view.add_item(discord.ui.Button(style=style, label=label, custom_id=says))
    nobody = discord.AllowedMentions.none()
    with handle_message_parameters("May I?", nonce="n", allowed_mentions=nobody, view=view) as made:
        return dict(made.payload or {})


def matrix_contents() -> dict[str, Any]:
    """Return what mautrix writes: a text with markup, one in a thread, an edit."""

    def text(body: str, html: str | None = None) -> TextMessageEventContent:
        kind = Format.HTML if html else None
        return TextMessageEventContent(msgtype=MessageType.TEXT, body=body, format=kind, formatted_body=html)

    threaded, edited = text("in it"), text("new")
    threaded.set_thread_parent("$root", last_event_in_thread="$last")
    edited.set_edit("$1")
    contents = {"text": text("bold", "<b>bold</b>"), "thread": threaded, "edit": edited}
    return {case: content.serialize() for case, content in contents.items()}


def matrix_reading(content: dict[str, Any]) -> list[Any]:
    """Return what mautrix reads in a content: its body, HTML, thread, what it answers and what it edits."""
    read = TextMessageEventContent.deserialize(content)
    read._relates_to = read._relates_to or RelatesTo()  # its own accessors need one
    return [read.body, read.formatted_body, read.get_thread_parent(), read.get_reply_to(), read.get_edit()]


def verdict(kind: str, secret: str, headers: dict[str, str], body: str) -> bool:
    """Tell whether a library takes a request; what it raises on, it refuses."""
    try:
        if kind == "svix":
            Webhook(secret).verify(body.encode(), headers)
            return True
        if kind == "slack":
            request = BoltRequest(body=body, headers=headers)
            checked = RequestVerification(secret).process(req=request, resp=BoltResponse(status=404), next=taken)
            return bool(checked.status == 200)
        signature = headers.get("x-hub-signature-256", "")
        return bool(signature) and pywa.utils.webhook_updates_validator(
            app_secret=secret, request_body=body.encode(), x_hub_signature=signature
        )
    except (WebhookVerificationError, ValueError, TypeError):
        return False


def taken() -> BoltResponse:
    """What follows a request that was verified."""
    return BoltResponse(status=200)


def main() -> None:
    """Answer all that is asked."""
    asked = json.load(sys.stdin)
    now = datetime.datetime.fromtimestamp(asked["now"], tz=datetime.UTC)
    signed = {
        "svix": Webhook(asked["secrets"]["svix"]).sign("msg_1", now, asked["bodies"]["svix"]),
        "slack": SignatureVerifier(asked["secrets"]["slack"]).generate_signature(
            timestamp=str(int(asked["now"])), body=asked["bodies"]["slack"]
        ),
    }
    answer = {
        "signed": signed,
        "whatsapp": whatsapp_bodies(),
        "discord": asyncio.run(discord_body()),
        "matrix": matrix_contents(),
        "read": [matrix_reading(content) for content in asked["contents"]],
        "verdicts": [verdict(*one) for one in asked["judged"]],
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
