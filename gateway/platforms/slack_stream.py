"""Slack's native streams: an answer that grows in a thread while it is written. https://docs.slack.dev/ai/developing-ai-apps

A stream begins with its first text and only grows. Where none is to be had, or one has ended by itself, edits go on.
"""

from __future__ import annotations

from typing import ClassVar

from gateway.platforms.api_call import json_call
from gateway.platforms.edited_message import EditingAdapter
from gateway.platforms.port import ApiRequest, ApiResponse, SendResult, Sent, WithoutThread
from gateway.platforms.slack_api import CODES, Address
from shared.messages import Reply
from shared.platform_settings import SlackSettings


class SlackStreams(EditingAdapter, frozen=True):
    """What an app does about streams."""

    settings: SlackSettings

    place: ClassVar[type[Address]] = Address

    def api(self, method: str, body: object) -> ApiRequest:
        """Build a call of the Web API."""
        return json_call(f"{self.settings.api_base}/{method}", body, self.settings.bot_token)

    def preview(self, reply: Reply) -> ApiRequest | None:
        """Stream the beginning in a thread, or post and edit it; where the app is no member nothing is shown."""
        address = Address.of(reply.address)
        if address.outside or (address.stream and not address.streamed):
            return None  # what an earlier process has streamed nobody knows
        if address.stream:
            rest = address.rest_of(reply.text)  # what is there already cannot be changed but by edits, after its end
            return self.api("chat.appendStream" if rest else "chat.stopStream", with_text(address.message, rest))
        if address.may_stream and not address.shown:
            recipient = {"recipient_user_id": address.user, "recipient_team_id": address.team}
            place = {"channel": address.channel, "thread_ts": address.thread_ts}
            return self.api("chat.startStream", {**place, **recipient, "markdown_text": reply.text})
        return self.call(reply, 0.0)

    def shown(self, reply: Reply, answer: ApiResponse) -> SendResult:
        """A stream that cannot begin, or has ended, gives way to edits."""
        address = Address.of(reply.address)
        found = self.read(answer) if address.stream or (address.may_stream and not address.shown) else None
        if found is None:
            return self.result(reply, answer)
        if found.ok and (not address.stream or address.rest_of(reply.text)):
            return Sent(found.id)
        return WithoutThread(address.without_stream, found.reason) if found.status < 429 else self.result(reply, answer)

    def placed(self, address: bytes, sent_id: str, shown: str = "") -> bytes:
        """Remember the message, and of a stream what is in it."""
        place = Address.of(address)
        stream = place.stream or (place.may_stream and not place.shown and bool(sent_id))
        return place.but(shown=place.shown or sent_id, stream=stream, streamed=shown if stream else "")

    def end(self, reply: Reply, below: dict[str, object]) -> ApiRequest:
        """Build the call that ends a stream with what is left of an answer, and ``below`` it some blocks."""
        address = Address.of(reply.address)
        return self.api("chat.stopStream", with_text(address.message, address.rest_of(reply.text)) | below)

    def ended(self, reply: Reply, answer: ApiResponse) -> SendResult | None:
        """Read the answer to ``end``, None where it is about something else."""
        address = Address.of(reply.address)
        found = self.read(answer) if address.stream and reply.begins else None
        if found is None or found.status >= 429 or found.code in CODES.passing:
            return None
        if found.ok and address.rest_of(reply.text) is not None:
            return Sent(address.shown)
        return WithoutThread(address.without_stream, found.reason)  # the whole text is written over what is there


def with_text(message: dict[str, object], text: str | None) -> dict[str, object]:
    """Return the body of a call about a stream, with text where there is some."""
    return {**message, "markdown_text": text} if text else message
