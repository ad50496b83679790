"""Files that people send and tools return: images reach the model, also after a restart, and text is read."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from loadtests.loopback import Loopback
from loadtests.platform import RunningPlatform
from loadtests.provider import RunningProvider
from tests.e2e.bot import Bot
from tests.e2e.conftest import started

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


async def picture(request: Request) -> Response:
    """Serve a picture under a type that is none, or what a path says."""
    match request.url.path:
        case "/moved":
            return RedirectResponse("/dot.png")
        case "/inside":
            return RedirectResponse("http://127.0.0.1:9/dot.png")
        case "/dot.png":
            return Response(PNG, media_type="application/octet-stream")
        case "/page":
            return Response("<html>", media_type="image/png")
        case _:
            return Response(status_code=404)


def shown(url: str) -> Any:
    return [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}]


def test_linked_pictures_are_fetched_once_and_shown_and_private_ones_are_refused_by_name(
    tmp_path: Path, platform: RunningPlatform, provider: RunningProvider
) -> None:
    pictures = Loopback(Starlette(routes=[Route("/{path:path}", picture)]))
    listed = pictures.url.removeprefix("http://")
    with (
        pictures.in_thread(),
        started(tmp_path, platform, provider, GATEHOUSE_FETCH_ALLOW=listed, GATEHOUSE_API_KEYS="k") as bot,
    ):
        client = openai.OpenAI(base_url=f"{bot.gateway.url}/v1", api_key="k", max_retries=0)
        with client:
            first: Any = {"role": "user", "content": shown(pictures.url + "/moved")}
            client.chat.completions.create(model="gatehouse", messages=[first])
            assert last_messages(provider)[-1]["content"][1:] == [SHOWN]
            again: Any = [first, {"role": "assistant", "content": "a dot"}, {"role": "user", "content": "sure?"}]
            client.chat.completions.create(model="gatehouse", messages=again)
            assert [one["content"][1:] for one in last_messages(provider) if one["role"] == "user"][:1] == [[SHOWN]]
            said: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": pictures.url + "/dot.png"}]}]
            client.responses.create(model="gatehouse", input=said)
            assert last_messages(provider)[-1]["content"] == [SHOWN]
            calls = provider.calls
            for path, word in (("/gone", "404"), ("/page", "no PNG"), ("/inside", "127.0.0.1")):
                unseen: Any = {"role": "user", "content": shown(pictures.url + path)}
                with pytest.raises(openai.BadRequestError, match=word) as refused:
                    client.chat.completions.create(model="gatehouse", messages=[unseen])
                assert refused.value.param == "messages.0.content.1.image_url.url"
            assert provider.calls == calls
        send(bot, "cleo", "look", {"name": "dot.png", "url": pictures.url + "/dot.png"})
        assert last_messages(provider)[-1]["content"][1:] == [SHOWN]
        send(bot, "dora", "look", {"name": "dot.png", "url": "http://169.254.169.254/dot.png"})
        assert "[file dot.png: not read, 169.254.169.254 is an address of a private network" in str(
            last_messages(provider)[-1]["content"]
        )
