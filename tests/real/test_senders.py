"""What libraries of bots sign, build and read: Svix, slack_bolt, pywa, discord.py and mautrix as the other side."""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from gateway.platforms.port import Adapter, Kind, WebhookRequest
from gateway.platforms.slack import Slack
from gateway.platforms.standard import Standard
from gateway.platforms.whatsapp import WhatsApp
from loadtests.gateway_process import GatewayProcess
from loadtests.platform import running_platform
from loadtests.signing import sign_slack, sign_standard
from shared.errors import SignatureRejected
from shared.platform_settings import SlackSettings, StandardSettings, WhatsAppSettings
from tests.gateway.platforms.fixtures import discord, matrix, slack, whatsapp
from tests.gateway.platforms.test_conformance import only, reply_to
from tests.real.foreign import SCRIPTS, installed

QUESTION = "0123456789abcdef"
SECRETS = {"svix": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "slack": slack.SECRET, "whatsapp": whatsapp.SECRET}
ADAPTERS: dict[str, Adapter] = {
    "svix": Standard(StandardSettings(SECRETS["svix"], "http://127.0.0.1:9/replies")),
    "slack": Slack(SlackSettings(SECRETS["slack"], "xoxb-token", "http://127.0.0.1:9")),
    "whatsapp": WhatsApp(
        WhatsAppSettings(SECRETS["whatsapp"], "token", "token", whatsapp.NUMBER, "http://127.0.0.1:9")
    ),
}
BODIES = {
    "svix": '{"session":"svix","user":"ana","text":"hi 👋"}',
    "slack": slack.envelope(text="hi 👋", channel_type="im").decode(),
    "whatsapp": whatsapp.webhook(whatsapp.message("hi 👋")).decode(),
}


def genuine(kind: str, now: float) -> dict[str, str]:
    """Return the headers of a request that is authentic at a moment."""
    body = BODIES[kind].encode()
    if kind == "svix":
        return dict(sign_standard(SECRETS["svix"], "msg_1", body, now).headers)
    return (
        dict(sign_slack(SECRETS["slack"], body, now).headers) if kind == "slack" else dict(whatsapp.sign(body).headers)
    )


def judged(now: float) -> list[tuple[str, dict[str, str], str]]:
    """Return requests to be judged: authentic ones, under Svix' own names too, and each with something changed."""
    pick, found = random.Random(11), list[tuple[str, dict[str, str], str]]()
    for kind, body in BODIES.items():
        headers = {name.lower(): value for name, value in genuine(kind, now).items()}
        found.append((kind, headers, body))
        found += [(kind, headers, body[:at] + "X" + body[at + 1 :]) for at in pick.sample(range(len(body)), 20)]
        for name, value in headers.items():
            if "signature" not in name and "timestamp" not in name and not name.endswith("-id"):
                continue
            found.append((kind, {one: text for one, text in headers.items() if one != name}, body))
            cut = pick.randrange(1, len(value))
            # no zero before a time and nothing behind a signature: Svix reads both as if they were not there
            changes = ["", value[:cut], "z" + value, value.swapcase(), "v1,", "sha256=", "v0=", value[1:], "é"]
            found += [(kind, {**headers, name: text}, body) for text in changes]
    svix = {name.replace("webhook-", "svix-"): text for name, text in genuine("svix", now).items()}
    return [*found, ("svix", svix, BODIES["svix"]), ("svix", {**svix, "svix-id": "msg_2"}, BODIES["svix"])]


def accepts(kind: str, headers: dict[str, str], body: str, now: float) -> bool:
    try:
        ADAPTERS[kind].verify(WebhookRequest("POST", headers, body.encode(), now))
    except SignatureRejected:
        return False
    return True


def contents(now: float) -> list[dict[str, Any]]:
    """Return what the Matrix adapter posts: a text, one in a thread, an answer that quotes, and an edit."""
    platform = matrix.fixture()
    threaded = {"m.relates_to": {"rel_type": "m.thread", "event_id": "$root"}}
    place = only(platform, matrix.transaction(matrix.event("hi"))).reply
    thread = only(platform, matrix.transaction(matrix.event("hi", content=threaded))).reply
    quoted = only(platform, matrix.transaction(matrix.event(f"{matrix.BOT} hi"))).reply
    places = [place, thread, quoted, platform.adapter.placed(place, "$9")]
    return [json.loads(platform.adapter.call(reply_to(platform, "<b>bold</b>", at), now).body) for at in places]


@pytest.fixture(scope="module")
def libraries() -> dict[str, Any]:
    """What the libraries answer to all that they are asked."""
    now = time.time()  # when the first of them is tried: what is signed is good for minutes
    reply = ADAPTERS["svix"].call(reply_of_standard(now), now)
    asked = {
        "secrets": SECRETS,
        "now": now,
        "bodies": BODIES,
        "contents": contents(now),
        "judged": [(kind, SECRETS[kind], headers, body) for kind, headers, body in judged(now)]
        + [("svix", SECRETS["svix"], dict(reply.headers), reply.body.decode())],
    }
    command = [str(installed("senders") / "bin" / "python"), str(SCRIPTS / "senders.py")]
    ended = subprocess.run(command, input=json.dumps(asked), check=True, capture_output=True, text=True, timeout=120)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found | {"now": now}


