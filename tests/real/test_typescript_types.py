"""What adapters send, by the types that bots in TypeScript are written with: one run of its compiler over all calls."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gateway.platforms.port import ApiRequest
from tests.gateway.platforms.fixtures.fixture import NOW
from tests.gateway.platforms.test_conformance import fixture_of, only, reply_to
from tests.real.foreign import installed

#: what follows in a url, and the type of such a call's body, by platform; the first that fits holds
TYPES = {
    "telegram": {"": 'Parameters<RawApi["METHOD"]>[0]'},
    "discord": {
        "/commands": "Discord.RESTPostAPIApplicationCommandsJSONBody",
        "/@me": "Discord.RESTPatchCurrentApplicationJSONBody",
        "/messages/@original": "Discord.RESTPatchAPIInteractionOriginalResponseJSONBody",
        "/messages": "Discord.RESTPostAPIChannelMessageJSONBody",
        "/A_UNIQUE_TOKEN": "Discord.RESTPostAPIInteractionFollowupJSONBody",
    },
    "line": {
        "/message/reply": "Line.ReplyMessageRequest",
        "/message/push": "Line.PushMessageRequest",
        "/loading/start": "Line.ShowLoadingAnimationRequest",
        "/webhook/endpoint": "Line.SetWebhookEndpointRequest",
        "/webhook/test": "Line.TestWebhookEndpointRequest",
    },
    "slack": {
        "/chat.postMessage": "Slack.ChatPostMessageArguments",
        "/assistant.threads.setStatus": "Slack.AssistantThreadsSetStatusArguments",
        "/chat.update": "Slack.ChatUpdateArguments",
        "/chat.appendStream": "Slack.ChatAppendStreamArguments",
        "/chat.stopStream": "Slack.ChatStopStreamArguments",
        "/chat.startStream": "Slack.ChatStartStreamArguments",
    },
    # its type asks for all that an activity has once it arrived; a sender leaves out what the service knows
    "teams": {"": "Sent<Activity>"},
}

HEAD = """
import type { Activity } from "botframework-schema";
import type * as Discord from "discord-api-types/v10";
import type { RawApi } from "grammy";
import type { messagingApi as Line } from "@line/bot-sdk";
import type * as Slack from "@slack/web-api";
type Sent<T> = T extends Date ? T : T extends object ? { [K in keyof T]?: Sent<T[K]> } : T;
"""

STRICT = "--noEmit --strict --skipLibCheck --target es2022 --module nodenext --moduleResolution nodenext".split()


def calls(name: str) -> Iterator[ApiRequest]:
    """Every call with a body that an adapter makes: answers, questions, late ones, life signs, streams, the set-up."""
    platform = fixture_of(name)
    adapter = platform.adapter
    for body in filter(None, (platform.direct("hi"), platform.mention and platform.mention("hi"))):
        place = only(platform, body).reply
        answer = reply_to(platform, adapter.chunks("**bold** & `code`")[0], place)
        later = reply_to(platform, "and more", place, part=1)
        asked = msgspec.structs.replace(answer, question="0123456789abcdef")
        streamed = msgspec.structs.replace(answer, address=adapter.placed(place, "17", answer.text[:3]))
        yield from (adapter.call(reply, now) for reply in (answer, later, asked, streamed) for now in (NOW, NOW + 1e6))
        yield adapter.call(answer, NOW, plain=True)
        shown = [adapter.preview(reply) for reply in (answer, asked, streamed)]
        yield from filter(None, (adapter.life_sign(place, "is thinking…"), *shown))
    yield from adapter.setup("https://bot.example.com/webhooks/it").calls


def type_of(name: str, call: ApiRequest) -> str:
    """Return the type of a call's body."""
    (kind,) = [kind for end, kind in TYPES[name].items() if call.url.endswith(end)][:1]
    return kind.replace("METHOD", call.url.rpartition("/")[2])


def compiled(packages: Path, directory: Path, lines: list[str]) -> str:
    """Return what the compiler says of a module that may use the packages."""
    (directory / "node_modules").symlink_to(packages)
    (directory / "calls.ts").write_text(HEAD + "\n".join(lines))
    command = [str(packages / ".bin" / "tsc"), *STRICT, "calls.ts"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False).stdout


def test_the_compiler_finds_every_call_of_the_types_its_platform_has(tmp_path: Path) -> None:
    """A field that is missing, misspelt or of another kind is an error of the compiler, as a planted one shows."""
    found = {(type_of(name, call), call.body.decode()) for name in TYPES for call in calls(name)}
    assert {kind for kinds in TYPES.values() for kind in kinds.values() if "METHOD" not in kind} <= dict(found).keys()
    lines = [f"export const call{number}: {kind} = {body};" for number, (kind, body) in enumerate(sorted(found))]
    planted = 'export const planted: Line.PushMessageRequest = {"to":"a","messages":[{"type":"text","txt":"b"}]};'
    said = compiled(installed("node") / "node_modules", tmp_path, [*lines, planted])
    problems = [line for line in said.splitlines() if "error" in line]
    assert len(problems) == 1, said
    assert "txt" in problems[0]
