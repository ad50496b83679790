"""What goes out to a server, and what is learned from its refusals, its closed connections and its queue."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.worker.agent.models.conftest import ROLL
from tests.worker.agent.models.raw_server import Plan, RawServer, raw_server
from worker.agent.context import transcript
from worker.agent.models import open_link
from worker.agent.models.answer_text import AnswerText
from worker.agent.models.chain import Chain
from worker.agent.models.failures import RequestRefused
from worker.agent.models.openai_messages import as_sent
from worker.agent.models.port import CallWatch, ModelRequest
from worker.frames import ModelSpec
from worker.tools.spec import ToolCall

OK = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"fine"},"finish_reason":"stop"}]}'
WHOLE = {
    "type": "message", "role": "assistant", "content": [{"type": "text", "text": "fine"}], "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 1}, "id": "m", "model": "m",
}  # fmt: skip
FINE = Plan(OK, content_type="application/json")
CALL = ToolCall("call_1", "roll", '{"sides":6}')


def refusing(words: str, status: int = 400) -> Plan:
    return Plan(words.encode(), status, "application/json")


class Client:
    """One model of a raw server, and what was said of it."""

    def __init__(self, server: RawServer, tls: ssl.SSLContext, wire: str = "openai", **spec: Any) -> None:
        self.said: list[str] = []
        url = f"{server.url}/v1" if wire == "openai" else server.url
        folder: Path | None = spec.pop("folder", None)
        stall_s: float = spec.pop("stall_s", 0.5)
        self.link = open_link(ModelSpec(wire, "m", "k", url, **spec), tls, self._say, folder)
        self.chain = Chain([self.link], self._say, stall_timeout_s=stall_s)

    def _say(self, event: Any, **fields: Any) -> None:
        self.said.append(f"{event.value}: {fields['problem']}")

    async def ask(self, *messages: bytes, **fields: Any) -> str:
        request = ModelRequest("Be brief.", messages or (transcript.user("hi"),), (ROLL,), "s", **fields)
        return (await self.chain.reply(request, timeout=20)).text


async def asked(server: RawServer, tls: ssl.SSLContext, times: int = 1, **spec: Any) -> tuple[list[Any], list[str]]:
    """Ask so many times; return the requests, and what was said."""
    client = Client(server, tls, **spec)
    for _ in range(times):
        assert await client.ask() == "fine"
    await client.chain.close()
    return [msgspec.json.decode(body) for body in server.bodies], client.said


@pytest.mark.parametrize(
    ("words", "without", "instead"),
    [
        (
            """{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use """
            """'max_completion_tokens' instead.","param":"max_tokens","code":"unsupported_parameter"}}""",
            "max_tokens",
            "max_completion_tokens",
        ),
        ('{"error":{"message":"Unrecognized request argument supplied: stream_options"}}', "stream_options", ""),
        (
            '{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"extra input"}]}',
            "stream_options",
            "",
        ),
        (
            """{"error":{"message":"Unsupported value: 'temperature' does not support 0.2 with this model. Only the """
            """default (1) value is supported.","param":"temperature"}}""",
            "temperature",
            "",
        ),
        ('{"error":"registry.ollama.ai/library/m does not support tools"}', "tools", ""),
        ('{"error":{"message":"top_k: Extra inputs are not permitted"}}', "top_k", ""),
    ],
)
async def test_a_refused_field_is_left_out_or_renamed_once_and_remembered(
    tls: ssl.SSLContext, words: str, without: str, instead: str
) -> None:
    async with raw_server() as server:
        server.decide = lambda body: refusing(words) if f'"{without}":'.encode() in body else FINE
        requests, said = await asked(server, tls, 3, temperature=0.2, extra_body=b'{"top_k":5}')
    assert [without in request for request in requests] == [True, False, False, False]
    assert all(instead in request for request in requests[1:]) or not instead
    assert len(said) == 1
    assert said[0].startswith("model_adapted: ")


async def test_a_field_that_a_caller_asked_for_is_refused_to_it_and_dropped_for_nobody(tls: ssl.SSLContext) -> None:
    words = '{"error":{"message":"Unsupported parameter: temperature","param":"temperature"}}'
    async with raw_server() as server:
        server.decide = lambda body: refusing(words) if b'"temperature":0.9' in body else FINE
        client = Client(server, tls, temperature=0.2)
        with pytest.raises(RequestRefused, match="temperature"):
            await client.ask(options={"temperature": 0.9})
        assert await client.ask() == "fine"
        await client.chain.close()
    assert [msgspec.json.decode(body)["temperature"] for body in server.bodies] == [0.9, 0.2]


