"""MCP servers that list and answer what they should not, as real ones do: one bad part harms itself alone."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loadtests.program import free_port
from shared.events import Event
from tests.worker.tools.mcp.serving import (
    ODD,
    Worker,
    gone,
    http_process,
    listening,
    nothing_left,
    odd,
    over_http,
    worker,
)
from tests.worker.waiting import until
from worker.mcp_server import McpServer, RunScope
from worker.tools.mcp import session_runs
from worker.tools.mcp.listing import shown_names


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Worker]:
    async with worker(odd("t")) as running:
        yield running


async def test_bad_entries_are_left_out_and_named_once_and_the_others_stay(served: Worker) -> None:
    names = [name for name in served.toolbox.names if name.startswith("t__")]
    assert {"t__plain", "t__no_schema", "t__null_schema", "t__bad_output", "t__union"} < set(names)
    said = {str(fields["tool"]): fields["reason"] for fields in served.said(Event.MCP_TOOL_LEFT_OUT)}
    assert said == {
        "entry 21": "it has no name",
        "entry 22": "it has no name",
        "entry 23": "it has no name",
        "text_schema": "its input schema is no object",
        "array_schema": "its arguments are of type array, and a tool's arguments are an object",
    }
    assert len(served.said(Event.MCP_TOOL_LEFT_OUT)) == len(said)
    assert served.said(Event.MCP_SERVER_LOST) == []


async def test_names_that_would_be_equal_are_all_offered_and_called_by_their_own(served: Worker) -> None:
    names = [name for name in served.toolbox.names if re.match("t__(a_b|long)", name)]
    assert len(names) == 5
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,64}", name) for name in names)
    assert "t__a_b" in names
    for name in names:
        assert await served.call(name, '{"x": 1}') == '{"x": 1}'


def test_a_name_does_not_depend_on_the_order_of_the_list() -> None:
    names = ["a.b", "a/b", "a_b", "x" * 70 + "1", "x" * 70 + "2"]
    assert shown_names("s", names) == {name: shown_names("s", names[::-1])[name] for name in names}
    assert len(set(shown_names("s", names).values())) == len(names)


async def test_odd_property_names_come_back_to_the_server_as_they_were(served: Worker) -> None:
    (spec,) = [spec for spec in served.toolbox.specs() if spec.name == "t__union"]
    (name,) = spec.parameters["properties"]
    assert spec.parameters["properties"][name] == {"type": "string"}
    assert await served.call("t__union", json.dumps({name: "v"})) == '{"$filter": "v"}'


async def test_a_result_that_is_not_what_its_tool_declares_is_read_and_the_mismatch_said(served: Worker) -> None:
    text = await served.call("t__mismatch")
    assert text == "the text\n[This result is not what the tool declares: $.n: 'x' is not of type 'integer']"
    assert "no structured content" in await served.call("t__unstructured")
    assert await served.call("t__fits") == '{"n":1}'
    assert {fields["tool"] for fields in served.said(Event.TOOL_WARNING)} == {"t__mismatch", "t__unstructured"}


async def test_parts_of_a_result_that_nobody_knows_are_shown_as_they_are(served: Worker) -> None:
    assert await served.call("t__odd_blocks") == '{"type":"hologram","x":1}\ntypeless\nbare'


async def test_an_image_is_shown_with_the_result(served: Worker) -> None:
    assert await served.call("t__picture") == "[image of type image/png, shown with this result]"
    ((image, data),) = served.last_context.attached
    assert (image.media_type, image.size_bytes) == ("image/png", len(data))


async def test_progress_is_said_while_the_call_runs(served: Worker) -> None:
    served.progress.clear()
    await served.call("t__progress")
    assert served.progress == ["1 of 2", "nearly"]


async def test_progress_without_a_total_and_links_to_resources_are_told(served: Worker) -> None:
    served.progress.clear()
    await served.call("t__endless_progress")
    assert served.progress == ["0.5"]
    assert await served.call("t__link") == "[resource y: x://y]"


async def test_what_a_server_asks_in_the_middle_of_a_call_is_refused_and_the_call_goes_on(served: Worker) -> None:
    refused = json.loads(await served.call("t__asks"))
    assert (refused["e"]["message"], refused["s"]["message"]) == ("Elicitation not supported", "Sampling not supported")


async def test_a_server_s_program_inherits_no_descriptor_but_its_three(served: Worker) -> None:
    assert list(json.loads(await served.call("t__descriptors"))) == ["0", "1", "2"]


async def test_lists_of_tools_are_kept() -> None:
    async with worker(odd("t", include=("plain", "fits"), exclude=("fits",))) as running:
        assert [name for name in running.toolbox.names if name.startswith("t__")] == ["t__plain"]


async def test_a_server_that_speaks_out_of_turn_answers_twice_and_lists_without_end_is_used_all_the_same() -> None:
    stormy = McpServer("t", sys.executable, ("-S", ODD, "--stormy"))
    async with nothing_left(), worker(stormy) as running:
        names = [name for name in running.toolbox.names if name.startswith("t__")]
        assert names == ["t__lists", "t__blob", "t__huge", "t__fits"]
        assert await running.call("t__blob") == "[resource x://y, which is no text]"
        assert len(await running.call("t__huge")) < 100_000
        assert await running.call("t__fits") == '{"n":1}'
        assert int(await running.call("t__lists")) <= 6  # two pages at the start, and two for each look of a second
        assert running.said(Event.MCP_TOOL_LEFT_OUT) == running.said(Event.MCP_SERVER_LOST) == []


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (401, {"www-authenticate": 'Bearer resource_metadata="https://a/.well-known"'}, "401"),
        (405, {"allow": "GET"}, "405"),
        (403, {}, "403"),
        (200, {"content-type": "text/html"}, "text/html"),
    ],
)
async def test_a_server_over_http_that_lets_nobody_in_is_named_with_the_reason(
    status: int, headers: dict[str, str], said: str
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        lines = [f"HTTP/1.1 {status} X", "content-length: 2", "connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", "no"]).encode())
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening, worker(over_http("t", listening.sockets[0].getsockname()[1])) as running:
        (state,) = running.servers.status
        assert not state.up
        assert said in state.problem, state.problem


async def test_a_session_that_the_server_forgot_is_opened_anew_within_the_call(tmp_path: Path) -> None:
    port, sessions = free_port(), tmp_path / "sessions"
    sessions.write_text("one")
    with http_process(ODD, port, "--sessions", str(sessions)):
        await listening(port)
        async with nothing_left(), worker(over_http("t", port)) as running:
            assert (await running.call("t__plain")) == "{}"
            sessions.write_text("two")
            assert (await running.call("t__plain")) == "{}"
            (lost,) = running.said(Event.MCP_SERVER_LOST)
            assert "SessionEnded: the server does not know it any more" in str(lost["error"])


async def test_a_session_has_its_own_run_of_a_server_until_it_is_idle_or_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_runs, "LOOK_EVERY_S", 0.05)
    async with nothing_left(), worker(odd("t", scope=RunScope.SESSION, idle_s=1.5)) as running:
        ana = (await running.call("t__remember", '{"word": "ana"}', session="a:b:ana")).split()
        bob = (await running.call("t__remember", session="a:b:bob")).split()
        assert (ana[1:], bob[1:]) == (["ana"], [])
        assert (await running.call("t__remember", session="a:b:ana")).split() == ana
        running.servers.forget("a:b:bob")
        await until(lambda: gone(int(bob[0])))
        await until(lambda: gone(int(ana[0])), 30)
        assert "t__remember" in running.toolbox.names
        assert running.servers.status[0].tools > 10
        assert (await running.call("t__remember", session="a:b:ana")).split()[1:] == []


async def test_no_more_sessions_than_allowed_have_a_run_and_the_idlest_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_runs, "RUNS_LIMIT", 2)
    async with nothing_left(), worker(odd("t", scope=RunScope.SESSION)) as running:
        first = (await running.call("t__remember", session="s1")).split()[0]
        await running.call("t__remember", session="s2")
        await running.call("t__remember", session="s3")
        await until(lambda: gone(int(first)))


async def test_the_state_of_every_server_is_known_with_the_name_of_a_program_that_is_missing() -> None:
    missing = McpServer("m", "no-such-program-here")
    async with worker(odd("t"), missing) as running:
        up, down = running.servers.status
        assert (up.server, up.up, up.problem) == ("t", True, "")
        assert up.tools > 10
        assert (down.up, down.tools) == (False, 0)
        assert "no-such-program-here" in down.problem
