"""Images in requests: in each provider's form, the latest ones, or as a note."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest

from shared.attachments import Attachment, attach
from worker.agent.attachments import AttachmentCache, with_attachments
from worker.agent.context import transcript
from worker.agent.models import images
from worker.agent.models.anthropic_blocks import BlockConverter
from worker.agent.models.images import Parts, anthropic_parts, openai_parts, shown_messages
from worker.tools.spec import ToolCall

CAT, DOG = attach("cat.png", "image/png", b"cat"), attach("dog.jpg", "image/jpeg", b"dog")
DATA = {CAT.digest: b"cat", DOG.digest: b"dog"}
CALL, OTHER = ToolCall("c1", "draw", "{}"), ToolCall("c2", "other", "{}")


def asked(text: str, *attachments: Attachment) -> bytes:
    return with_attachments(transcript.user(text), attachments)


def shown(messages: Sequence[bytes], parts: Parts | None, data: dict[str, bytes] = DATA) -> list[dict[str, Any]]:
    return [json.loads(message) for message in shown_messages(messages, data, parts)]


def test_openai_is_given_images_as_data_urls_behind_the_text() -> None:
    (message,) = shown([asked("which?", CAT, DOG)], openai_parts)
    text, cat, dog = message["content"]
    assert text == {"type": "text", "text": "which?"}
    assert cat["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(b"cat").decode()
    assert dog["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert "attachments" not in message


def test_anthropic_is_given_images_as_blocks_also_inside_results() -> None:
    call = transcript.assistant("", [CALL])
    result = with_attachments(transcript.tool(CALL, "drawn"), [CAT])
    messages = shown_messages([asked("", DOG), call, result], DATA, anthropic_parts)
    _, body, _ = BlockConverter().system_and_messages("", messages)
    first, _, last = json.loads(body)
    assert first["content"][0]["source"] == {
        "type": "base64",
        "media_type": "image/jpeg",
        "data": base64.b64encode(b"dog").decode(),
    }
    (block,) = last["content"]
    assert (block["type"], [part["type"] for part in block["content"]]) == ("tool_result", ["image", "text"])


def test_images_of_results_follow_the_last_result_where_a_result_can_have_none() -> None:
    call = transcript.assistant("", [CALL, OTHER])
    results = [with_attachments(transcript.tool(CALL, "drawn"), [CAT]), transcript.tool(OTHER, "done")]
    messages = shown([asked("draw"), call, *results, transcript.assistant("there")], openai_parts)
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "user", "assistant"]
    assert messages[2]["content"] == "drawn"
    assert messages[4]["content"][0]["text"] == "[images that draw returned]"


def test_a_model_without_eyes_and_an_image_that_is_gone_are_told_in_words() -> None:
    (message,) = shown([asked("which?", CAT)], None)
    assert message["content"] == "which?\n[image cat.png, image/png, 3 bytes: this model cannot see images]"
    (message,) = shown([asked("which?", CAT)], openai_parts, {})
    assert message["content"] == "which?\n[image cat.png, image/png, 3 bytes: it is not shown any more]"


def test_the_latest_images_are_shown_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "IMAGES_LIMIT", 1)
    old, new = shown([asked("old", CAT), asked("new", DOG)], openai_parts)
    assert "not shown any more" in old["content"]
    assert new["content"][1]["type"] == "image_url"


def test_the_cache_holds_what_was_used_last_within_its_size() -> None:
    cache = AttachmentCache(limit_bytes=8)
    cache.put("s", "a", b"aaaa")
    cache.put("s", "b", b"bbbb")
    assert cache.get("s", "a") == b"aaaa"
    cache.put("t", "c", b"cccc")
    assert (cache.get("s", "b"), cache.get("s", "a"), cache.get("t", "c")) == (None, b"aaaa", b"cccc")
    cache.forget("s")
    assert (cache.get("s", "a"), cache.get("t", "c")) == (None, b"cccc")
