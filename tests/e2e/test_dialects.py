"""Every server's way to speak, in whole turns: through a gateway and its workers, tools run, results handed back."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from loadtests.gateway_process import GatewayProcess
from tests.worker.agent.models.raw_server import Plan, RawServer, raw_server
from tests.worker.agent.models.test_dialects import ANSWERS, NAMES, Dialect

WHOLE = [(name, wire, one) for name, (wire, one) in zip(NAMES, ANSWERS, strict=True) if not one.error]
#: names of calls that this corpus makes, and of no tool of ours
OFFERED = {"roll": "rolled", "now": "noon"}
AFTER = {
    "openai": {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Seen."}, "finish_reason": "stop"}]
    },
    "anthropic": {"type": "message", "content": [{"type": "text", "text": "Seen."}], "stop_reason": "end_turn"},
}


def plan(body: bytes) -> Plan:
    """Answer the call that names a dialect in it, the second time, with its tools' results, in plain words."""
    asked = json.loads(body)
    number = int(body.partition(b"dialect ")[2].partition(b".")[0])
    _, wire, dialect = WHOLE[number]
    if b'"tool_result"' in body or any(message["role"] == "tool" for message in asked["messages"]):
        return Plan(msgspec.json.encode(AFTER[wire]), content_type="application/json")
    return Plan(dialect.sent, content_type=dialect.content_type, piece_bytes=29)


@contextmanager
def speaking() -> Iterator[RawServer]:
    """Run the server in a thread of its own."""
    ready, over = threading.Event(), threading.Event()
    served: list[RawServer] = []

    async def serve() -> None:
        async with raw_server() as server:
            server.decide = plan
            served.append(server)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield served[0]
    finally:
        over.set()
        thread.join()


def results_in(body: bytes) -> list[str]:
    """Return the results of tools that a request hands back."""
    found: list[str] = []
    for message in json.loads(body)["messages"]:
        if message["role"] == "tool":
            found.append(message["content"])
        elif isinstance(message["content"], list):
            found += [block["content"] for block in message["content"] if block.get("type") == "tool_result"]
    return found


def check(dialect: Dialect, answer: dict[str, Any], bodies: list[bytes]) -> None:
    """See that a turn came to what its dialect means, with no call to spare."""
    said = answer["choices"][0]["message"]["content"]
    if not dialect.calls:
        assert said.strip() == dialect.text.strip()
        assert len(bodies) == 1
        return
    assert said == "Seen."
    assert len(bodies) == 2
    results = results_in(bodies[1])
    assert len(results) == len(dialect.calls)
    for (name, _), result in zip(dialect.calls, results, strict=True):
        assert OFFERED[name] in result or "Error" in result
    if dialect.opaque:
        assert f'"{dialect.opaque[0]}"'.encode() in bodies[1]


@contextmanager
def asked_by_gateway(directory: Path, wire: str) -> Iterator[tuple[GatewayProcess, RawServer]]:
    """Run the server, and a gateway that asks it."""
    with speaking() as server:
        settings = {
            "GATEHOUSE_MODEL": f"{wire}:m",
            "OPENAI_BASE_URL": server.url + "/v1",
            "ANTHROPIC_BASE_URL": server.url,
            "OPENAI_API_KEY": "k",
            "ANTHROPIC_API_KEY": "k",
            "GATEHOUSE_TOOLS": "tests.e2e.dice_tools",
        }
        with GatewayProcess(directory, settings) as process:
            yield process, server


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_whole_turns_in_every_dialect(wire: str, tmp_path: Path) -> None:
    numbers = [number for number, (_, spoken, _) in enumerate(WHOLE) if spoken == wire]
    with (
        asked_by_gateway(tmp_path, wire) as (process, server),
        httpx2.Client(base_url=process.url, timeout=60) as client,
        ThreadPoolExecutor(16) as threads,
    ):

        def ask(number: int) -> dict[str, Any]:
            body = {"model": "gatehouse", "messages": [{"role": "user", "content": f"dialect {number}."}]}
            answered = client.post("/v1/chat/completions", json=body)
            assert answered.status_code == 200, (WHOLE[number][0], answered.text)
            found: dict[str, Any] = answered.json()
            return found

        answers = list(threads.map(ask, numbers))
    for number, answer in zip(numbers, answers, strict=True):
        name, _, dialect = WHOLE[number]
        bodies = [body for body in server.bodies if f"dialect {number}.".encode() in body]
        try:
            check(dialect, answer, bodies)
        except AssertionError as wrong:
            raise AssertionError(f"{name}: {wrong}") from wrong