async def test_a_server_without_the_system_role_gets_it_as_the_users_words(tls: ssl.SSLContext) -> None:
    async with raw_server() as server:
        server.decide = lambda body: refusing('{"error":"System role not supported"}') if b'"system"' in body else FINE
        requests, _ = await asked(server, tls)
    assert requests[-1]["messages"] == [{"role": "user", "content": "Be brief.\n\nhi"}]


async def test_a_limit_that_a_server_names_is_kept_to(tls: ssl.SSLContext) -> None:
    words = '{"error":{"message":"max_tokens is too large: 4096. This model supports at most 2048 completion tokens"}}'
    async with raw_server(refusing(words), FINE) as server:
        requests, _ = await asked(server, tls, 2)
    assert [request["max_tokens"] for request in requests] == [4096, 2048, 2048]


async def test_an_answer_is_made_shorter_where_only_that_makes_it_fit(tls: ssl.SSLContext) -> None:
    words = (
        "'max_tokens' is too large: 4096. This model's maximum context length is 4096 tokens and your request has "
        "96 input tokens (4096 > 4096 - 96)."
    )
    async with raw_server(refusing(words), FINE) as server:
        requests, _ = await asked(server, tls)
    assert requests[1]["max_tokens"] == 4096 - 96 - 16


async def test_what_no_field_explains_is_a_refusal_and_costs_one_call(tls: ssl.SSLContext) -> None:
    async with raw_server(refusing('{"error":{"message":"Invalid schema for function"}}')) as server:
        client = Client(server, tls)
        with pytest.raises(RequestRefused):
            await client.ask()
        assert len(server.bodies) == 1
        await client.chain.close()


def roles(*messages: bytes, **takes: bool) -> list[str]:
    sent, _ = as_sent("Be brief.", messages, "m", **takes)
    return [msgspec.json.decode(message)["role"] for message in sent]


def test_what_goes_out_alternates_and_has_one_system_message() -> None:
    user, tool, answer = transcript.user("a"), transcript.tool(CALL, "4"), transcript.assistant("b")
    system = msgspec.json.encode({"role": "system", "content": "more"})
    called = transcript.assistant("", [CALL])
    assert roles(system, system, user, user, called, tool, user, answer, answer, system, user) == [
        "system", "user", "assistant", "tool", "assistant", "user", "assistant", "user"
    ]  # fmt: skip
    assert roles(answer, user) == ["system", "user", "assistant", "user"]
    assert roles(system, user, called, tool, tool, takes_system=False) == ["user", "assistant", "tool", "tool"]


def test_a_half_character_of_an_old_message_goes_out_whole() -> None:
    sent, _ = as_sent("", [b'{"role":"user","content":"a\\ud83d\\ude00 b\\ud83d"}'], "m")
    assert msgspec.json.decode(sent[0])["content"] == "a😀 b\ufffd"


OPENAI_STATE = b"""data: {"choices":[{"index":0,"delta":{"reasoning_content":"hm",\
"tool_calls":[{"index":0,"id":"call_1","function":{"name":"roll","arguments":"{}"},\
"extra_content":{"google":{"thought_signature":"AAAA"}}}]},\
"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n"""
ANTHROPIC_STATE = b"""data: {"type":"message","content":[{"type":"thinking","thinking":"hm","signature":"EqQB"},\
{"type":"text","text":"I roll."},{"type":"tool_use","id":"call_1","name":"roll","input":{}}],"stop_reason":"tool_use",\
"usage":{"input_tokens":1,"output_tokens":1}}\n\n"""


@pytest.mark.parametrize(
    ("wire", "stream", "opaque"),
    [("openai", OPENAI_STATE, (b"hm", b"AAAA")), ("anthropic", ANTHROPIC_STATE, (b'"hm"', b"EqQB"))],
)
async def test_what_a_provider_wants_back_goes_to_the_model_it_came_from_and_to_no_other(
    tls: ssl.SSLContext, wire: str, stream: bytes, opaque: tuple[bytes, ...]
) -> None:
    async with raw_server(Plan(stream)) as server:
        client, other = Client(server, tls, wire), Client(server, tls, wire, section="other")
        crossing = Client(server, tls, "anthropic" if wire == "openai" else "openai")
        first = [transcript.user("roll")]
        reply = await client.link.call(ModelRequest("", first, (ROLL,)))
        said = transcript.assistant(reply.text, reply.tool_calls, reply.state)
        after = [*first, said, transcript.tool(reply.tool_calls[0], "4")]
        for one in (client, other, crossing):
            request = ModelRequest("", after, (ROLL,))
            body: bytes = one.link.body(request)  # type: ignore[attr-defined]
            assert [word in body for word in opaque] == [one is client] * len(opaque)
            assert b"provider_state" not in body
            await one.chain.close()