def reply_of_standard(now: float) -> Any:
    request = WebhookRequest("POST", genuine("svix", now), BODIES["svix"].encode(), now)
    (inbound,) = ADAPTERS["svix"].parse(request).inbound
    reply = reply_to(whatsapp.fixture(), "hi 👋")
    return msgspec.structs.replace(reply, address=inbound.reply, platform="standard")


def test_our_verdict_is_that_of_svix_slack_bolt_and_pywa(libraries: dict[str, Any]) -> None:
    """On authentic requests and on what is left of them once anything is changed; Svix takes our replies."""
    *verdicts, ours = libraries["verdicts"]
    now = libraries["now"]
    cases = judged(now)
    differ = [case for case, theirs in zip(cases, verdicts, strict=True) if accepts(*case, now) != theirs]
    assert differ == []
    assert {kind for (kind, _, _), good in zip(cases, verdicts, strict=True) if good} == set(BODIES)
    assert ours


def test_what_svix_and_slack_sign_is_answered_by_a_gateway(tmp_path: Path, libraries: dict[str, Any]) -> None:
    """A real process, and the signatures that their own code makes, under both sets of Svix' names."""
    stamp = str(int(libraries["now"]))
    with running_platform() as platform:
        settings = platform.environment()
        settings |= {"STANDARD_WEBHOOK_SECRET": SECRETS["svix"], "SLACK_SIGNING_SECRET": SECRETS["slack"]}
        with GatewayProcess(tmp_path, settings) as gateway, httpx2.Client(timeout=30) as client:
            for prefix in ("svix", "webhook"):
                headers = {f"{prefix}-id": "msg_1", f"{prefix}-timestamp": stamp}
                headers[f"{prefix}-signature"] = libraries["signed"]["svix"]
                url = gateway.url + "/webhooks/standard"
                answer = client.post(url, content=BODIES["svix"].encode(), headers=headers)
                assert answer.status_code == 200, answer.text
            headers = {"x-slack-request-timestamp": stamp, "x-slack-signature": libraries["signed"]["slack"]}
            headers["content-type"] = "application/json"
            url = gateway.url + "/webhooks/slack"
            assert client.post(url, content=BODIES["slack"].encode(), headers=headers).status_code == 200
            platform.wait(1, "slack", within_s=60)
            assert len(platform.received("slack")) == 1


def test_pywa_posts_the_same_to_whatsapp(libraries: dict[str, Any]) -> None:
    """An answer, one to a business-scoped id, one to a group, a question with its buttons, and a life sign."""
    platform, phone = whatsapp.fixture(), "15551234567"
    contact = {"profile": {"name": "Ana"}, "wa_id": phone, "user_id": "US.13491208655302741918"}
    body = whatsapp.webhook(whatsapp.message("hi", **{"from": phone}), contacts=[contact])
    hidden = {**contact, "wa_id": ""}
    nameless = whatsapp.message("hi", from_user_id=contact["user_id"])
    del nameless["from"]
    group = "Y2FwaV9ncm91cDoxOTUwNTU1MDA3OToxMjAzNjMzOTQz"
    grouped = whatsapp.webhook(whatsapp.message("hi", group_id=group, **{"from": phone}), contacts=[contact])

    def posted(text: str, request: bytes, *, part: int = 0, question: str = "") -> Any:
        reply = reply_to(platform, text, only(platform, request).reply, part)
        return json.loads(
            platform.adapter.call(msgspec.structs.replace(reply, question=question), libraries["now"]).body
        )

    sign = platform.adapter.life_sign(only(platform, body).reply, "")
    assert sign is not None
    assert libraries["whatsapp"] == {
        "answer": posted("hi", body),
        "by user id": posted("hi", whatsapp.webhook(nameless, contacts=[hidden])),
        "group": posted("hi", grouped, part=1),
        "question": posted("May I?", body, question=QUESTION),
        "life sign": json.loads(sign.body),
    }


def test_discord_py_posts_the_same_question(libraries: dict[str, Any]) -> None:
    """But for the fields whose default it writes out, and the nonce, which is of our making."""
    platform = discord.fixture()
    reply = msgspec.structs.replace(reply_to(platform, "May I?"), question=QUESTION)
    ours = json.loads(platform.adapter.call(reply, libraries["now"] + 1e6).body)
    theirs = libraries["discord"]
    assert theirs.pop("tts") is False
    for button in theirs["components"][0]["components"]:
        assert button.pop("disabled") is False
    assert ours == {**theirs, "nonce": ours["nonce"]}


def test_mautrix_and_the_adapter_of_matrix_read_each_other(libraries: dict[str, Any]) -> None:
    """Markup, threads and edits, both ways."""
    assert libraries["read"] == [
        ["bold", "<b>bold</b>", None, None, None],
        ["bold", "<b>bold</b>", "$root", "$1", None],
        ["bold", "<b>bold</b>", None, "$1", None],
        ["* bold", "<b>bold</b>", None, None, "$9"],
    ]
    platform = matrix.fixture()
    events = [matrix.event("", event_id="$2", content=content) for content in libraries["matrix"].values()]
    found = [only(platform, matrix.transaction(event)) for event in events]
    assert [(one.kind, one.text, one.threaded, one.amends) for one in found] == [
        (Kind.MESSAGE, "bold", False, ""),
        (Kind.MESSAGE, "in it", True, ""),
        (Kind.EDIT, "new", False, "matrix:$1"),
    ]
