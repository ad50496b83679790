"""Every server's way to speak: played as it comes, in pieces of every size, cut at every byte, changed at random."""

from __future__ import annotations

import json
import ssl
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import ModelError
from tests.worker.agent.models.conftest import ROLL, asking
from tests.worker.agent.models.raw_server import Plan, RawServer, raw_server
from worker.agent.models import open_link
from worker.agent.models.anthropic import AnthropicAnswer
from worker.agent.models.breaker import BreakerPolicy
from worker.agent.models.chain import Chain, ChainPolicy
from worker.agent.models.failures import Endpoint
from worker.agent.models.openai import OpenAIAnswer
from worker.agent.models.port import ModelReply
from worker.agent.models.sse import EventDecoder
from worker.agent.models.written_calls import WrittenCalls
from worker.frames import ModelSpec

QUICK = ChainPolicy(
    first_delay_s=0.001, longest_delay_s=0.002, breaker=BreakerPolicy(first_probe_s=0.01, longest_probe_s=0.01)
)
#: calls that may be paid for, whatever a server says
MOST_CALLS = 3


class Dialect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer of a corpus, and what is meant by it."""

    name: str
    source: str
    stream: str = ""
    body: str = ""
    text: str = ""
    calls: list[tuple[str, str]] = []
    finish: str = "stop"
    error: str = ""
    #: a field of the provider state, and what it holds
    opaque: list[str] = []

    @property
    def sent(self) -> bytes:
        """What the server sends."""
        return (self.stream.lstrip("\n") or self.body).encode()

    @property
    def content_type(self) -> str:
        """How the server calls it."""
        return "application/json" if self.body else "text/event-stream"


def corpus(wire: str) -> list[Dialect]:
    """Return the answers of all files of a wire."""
    files = sorted((Path(__file__).parent / "dialects").glob(f"{wire}*.toml"))
    read = [answer for file in files for answer in tomllib.loads(file.read_text("utf-8"))["answer"]]
    return msgspec.convert(read, list[Dialect])


ANSWERS = [(wire, dialect) for wire in ("openai", "anthropic") for dialect in corpus(wire)]
NAMES = [f"{wire}: {dialect.name}" for wire, dialect in ANSWERS]
every_dialect = pytest.mark.parametrize(("wire", "dialect"), ANSWERS, ids=NAMES)


def chain_to(server: RawServer, wire: str, tls: ssl.SSLContext, said: list[Any]) -> Chain:
    url = f"{server.url}/v1" if wire == "openai" else server.url

    def say(event: Any, **fields: Any) -> None:
        said.append((event, fields))

    return Chain([open_link(ModelSpec(wire, "m", "k", url), tls, say)], say, policy=QUICK, stall_timeout_s=5)


def meant(dialect: Dialect, reply: ModelReply) -> None:
    """See that an answer was read as it is meant."""
    assert (reply.text, reply.finish) == (dialect.text, dialect.finish)
    assert [(call.name, call.arguments) for call in reply.tool_calls] == dialect.calls
    assert all(call.id for call in reply.tool_calls)
    counts = (reply.usage.input_tokens, reply.usage.output_tokens)
    assert all(0 < count < 1_000_000 for count in counts)
    if dialect.opaque:
        field, value = dialect.opaque
        assert f'"{field}"'.encode() in reply.state
        assert value.encode() in reply.state


@every_dialect
async def test_a_dialect_is_read_as_it_is_meant(wire: str, dialect: Dialect, tls: ssl.SSLContext) -> None:
    for piece_bytes in (37,) if dialect.error else (1 << 20, 1):
        plan = Plan(dialect.sent, content_type=dialect.content_type, piece_bytes=piece_bytes)
        async with raw_server(plan) as server:
            said: list[Any] = []
            chain = chain_to(server, wire, tls, said)
            heard: list[str] = []
            if dialect.error:
                with pytest.raises(ModelError) as raised:
                    await chain.reply(asking("hello"), heard.append, timeout=0.3)
                assert type(raised.value).__name__ == dialect.error
            else:
                meant(dialect, await chain.reply(asking("hello"), heard.append, timeout=20))
                assert "".join(heard) == dialect.text
                assert len(server.bodies) == 1
            await chain.close()


class Fed:
    """Feeds bytes to an answer as the transport does, without a connection."""

    def __init__(self, wire: str) -> None:
        kind = OpenAIAnswer if wire == "openai" else AnthropicAnswer
        self.answer = kind(Endpoint(wire, "m"), None, written=WrittenCalls([ROLL]))

    def all(self, sent: bytes, size: int) -> ModelReply | None:
        """Return the reply, None where what came is not whole. Raises ModelError, and ValueError for no JSON."""
        if sent.lstrip()[:1] in {b"{", b"["}:
            self.answer.take_whole(sent)
        else:
            decoder = EventDecoder()
            for start in range(0, len(sent), size):
                for event in decoder.feed(sent[start : start + size]):
                    self.take(event)
        return self.answer.reply() if self.answer.finished else None

    def take(self, event: bytes) -> None:
        finished = self.answer.finished
        try:
            self.answer.take(event)
        except (ModelError, ValueError):
            if not finished:
                raise


@every_dialect
def test_pieces_of_every_size_make_the_same_answer(wire: str, dialect: Dialect) -> None:
    for size in range(1, min(len(dialect.sent), 400)):
        if dialect.error:
            with pytest.raises(ModelError) as raised:
                Fed(wire).all(dialect.sent, size)
            assert type(raised.value).__name__ == dialect.error
        else:
            reply = Fed(wire).all(dialect.sent, size)
            assert reply is not None
            meant(dialect, reply)


@every_dialect
def test_an_answer_cut_at_any_byte_is_whole_or_is_known_not_to_be(wire: str, dialect: Dialect) -> None:
    for end in range(len(dialect.sent)):
        try:
            reply = Fed(wire).all(dialect.sent[:end], 64)
        except (ModelError, ValueError):
            continue
        if reply is not None and not dialect.error:
            assert (reply.text, [call.name for call in reply.tool_calls]) == (
                dialect.text,
                [name for name, _ in dialect.calls],
            )


@pytest.mark.parametrize(("wire", "cut"), [("openai", 200), ("openai", 500), ("anthropic", 600)])
async def test_an_answer_that_is_always_cut_costs_a_few_calls(wire: str, cut: int, tls: ssl.SSLContext) -> None:
    dialect = next(dialect for dialect in corpus(wire) if not dialect.error and len(dialect.sent) > cut + 100)
    async with raw_server(Plan(dialect.sent, cut=cut)) as server:
        chain = chain_to(server, wire, tls, [])
        with pytest.raises(ModelError, match="broke off its answer: the connection was lost"):
            await chain.reply(asking("hello"), timeout=20)
        assert len(server.bodies) <= MOST_CALLS
        await chain.close()


async def test_a_page_where_an_answer_should_be_is_named_and_costs_a_few_calls(tls: ssl.SSLContext) -> None:
    page = Plan(b"<!DOCTYPE html><html><body>Please sign in.</body></html>", content_type="text/html")
    async with raw_server(page) as server:
        chain = chain_to(server, "openai", tls, [])
        with pytest.raises(ModelError, match="a web page"):
            await chain.reply(asking("hello"), timeout=20)
        assert len(server.bodies) <= MOST_CALLS
        await chain.close()


async def test_a_count_that_cannot_be_true_is_said_once(tls: ssl.SSLContext) -> None:
    body = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"completion_tokens":%s}}'
    counts = (b"-5", b"1e300", b'"9"', b"99999999999")
    plans = [Plan(body % count, content_type="application/json") for count in counts]
    async with raw_server(*plans) as server:
        said: list[Any] = []
        chain = chain_to(server, "openai", tls, said)
        for _ in plans:
            usage = (await chain.reply(asking("hello"))).usage
            assert 0 < usage.output_tokens < 100
        assert [event.value for event, _ in said] == ["model_oddity"]
        assert "completion_tokens is -5" in said[0][1]["problem"]
        await chain.close()


FIELDS = "choices delta message content tool_calls function name arguments id index usage error type detail".split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud83d"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300)
@given(st.data())
def test_whatever_a_server_makes_of_an_answer_only_model_errors_come_of_it(data: st.DataObject) -> None:
    wire, dialect = data.draw(st.sampled_from(ANSWERS))
    lines = dialect.sent.split(b"\n")
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "double", "swap", "bytes", "json"])):
            case "drop":
                lines.pop(place)
                lines = lines or [b""]
            case "double":
                lines.insert(place, lines[place])
            case "swap":
                other = data.draw(st.integers(0, len(lines) - 1))
                lines[place], lines[other] = lines[other], lines[place]
            case "bytes":
                at = data.draw(st.integers(0, len(lines[place])))
                lines[place] = lines[place][:at] + data.draw(st.binary(max_size=3)) + lines[place][at + 1 :]
            case "json":
                lines[place] = b"data: " + json.dumps(data.draw(JSON)).encode()
    fed = Fed(wire)
    try:
        reply = fed.all(b"\n".join(lines), data.draw(st.integers(1, 200)))
    except (ModelError, ValueError):
        reply = None
    for count in msgspec.structs.astuple(reply.usage if reply else fed.answer.usage())[:8]:
        assert 0 <= count < 1_000_000_000
    if reply is not None:
        msgspec.json.encode([reply.text, *((call.id, call.name, call.arguments) for call in reply.tool_calls)])