async def test_a_kept_connection_that_was_closed_is_opened_anew_in_silence(tls: ssl.SSLContext) -> None:
    async with raw_server(Plan(OK, content_type="application/json", closes=True)) as server:
        client = Client(server, tls)
        for _ in range(6):
            assert await client.ask() == "fine"
            await asyncio.sleep(0)  # back to back: the server hangs up while the next one is sent
        assert len(server.bodies) == 6
        assert client.said == []
        await client.chain.close()


class Queue(RawServer):
    """A server with so many places; calls wait for one without a byte."""

    def __init__(self, places: int, busy_s: float) -> None:
        super().__init__(FINE)
        self._places = asyncio.Semaphore(places)
        self._busy_s = busy_s
        self.most = 0
        self.running = 0

    async def _answer(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        async with self._places:
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(self._busy_s)
            self.running -= 1
            return await super()._answer(writer, body)


async def test_a_place_in_a_servers_queue_is_no_stall_while_others_are_answered(tls: ssl.SSLContext) -> None:
    server = Queue(1, 0.4)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening:
        client = Client(server, tls, stall_s=1.5)  # the last call waits for 2.8 s
        assert await asyncio.gather(*(client.ask() for _ in range(8))) == ["fine"] * 8
        assert (len(server.bodies), client.said) == (8, [])
        await client.chain.close()


async def test_no_more_calls_at_once_than_a_server_takes_in_all_processes(tls: ssl.SSLContext, tmp_path: Path) -> None:
    server = Queue(100, 0.05)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening:
        # two clients are two workers: each knows of the other by the files of their folder alone
        clients = [Client(server, tls, parallel=2, folder=tmp_path / "servers") for _ in range(2)]
        assert await asyncio.gather(*(one.ask() for one in clients for _ in range(6))) == ["fine"] * 12
        assert server.most == 2
        for client in clients:
            await client.chain.close()


@pytest.mark.parametrize(("told", "slots"), [(b'{"total_slots": 2}', 2), (b"File Not Found", None), (b"[1]", None)])
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_the_slots_of_a_llama_cpp_server_are_learned_from_itself_once(
    tls: ssl.SSLContext, wire: str, told: bytes, slots: int | None
) -> None:
    body = OK if wire == "openai" else msgspec.json.encode(WHOLE)
    fine = Plan(body, content_type="application/json", server="llama.cpp")
    async with raw_server() as server:
        server.decide = lambda body: fine if body else Plan(told, 200 if slots else 404, "application/json")
        client = Client(server, tls, wire)
        assert [await client.ask() for _ in range(3)] == ["fine"] * 3
        assert server.bodies.count(b"") == 1
        assert client.link._server.parallel == slots  # type: ignore[attr-defined]
        assert len(client.said) == bool(slots)
        await client.chain.close()


@pytest.mark.parametrize(
    ("pieces", "seen"),
    [
        (["<think>\nhm\n</think>\n\nFour."], "Four."),
        (["<th", "ink>h", "m</thi", "nk>Four."], "Four."),
        (["thoughts of a template\n</think>\n\nFour."], "Four."),
        (["Write `<think>` first, then `</think>`."], "Write `<think>` first, then `</think>`."),
        (["```\n<think>\n```\nis code"], "```\n<think>\n```\nis code"),
        (["One.\n<think>no</think>Two."], "One.\nTwo."),
        (["<think>never ends"], ""),
        (["a < b and", " <b"], "a < b and <b"),
        (["<thin ice"], "<thin ice"),
        (["x \ud83d", "\ude00 y\ud83d"], "x 😀 y\ufffd"),
    ],
)
def test_thoughts_in_tags_are_not_seen(pieces: list[str], seen: str) -> None:
    heard: list[str] = []

    class Watch(CallWatch):
        def restarted(self) -> None:
            heard.clear()

    text = AnswerText(heard.append, Watch())
    for piece in pieces:
        text.add(piece)
    assert text.end() == seen
    assert "".join(heard) == seen
