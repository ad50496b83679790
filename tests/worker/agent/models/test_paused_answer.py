"""Answers of Anthropic's wire that pause: what came goes back, and the model goes on with it."""

from __future__ import annotations

import ssl
from typing import Any

import msgspec
import pytest

from tests.worker.agent.models.conftest import asking
from tests.worker.agent.models.raw_server import Plan, raw_server
from worker.agent.context import transcript
from worker.agent.models import open_link
from worker.agent.models.failures import EmptyAnswer
from worker.agent.models.paused_answer import MOST_CONTINUED
from worker.frames import ModelSpec


def paused(*blocks: dict[str, Any], reason: str = "pause_turn", container: str = "", whole: bool = False) -> Plan:
    """Return an answer of Anthropic's wire, streamed as it streams them where it is not to be ``whole``."""
    told = {"container": {"id": container, "expires_at": "2999-01-01T00:00:00Z"}} if container else {}
    usage = {"input_tokens": 10, "output_tokens": 5}
    if whole:
        message = {"type": "message", "role": "assistant", "content": blocks, "stop_reason": reason, "usage": usage}
        return Plan(msgspec.json.encode(message | told), content_type="application/json")
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"role": "assistant", "content": [], "usage": usage}}
    ]
    for index, block in enumerate(blocks):
        start, deltas = dict(block), list[dict[str, Any]]()
        if "text" in block:
            start |= {"text": ""}
            deltas.append({"type": "text_delta", "text": block["text"]})
            cited = start.pop("citations", ())
            deltas += [{"type": "citations_delta", "citation": citation} for citation in cited]
        if "input" in block:
            start |= {"input": {}}
            given = msgspec.json.encode(block["input"]).decode()
            deltas += [{"type": "input_json_delta", "partial_json": piece} for piece in (given[:3], given[3:])]
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    ended = {"type": "message_delta", "delta": {"stop_reason": reason} | told, "usage": usage}
    events += [ended, {"type": "message_stop"}]
    return Plan(b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events))


def unmarked(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return blocks without the marks of the prompt cache."""
    return [{name: value for name, value in block.items() if name != "cache_control"} for block in content]


def searching(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a search that the provider makes itself, and its result."""
    call = {"type": "server_tool_use", "id": f"srvtoolu_{number}", "name": "web_search", "input": {"query": "dice"}}
    found = [{"type": "web_search_result", "url": "https://example.com", "encrypted_content": "Eq"}]
    return call, {"type": "web_search_tool_result", "tool_use_id": f"srvtoolu_{number}", "content": found}


@pytest.mark.parametrize("whole", [False, True])
async def test_a_paused_answer_goes_back_as_it_came_until_it_ends(tls: ssl.SSLContext, *, whole: bool) -> None:
    (first, found), (second, found_again) = searching(1), searching(2)
    cited = {"type": "text", "text": "A die", "citations": [{"type": "web_search_result_location", "url": "u"}]}
    plans = (
        paused({"type": "text", "text": "I look. "}, first, container="container_1", whole=whole),
        paused(found, cited, second, whole=whole),
        paused(found_again, {"type": "text", "text": " has six sides."}, reason="end_turn", whole=whole),
    )
    heard: list[str] = []
    async with raw_server(*plans) as server:
        link = open_link(ModelSpec("anthropic", "m", "k", server.url), tls)
        reply = await link.call(asking("What is a die?"), heard.append)
        assert (reply.text, reply.finish) == ("I look. A die has six sides.", "stop")
        assert "".join(heard) == reply.text
        assert (reply.usage.model_calls, reply.usage.input_tokens, reply.usage.output_tokens) == (3, 30, 15)
        _, once, twice = [msgspec.json.decode(body) for body in server.bodies]
        opening = {"type": "text", "text": "I look. "}
        assert [message["role"] for message in twice["messages"]] == ["user", "assistant"]
        assert unmarked(once["messages"][-1]["content"]) == [opening, first]
        assert unmarked(twice["messages"][-1]["content"]) == [opening, first, found, cited, second]
        assert (once["container"], twice["container"]) == ("container_1", "container_1")
        # the next question of the conversation finds it all, in one answer
        told = transcript.assistant(reply.text, (), reply.state)
        asked = msgspec.structs.replace(asking("And two?"), messages=[told, transcript.user("And two?")])
        await link.call(asked)
        sent = msgspec.json.decode(server.bodies[-1])
        kinds = [block["type"] for block in sent["messages"][-2]["content"]]
        call, result = "server_tool_use", "web_search_tool_result"
        assert kinds == ["text", call, result, "text", call, result, "text"]
        assert sent["container"] == "container_1"
        await link.close()


async def test_a_call_of_ours_ends_the_pauses_and_goes_back_with_them(tls: ssl.SSLContext) -> None:
    call, found = searching(1)
    use = {"type": "tool_use", "id": "toolu_1", "name": "roll", "input": {"sides": 6}}
    async with raw_server(paused(call), paused(found, reason="compaction"), paused(use, reason="tool_use")) as server:
        link = open_link(ModelSpec("anthropic", "m", "k", server.url), tls)
        reply = await link.call(asking("Roll."))
        assert [one.name for one in reply.tool_calls] == ["roll"]
        assert reply.finish == "tool_calls"
        told = transcript.assistant("", reply.tool_calls, reply.state)
        result = transcript.tool(reply.tool_calls[0], "4")
        await link.call(msgspec.structs.replace(asking(""), messages=[transcript.user("Roll."), told, result]))
        sent = msgspec.json.decode(server.bodies[-1])["messages"]
        assert unmarked(sent[1]["content"]) == [call, found, use]
        await link.close()


async def test_an_answer_that_pauses_for_ever_is_ended_and_holds_no_open_call(tls: ssl.SSLContext) -> None:
    call, _ = searching(1)
    silent = paused(call)
    speaking = paused({"type": "text", "text": "Still looking. "}, call)
    async with raw_server(speaking, silent) as server:
        link = open_link(ModelSpec("anthropic", "m", "k", server.url), tls)
        reply = await link.call(asking("Look."))
        assert (reply.text, reply.finish) == ("Still looking. ", "length")
        assert b"server_tool_use" not in reply.state
        assert len(server.bodies) == MOST_CONTINUED + 1
        server.plans = [silent]
        with pytest.raises(EmptyAnswer, match="paused"):
            await link.call(asking("Look."))
        await link.close()
