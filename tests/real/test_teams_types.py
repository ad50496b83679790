"""What the Teams adapter sends and reads, by the types of Microsoft's own library."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import msgspec

from gateway.platforms.port import Inbound
from tests.gateway.platforms.fixtures import teams
from tests.gateway.platforms.test_conformance import reply_to
from tests.real.foreign import SCRIPTS, installed

PLATFORM = teams.fixture()

POSTED = [
    teams.activity("hi 👋 <b> & ü"),
    teams.mention("status?"),
    teams.activity("hi again", type="messageUpdate", channelData={"tenant": {"id": "t1"}, "eventType": "editMessage"}),
]


def sent() -> list[bytes]:
    """Every activity that the adapter makes: answers, with buttons, life signs, pieces of a stream and its end."""
    adapter = PLATFORM.adapter
    answer = reply_to(PLATFORM, adapter.chunks("**bold** & `code`")[0])
    asked = msgspec.structs.replace(answer, question="0123456789abcdef")
    streamed = msgspec.structs.replace(answer, address=adapter.placed(answer.address, "17", answer.text))
    calls = [adapter.call(answer, 0.0), adapter.call(answer, 0.0, plain=True), adapter.call(asked, 0.0)]
    shown = [adapter.life_sign(answer.address, ""), adapter.preview(answer), adapter.preview(streamed)]
    calls += [adapter.call(streamed, 0.0), *(call for call in shown if call is not None)]
    return [call.body for call in calls]


def read(body: bytes) -> Inbound:
    (inbound,) = PLATFORM.adapter.parse(teams.sign(body)).inbound
    return inbound


def asked_of_the_library() -> dict[str, Any]:
    lines = [f'["out",{body.decode()}]' for body in sent()] + [f'["in",{body.decode()}]' for body in POSTED]
    command = [str(installed("bots") / "bin" / "python"), str(SCRIPTS / "teams_types.py")]
    ended = subprocess.run(command, input="\n".join(lines), check=True, capture_output=True, text=True, timeout=120)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_the_library_knows_every_activity_and_what_it_writes_is_read_as_it_was_posted() -> None:
    """Each is of a type that it has, with fields of that type."""
    assert len(sent()) == 7
    found = asked_of_the_library()
    assert found["problems"] == []
    again = [read(body.encode()) for body in found["posted"]]
    for first, other in zip(map(read, POSTED), again, strict=True):
        # its time is written with six digits instead of seven
        assert msgspec.structs.replace(other, dedupe=first.dedupe) == first
