"""What adapters send, by the platforms' own packages: they read it as it was meant, or build the same request."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from linebot.v3.messaging import PushMessageRequest, ReplyMessageRequest, ShowLoadingAnimationRequest
from twilio.http.response import Response
from twilio.rest import Client

from tests.gateway.platforms.fixtures.fixture import NOW
from tests.gateway.platforms.test_conformance import fixture_of, reply_to

QUESTION = "0123456789abcdef\nErlauben\nAblehnen"


def test_line_s_own_models_read_every_call_as_it_was_sent() -> None:
    """Replies by token, pushes, questions with their buttons, and the loading animation."""
    platform = fixture_of("line")
    answer = reply_to(platform, "hi 👋")
    asked = msgspec.structs.replace(answer, question=QUESTION)
    sign = platform.adapter.life_sign(answer.address, "")
    assert sign is not None
    calls = [
        (ReplyMessageRequest, platform.adapter.call(answer, NOW)),
        (ReplyMessageRequest, platform.adapter.call(asked, NOW)),
        (PushMessageRequest, platform.adapter.call(asked, NOW + 1000)),
        (ShowLoadingAnimationRequest, sign),
    ]
    for model, call in calls:
        body = json.loads(call.body)
        read = json.loads(model.from_dict(body).to_json())
        assert holds(read, body), model


def holds(read: Any, sent: Any) -> bool:
    """Tell whether a model that was read says all that was sent; it adds its defaults."""
    if isinstance(sent, dict):
        return isinstance(read, dict) and all(name in read and holds(read[name], sent[name]) for name in sent)
    if isinstance(sent, list):
        return isinstance(read, list) and len(read) == len(sent) and all(map(holds, read, sent))
    return bool(read == sent)


class Recorded:
    """What Twilio's own client sends by: it keeps the request."""

    def request(self, method: str, url: str, data: Any = None, **_: Any) -> Response:
        self.sent = (method, url, data)
        return Response(201, '{"sid": "SM1"}')


def test_twilio_s_own_client_builds_the_same_message() -> None:
    platform = fixture_of("twilio")
    call = platform.adapter.call(reply_to(platform, "hi 👋 & ü"), NOW)
    fields = dict(parse_qsl(call.body.decode(), strict_parsing=True))
    recorded = Recorded()
    client = Client("AC0123456789abcdef0123456789abcdef", "12345", http_client=recorded)
    client.messages.create(to=fields["To"], from_=fields["From"], body=fields["Body"])
    method, url, data = recorded.sent
    assert (call.method, call.url.rpartition("/2010-04-01/")[2], fields) == (
        method.upper(),
        url.rpartition("/2010-04-01/")[2],
        data,
    )
