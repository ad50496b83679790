"""The toolbox: what a model is told, and what becomes of its calls."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from shared.attachments import MOST_GIVEN
from shared.errors import SettingsError, ToolError
from shared.events import Event, Field
from tests.worker.waiting import until
from worker.agent.todo import TodoStore
from worker.tools import ToolContext, toolbox
from worker.tools.context import FILE_LIMIT_BYTES
from worker.tools.spec import ToolCall
from worker.tools.toolbox import Toolbox

TOOLS = '''
import asyncio, os, sys, threading, time
from worker.tools import ToolContext, tool

STOP = threading.Event()

@tool
def roll(sides: int) -> str:
    """Roll one die."""
    return f"rolled {sides} in {threading.current_thread().name}"

@tool(name="renamed", retry_safe=False)
async def original(context: ToolContext) -> dict:
    """Give a dict."""
    context.say("half way")
    return {"key": context.idempotency_key, "loop": threading.current_thread() is threading.main_thread()}

@tool(timeout_s=0.05)
def slow(context: ToolContext) -> str:
    context.wait_stopped(10)
    STOP.set()
    return "late"

@tool(timeout_s=0.05)
async def slow_async() -> str:
    await asyncio.sleep(10)

@tool(output_limit_bytes=10)
def long() -> str:
    return "ä" * 10

@tool
def fails() -> str:
    raise LookupError("no such thing")

@tool
def leaves() -> str:
    sys.exit(3)

@tool
async def leaves_async() -> str:
    raise SystemExit(3)

@tool
async def cancels() -> str:
    raise asyncio.CancelledError

@tool
async def cancels_its_task() -> str:
    asyncio.current_task().cancel()
    await asyncio.sleep(10)

@tool
async def cancels_its_task_last() -> str:
    asyncio.current_task().cancel()
    return "done all the same"

@tool
async def stops_its_context(context: ToolContext) -> str:
    context.stop()
    return "done all the same"

@tool
def interrupts() -> str:
    raise KeyboardInterrupt("by a library")

@tool
async def groups() -> str:
    raise BaseExceptionGroup("several", [SystemExit(1)])

class PanicException(BaseException):
    """What libraries in Rust raise."""

@tool
def panics() -> str:
    raise PanicException("of a library in Rust, at \\udcff")

@tool
async def panics_async() -> str:
    raise PanicException("of a library in Rust, at \\ud83d")

@tool(timeout_s=0.05)
async def stubborn() -> str:
    while not STOP.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            pass
    return "at last"

def plain_decorator(function):
    def wrapped(number: int) -> str:
        return function(number)
    return wrapped

@tool(name="wrapped")
@plain_decorator
async def behind_a_decorator(number: int) -> str:
    await asyncio.sleep(0)
    return f"number {number}"

@tool
def nothing() -> None:
    pass

@tool
def surrogate() -> str:
    return "\\udc80"

@tool
def strange() -> object:
    return {"path": object}

class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no words")

@tool
def speechless() -> str:
    raise Silent

def plain() -> str:
    return "not a tool"
'''


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], str]]:
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name: str, code: str) -> str:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


class Caller:
    """A toolbox over the module above, and what it said."""

    def __init__(self, module: str) -> None:
        self.events: list[tuple[Event, dict[str, Field]]] = []
        self.said: list[str] = []
        self.toolbox = Toolbox([module], lambda event, **fields: self.events.append((event, fields)))

    async def __call__(self, name: str, arguments: str = "{}") -> str:
        context = ToolContext("a:b:c", "msg_1", "call_1", TodoStore(), self.said.append)
        return await self.toolbox.call(ToolCall("call_1", name, arguments), context)


@pytest.fixture
def call(write_module: Callable[[str, str], str]) -> Iterator[Caller]:
    caller = Caller(write_module("tools_under_test", TOOLS))
    yield caller
    caller.toolbox.close()


async def test_the_model_is_told_of_every_tool_in_a_steady_order(call: Caller) -> None:
    assert call.toolbox.names[:4] == ("todo", "current_time", "roll", "renamed")
    assert "plain" not in call.toolbox.names
    specs = {spec.name: spec for spec in call.toolbox.specs()}
    assert specs["roll"].description == "Roll one die."
    assert specs["roll"].parameters["required"] == ["sides"]
    assert call.toolbox.specs() == call.toolbox.specs()


async def test_sync_tools_run_in_threads_and_async_ones_on_the_loop(call: Caller) -> None:
    assert await call("roll", '{"sides": 6}') == "rolled 6 in tool"
    assert msgspec.json.decode(await call("renamed")) == {"key": "msg_1.1.call_1", "loop": True}
    assert call.said == ["half way"]


async def test_options_are_kept(call: Caller) -> None:
    assert not call.toolbox.retry_safe("renamed")
    assert call.toolbox.retry_safe("roll")


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("nope", "{}", "there is no tool named 'nope'; there are todo, current_time, roll"),
        ("roll", '{"sides": "x"}', "the arguments do not fit"),
        ("roll", '{"sides"', "the arguments are not valid JSON"),
        ("fails", "{}", "LookupError: no such thing"),
        ("speechless", "{}", "Silent: (its text cannot be read: RuntimeError)"),
        ("leaves", "{}", "SystemExit: 3"),
        ("leaves_async", "{}", "SystemExit: 3"),
        ("interrupts", "{}", "KeyboardInterrupt: by a library"),
        ("groups", "{}", "BaseExceptionGroup: several"),
        ("panics", "{}", "PanicException: of a library in Rust, at ?"),
        ("panics_async", "{}", "PanicException: of a library in Rust, at ?"),
        ("cancels", "{}", "cancelled by the tool itself"),
        ("cancels_its_task", "{}", "cancelled by the tool itself"),
        ("slow_async", "{}", "no result after 0.05 s"),
        ("slow", "{}", "no result after 0.05 s"),
        ("todo", "[]", "not a JSON object"),
        ("current_time", '{"timezone": "Mars/Olympus"}', "no time zone named 'Mars/Olympus'"),
    ],
)
async def test_what_goes_wrong_is_a_result_for_the_model(call: Caller, name: str, arguments: str, told: str) -> None:
    result = await call(name, arguments)
    assert result.startswith("Error: ")
    assert told in result
    assert name == "nope" or call.events[0][0] is Event.TOOL_FAILED


@pytest.mark.parametrize(
    "name", ["cancels_its_task", "cancels_its_task_last", "stops_its_context", "roll", "slow", "nope"]
)
async def test_each_result_is_told_once(call: Caller, name: str) -> None:
    told: list[str] = []
    context = ToolContext("a:b:c", "msg_1", "call_1", TodoStore())
    result = await call.toolbox.call(ToolCall("call_1", name, "{}"), context, told.append)
    assert told == [result]


async def test_a_file_for_the_chat_has_a_type_and_bounds() -> None:
    context = ToolContext("a:b:c", "msg_1", "call_1", TodoStore())
    for name, media_type in (("a.pdf", ""), ("a\nb", ""), ("c", "Text/CSV")):
        context.send_file(b"1", name, media_type)
    assert [(file.name, file.media_type) for file, _ in context.given] == [
        ("a.pdf", "application/pdf"),
        ("a_b", "application/octet-stream"),
        ("c", "text/csv"),
    ]
    for data, media_type, problem in (
        (b"", "", "is empty"),
        (b"1" * (FILE_LIMIT_BYTES + 1), "", "10485760 are the most"),
        (b"1", "text/csv\r\nx: y", "is no media type"),
    ):
        with pytest.raises(ToolError, match=problem):
            context.send_file(data, "a", media_type)
    for _ in range(MOST_GIVEN - 3):
        context.send_file(b"1", "a")
    with pytest.raises(ToolError, match="at most 10 files"):
        context.send_file(b"1", "a")


async def test_a_stopped_sync_tool_can_notice(call: Caller) -> None:
    await call("slow")
    stop: threading.Event = sys.modules["tools_under_test"].STOP
    await until(stop.is_set)


async def test_an_async_tool_that_will_not_be_cancelled_ends_its_call_in_time_and_is_counted(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolbox, "CANCEL_GRACE_S", 0.05)
    assert await call("stubborn") == "Error: no result after 0.05 s; the call was given up"
    leaked = call.toolbox.leaked
    sys.modules["tools_under_test"].STOP.set()
    assert leaked == 1
    event, fields = call.events[0]
    assert (event, fields["tool"]) == (Event.TOOL_LEAKED, "stubborn")
    assert "tools_under_test.py" in str(fields["stack"])
    assert "in stubborn" in str(fields["stack"])
    await until(lambda: call.toolbox.leaked == 0)


async def test_an_interrupted_call_with_a_timeout_is_cancelled_within(call: Caller) -> None:
    tasks = asyncio.all_tasks()
    running = asyncio.create_task(call("slow_async"))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() <= tasks


async def test_results_are_text_of_bounded_size(call: Caller) -> None:
    assert await call("long") == "äääää\n[cut: 10 of 20 bytes are shown]"
    assert await call("nothing") == "Done."
    assert (await call("surrogate")).encode() == b"?"
    assert "object" in await call("strange")
    assert await call("wrapped", '{"number": 5}') == "number 5"


async def test_the_built_in_tools_work(call: Caller) -> None:
    listed = msgspec.json.decode(await call("todo", '{"todos": [{"id": "1", "content": "x", "status": "pending"}]}'))
    assert listed["summary"]["pending"] == 1
    assert "(UTC+0000)" in await call("current_time")
    assert "(UTC+" in await call("current_time", '{"timezone": "utc"}')


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
        ("from shared import of_mine", "ImportError"),
        ("raise SystemExit(1)", "SystemExit"),
        ("def broken(:", "SyntaxError"),
        ("x = 1", "has no function with @tool"),
        ("from worker.tools import tool\n@tool\ndef f(*a): pass", "bad_tools.f cannot be a tool"),
        ("from worker.tools import tool\n@tool\ndef f(a: 'Nope'): pass", "name 'Nope' is not defined"),
        ("from worker.tools import tool\n@tool\ndef todo(): pass", "two tools are named 'todo'"),
        ("from worker.tools import tool\n@tool\ndef größe(): pass", "'größe': a tool's name is 1 to 64 of"),
        ("from worker.tools import tool\n@tool(name='a b')\ndef f(): pass", "'a b': a tool's name is 1 to 64 of"),
        ("from worker.tools import tool\n@tool\ndef f(): yield 1", "bad_tools.f cannot be a tool: it yields"),
        ("from worker.tools import tool\n@tool(timeout_s=0)\ndef f(): pass", "above zero"),
    ],
)
def test_a_module_that_cannot_be_used_is_refused_by_name(
    write_module: Callable[[str, str], str], code: str, problem: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Toolbox([write_module("bad_tools", code)])
    assert "GATEHOUSE_TOOLS" in str(caught.value)
    assert problem in str(caught.value)


def test_a_missing_module_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"GATEHOUSE_TOOLS: nowhere\.to_be_found"):
        Toolbox(["nowhere.to_be_found"])


async def test_the_largest_todo_list_there_can_be_is_still_whole_json() -> None:
    todos = [{"id": str(n), "content": "\u20ac" * 4_000, "status": "pending"} for n in range(256)]
    call = ToolCall("c1", "todo", json.dumps({"todos": todos}))
    result = await Toolbox().call(call, ToolContext("a:b:c", "msg_1", "c1", TodoStore(), lambda _: None))
    assert json.loads(result)["summary"]["total"] == 256


LANGCHAIN = '''
import threading
from pydantic import BaseModel, Field

class Query(BaseModel):
    q: str = Field(description="what to look for")
    count: int = Field(1, ge=1)

class BaseTool:
    """The shape of langchain_core.tools.BaseTool."""
    name, description, args_schema, coroutine = "search", "Search.", Query, None

    def invoke(self, given):
        found = Query(**given)
        return [found.q] * found.count, threading.current_thread().name

    async def ainvoke(self, given):
        return given, threading.current_thread() is threading.main_thread()

class AsyncTool(BaseTool):
    name, coroutine = "search_async", print

search, search_async = BaseTool(), AsyncTool()
'''


async def test_a_tool_of_langchain_is_called_by_its_own_schema(write_module: Callable[[str, str], str]) -> None:
    caller = Caller(write_module("langchain_tools", LANGCHAIN))
    (spec,) = [spec for spec in caller.toolbox.specs() if spec.name == "search"]
    assert spec.description == "Search."
    assert spec.parameters["required"] == ["q"]
    assert spec.parameters["properties"]["q"]["description"] == "what to look for"
    assert json.loads(await caller("search", '{"q": "x", "count": 2}')) == [["x", "x"], "tool"]
    assert json.loads(await caller("search_async", '{"q": "x"}')) == [{"q": "x"}, True]
    assert "greater than or equal to 1 - at `$.count`" in await caller("search", '{"q": "x", "count": 0}')
    caller.toolbox.close()


def test_a_tool_object_that_cannot_be_called_here_is_refused_in_one_line(
    write_module: Callable[[str, str], str],
) -> None:
    code = """
    class FunctionTool:
        name, description, params_json_schema = "search", "Search.", {}
    search = FunctionTool()
    """
    with pytest.raises(SettingsError) as caught:
        Toolbox([write_module("foreign_tools", code)])
    assert "foreign_tools holds a FunctionTool named 'search', which cannot be called here" in str(caught.value)


def test_a_tool_without_a_docstring_is_known(call: Caller) -> None:
    assert "slow" in call.toolbox.undescribed
    assert not {"roll", "todo"} & set(call.toolbox.undescribed)
