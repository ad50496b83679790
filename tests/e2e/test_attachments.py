"""Files that people send and tools return: images reach the model, also after a restart, and text is read."""

from __future__ import annotations

import base64
import json
from typing import Any

from loadtests.provider import RunningProvider
from tests.e2e.bot import Bot

#: a whole PNG of one pixel
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SHOWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(PNG).decode()}}


def send(bot: Bot, session: str, text: str, *files: dict[str, str]) -> None:
    body = {"session": session, "user": "someone", "text": text, "files": files}
    before = len(bot.replies(session))
    assert bot.post(bot.signed(json.dumps(body).encode())).status_code == 200
    bot.wait_until(lambda: len(bot.replies(session)) > before, 20, f"a reply in {session}")


def last_messages(provider: RunningProvider) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = provider.requests[-1].json()["messages"]
    return messages


def encoded(name: str, data: bytes) -> dict[str, str]:
    return {"name": name, "data": base64.b64encode(data).decode()}


def test_files_reach_the_model_and_images_are_seen_again_after_a_restart(
    model_bot: Bot, provider: RunningProvider
) -> None:
    send(model_bot, "ana", "look", encoded("dot.png", PNG), encoded("a.csv", b"x,y"), encoded("b.bin", b"\x00\xff"))
    *_, asked = last_messages(provider)
    assert asked["content"][1:] == [SHOWN]
    text = asked["content"][0]["text"]
    assert text.startswith("look\n\n[file a.csv]\nx,y\n[end of file a.csv]")
    assert "[file b.bin: not read, a file of type unknown cannot be read here]" in text
    model_bot.gateway.kill_tree()
    model_bot.gateway.start()
    send(model_bot, "ana", "and now?")
    seen = [message for message in last_messages(provider) if isinstance(message["content"], list)]
    assert [message["content"][1:] for message in seen] == [[SHOWN]]


def test_an_image_that_a_tool_returns_is_shown_to_the_model(model_bot: Bot, provider: RunningProvider) -> None:
    send(model_bot, "bob", f"[[tool draw {json.dumps({'data': base64.b64encode(PNG).decode()})}]]")
    *_, result, _, images = last_messages(provider)  # between them the assistant has to say something
    assert (result["role"], result["content"]) == ("tool", "drawn")
    assert (images["role"], images["content"][1:]) == ("user", [SHOWN])
