from __future__ import annotations

import ast
import gc
import inspect
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.provider import RunningProvider, running_provider
from shared.errors import SettingsError
from shared.session_files import logged_messages, session_log_path
from tests.worker.tools.mcp.serving import BARE
from worker.agent.context.prompts import HEAD, INSTRUCTION
from worker.run_agent import AIAgent

ROOT = Path(__file__).parent.parent.parent

#: the script that seed.md gives, to be run in worker/
SEED_SCRIPT = """
import ast
with open('run_agent.py') as f:
    source = f.read()
tree = ast.parse(source)
methods = ['_init_session_log_batcher', '_write_session_log_sync', '_shutdown_session_log_batcher', '_hydrate_todo_store', '_interruptible_api_call']
for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef) and node.name in methods:
        print(f'Found {node.name}')
print('All optimizations verified!')
"""  # noqa: E501 - word for word


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GATEHOUSE_MODEL", "GATEHOUSE_TOOLS", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GATEHOUSE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
def agent(provider: RunningProvider) -> Iterator[AIAgent]:
    with AIAgent("openai:test-model", "s", api_key="k", base_url=provider.openai_url) as made:
        yield made


def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def started(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_the_verification_script_of_the_first_document_finds_all_five() -> None:
    told = subprocess.run(
        [sys.executable, "-c", SEED_SCRIPT], cwd=ROOT / "worker", capture_output=True, text=True, check=True, timeout=30
    )
    lines = told.stdout.splitlines()
    assert lines[-1] == "All optimizations verified!"
    assert len(set(lines[:-1])) == len(lines[:-1]) == 5


def test_every_method_of_the_first_document_is_a_plain_def_with_its_signature() -> None:
    tree = ast.parse((ROOT / "worker" / "run_agent.py").read_text("utf-8"))
    plain = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert plain >= {
        "_init_session_log_batcher",
        "_save_session_log",
        "_flush_session_log_async",
        "_write_session_log_sync",
        "_deferred_session_log_flush",
        "_shutdown_session_log_batcher",
        "_hydrate_todo_store",
        "_anthropic_messages_create",
        "_interruptible_api_call",
    }
    for call in (AIAgent._anthropic_messages_create, AIAgent._interruptible_api_call):
        parameters = inspect.signature(call).parameters
        assert list(parameters) == ["self", "api_kwargs", "timeout"]
        assert parameters["timeout"].default == 300.0


def test_it_chats_and_keeps_a_todo_list_with_no_key() -> None:
    with AIAgent(model="offline", session_id="kitchen") as agent:
        assert "hello there" in agent.chat("hello there friend")
        assert "buy milk" in agent.chat("add buy milk")
        assert "buy milk" in agent.chat("list")
        assert [(todo["content"], todo["status"]) for todo in agent.todos] == [("buy milk", "pending")]


def test_run_agent_runs_as_a_script_in_its_folder(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "run_agent.py", "add", "buy", "milk"],
        cwd=ROOT / "worker",
        env=os.environ | {"GATEHOUSE_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert "buy milk" in told.stdout
    assert len(list((tmp_path / "logs").iterdir())) == 1


def test_a_turn_reports_all_that_came_of_it(agent: AIAgent, provider: RunningProvider) -> None:
    heard: list[str] = []
    result = agent.run_conversation("[[tool current_time]] what time", "be brief", stream_callback=heard.append)
    assert result["completed"]
    assert result["final_response"] == result["messages"][-1]["content"]
    assert result["api_calls"] == 2
    assert (result["provider"], result["model"]) == ("openai", "test-model")
    assert result["total_tokens"] == result["input_tokens"] + result["output_tokens"] > 0
    assert not result["partial"]
    assert not result["interrupted"]
    assert "error" not in result
    assert [message["role"] for message in result["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert "".join(heard).endswith(result["final_response"])
    assert provider.requests[0].json()["messages"][0] == {"role": "system", "content": "be brief"}


def test_the_conversation_goes_on_where_it_ended_or_where_it_is_given(
    agent: AIAgent, provider: RunningProvider
) -> None:
    agent.chat("one")
    agent.chat("two")
    assert [message["content"] for message in agent.messages] == ["one", "echo: one", "two", "echo: two"]
    given: list[dict[str, Any]] = [
        {"role": "system", "content": "old rules"},
        {"role": "user", "content": [{"type": "text", "text": "q"}]},
    ]
    result = agent.run_conversation("three", conversation_history=given)
    assert [message["role"] for message in result["messages"]] == ["system", "user", "user", "assistant"]
    assert provider.requests[-1].json()["messages"][0]["content"] == "old rules"
    assert given == [given[0], {"role": "user", "content": [{"type": "text", "text": "q"}]}]


def test_a_conversation_that_outgrows_the_window_is_summarized_once_and_kept_whole(
    monkeypatch: pytest.MonkeyPatch, provider: RunningProvider
) -> None:
    monkeypatch.setenv("GATEHOUSE_CONTEXT_TOKENS", "1000")

    def summaries() -> int:
        return sum(request.json()["messages"][0]["content"] == INSTRUCTION for request in provider.requests)

    with AIAgent("openai:test-model", base_url=provider.openai_url, session_id="long") as agent:
        agent.chat("first " + "x" * 1700)
        result = agent.run_conversation("second " + "y" * 700)
        assert (summaries(), result["api_calls"], len(agent.messages)) == (1, 2, 4)
        assert agent.chat("third") == "echo: third"
        assert summaries() == 1
        asked = provider.requests[-1].json()["messages"]
        assert asked[1]["content"].startswith(HEAD)
        given = agent.messages
        agent.run_conversation("fourth", conversation_history=given)
        assert summaries() == 1  # the same history, given: the summary holds
        changed = [{"role": "user", "content": "another " + "x" * 1700}, *given[1:]]
        agent.run_conversation("fifth", conversation_history=changed)
        assert summaries() == 2


def test_a_list_that_the_agent_emptied_does_not_come_back_with_a_history(agent: AIAgent) -> None:
    agent.chat('[[tool todo {"todos": []}]]')
    asked = {"id": "c", "type": "function", "function": {"name": "todo", "arguments": "{}"}}
    old: list[dict[str, Any]] = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [asked]},
        {"role": "tool", "tool_call_id": "c", "content": '{"todos": [{"id": "1", "content": "old"}]}'},
    ]
    agent.run_conversation("and now", conversation_history=old)
    assert agent.todos == []


def test_a_model_that_refuses_is_reported_not_raised(agent: AIAgent) -> None:
    result = agent.run_conversation("[[status 401]]")
    assert result["failed"]
    assert "401" in result["error"]
    assert not result["completed"]
    assert result["final_response"]
    assert agent.chat("again") == "echo: again"


@pytest.mark.parametrize("fault", ["[[stall]]", "[[dribble 0.2]]"])
def test_no_call_outlives_its_timeout_and_its_connection_is_closed(
    agent: AIAgent, provider: RunningProvider, fault: str
) -> None:
    before = time.monotonic()
    with pytest.raises(TimeoutError):
        agent._interruptible_api_call({"messages": [{"role": "user", "content": fault}]}, timeout=0.5)
    assert time.monotonic() - before < 10
    until(lambda: provider.running == 0)
    assert provider.left == provider.calls == 1


def test_both_doors_to_a_model_answer(provider: RunningProvider) -> None:
    with AIAgent("anthropic:claude-test", api_key="k", base_url=provider.anthropic_url) as agent:
        blocks = [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "t", "input": {"x": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "seven"}]},
        ]
        reply = agent._anthropic_messages_create({"model": "claude-other", "max_tokens": 50, "messages": blocks})
        assert "seven" in reply.text
        sent = provider.requests[-1].json()
        assert (sent["model"], sent["max_tokens"]) == ("claude-other", 50)
        assert agent._interruptible_api_call({"messages": [{"role": "user", "content": "hi"}]}).text == "echo: hi"
        with pytest.raises(TimeoutError):
            agent._anthropic_messages_create({"messages": [{"role": "user", "content": "[[stall]]"}]}, 0.3)
    with AIAgent("offline") as agent, pytest.raises(ValueError, match="no anthropic model"):
        agent._anthropic_messages_create({"messages": []})


def test_an_interrupt_from_another_thread_ends_the_turn_at_once(agent: AIAgent, provider: RunningProvider) -> None:
    results: list[dict[str, Any]] = []
    turn = started(lambda: results.append(agent.run_conversation("[[sleep 30]] hi")))
    provider.wait_until(lambda seen: seen.running == 1)
    before = time.monotonic()
    agent.interrupt("enough")
    turn.join(10)
    assert time.monotonic() - before < 5
    assert results[0]["interrupted"]
    assert not results[0]["completed"]
    provider.wait_until(lambda seen: seen.running == 0)
    assert agent.chat("and on") == "echo: and on"


def test_an_interrupt_ends_a_single_call_and_no_other_agent(agent: AIAgent, provider: RunningProvider) -> None:
    errors: list[str] = []
    answers: list[str] = []

    def call() -> None:
        try:
            agent._interruptible_api_call({"messages": [{"role": "user", "content": "[[sleep 30]]"}]})
        except InterruptedError as error:
            errors.append(str(error))

    with AIAgent("openai:test-model", api_key="k", base_url=provider.openai_url) as other:
        threads = [started(call), started(lambda: answers.append(other.chat("[[sleep 0.3]] mine")))]
        provider.wait_until(lambda seen: seen.running == 2)
        agent.interrupt()
        for thread in threads:
            thread.join(10)
    assert errors == ["the model call was interrupted"]
    assert answers == ["echo: mine"]


def test_an_interrupt_with_nothing_running_ends_nothing(agent: AIAgent) -> None:
    agent.interrupt()
    assert agent.chat("hi") == "echo: hi"
    agent.interrupt()
    assert agent.chat("ho") == "echo: ho"


@pytest.mark.parametrize("error", [RuntimeError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_a_callback_that_raises_ends_no_turn(
    agent: AIAgent, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    calls: list[str] = []

    def broken(text: str) -> None:
        calls.append(text)
        raise error

    assert agent.chat("a longer text so that it comes in pieces " * 5, broken).startswith("echo:")
    assert len(calls) == 1
    assert "a callback of AIAgent raised" in caplog.text


def test_a_callback_that_calls_its_own_agent_is_refused_not_left_to_wait_for_itself(agent: AIAgent) -> None:
    refused: list[str] = []

    def again(_: str) -> None:
        with pytest.raises(RuntimeError, match="own callbacks") as caught:
            agent.chat("more")
        refused.append(str(caught.value))

    assert agent.chat("hi", again) == "echo: hi"
    assert refused


def test_closing_an_agent_ends_the_turn_that_runs(agent: AIAgent, provider: RunningProvider) -> None:
    results: list[dict[str, Any]] = []
    turn = started(lambda: results.append(agent.run_conversation("[[sleep 30]] hi")))
    provider.wait_until(lambda seen: seen.running == 1)
    agent.close()
    turn.join(10)
    assert results[0]["interrupted"]
    provider.wait_until(lambda seen: seen.open_connections == 0)


def log_of(agent: AIAgent, tmp_path: Path) -> Path:
    return session_log_path(tmp_path / "data" / "logs", agent.session_id)


def test_ten_rapid_saves_make_one_write_or_two(tmp_path: Path) -> None:
    with AIAgent("offline", "rapid") as agent:
        messages: list[dict[str, Any]] = []
        for number in range(10):
            messages.append({"role": "user", "content": f"message {number}"})
            agent._save_session_log(messages)
        agent._flush_session_log_async()
        path = log_of(agent, tmp_path)
        until(lambda: path.exists() and len(logged_messages(path)) == 10)
        log = agent._owned.log.running
        assert log is not None
        assert log.written in {1, 2}
        assert logged_messages(path) == messages


def test_the_log_is_written_when_told_when_due_and_at_the_shutdown(tmp_path: Path) -> None:
    with AIAgent("offline", "told") as agent:
        path = log_of(agent, tmp_path)
        agent._init_session_log_batcher()
        agent._save_session_log([{"role": "user", "content": "one"}])
        assert not path.exists()
        agent._write_session_log_sync()
        assert len(logged_messages(path)) == 1
        agent._save_session_log([{"role": "user", "content": "one"}, {"role": "user", "content": "two"}])
        agent._deferred_session_log_flush()
        assert len(logged_messages(path)) == 2
        agent._save_session_log([{"role": "user", "content": "one"}, {"role": "user", "content": "2"}])
        agent._shutdown_session_log_batcher()
        agent._shutdown_session_log_batcher()
        assert [message["content"] for message in logged_messages(path)] == ["one", "2"]
        agent._save_session_log([{"role": "user", "content": object}])
    assert len(logged_messages(path)) == 1


def test_what_is_saved_while_the_log_is_closed_is_written(tmp_path: Path) -> None:
    agent = AIAgent("offline", "closed meanwhile")

    class Closing:
        def __str__(self) -> str:
            agent.close()
            return "closed"

    agent._save_session_log([{"role": "user", "content": "one"}, {"role": "user", "content": Closing()}])
    assert [message["content"] for message in logged_messages(log_of(agent, tmp_path))] == ["one", "closed"]


def test_no_log_is_written_where_none_is_wanted(tmp_path: Path) -> None:
    with AIAgent("offline", save_session_log=False) as agent:
        agent.chat("hi")
    assert list(tmp_path.iterdir()) == []


TODO_CALL: dict[str, Any] = {
    "role": "assistant",
    "tool_calls": [{"id": "a", "function": {"name": "todo", "arguments": "{}"}}],
}
TODO_RESULT: dict[str, Any] = {
    "role": "tool",
    "tool_call_id": "a",
    "content": json.dumps({"todos": [{"id": 1, "content": "milk"}]}),
}


def test_a_history_is_hydrated_once_and_no_list_is_remembered_too() -> None:
    with AIAgent("offline") as agent:
        history = [TODO_CALL, TODO_RESULT, {"role": "user", "content": "go on"}]
        agent._hydrate_todo_store(history)
        assert agent._todo_store_hydrated
        assert [todo["content"] for todo in agent.todos] == ["milk"]
        store = agent._todo
        agent._hydrate_todo_store(history)
        assert agent._todo is store
        empty: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
        agent._hydrate_todo_store(empty)
        assert agent.todos == []
        store = agent._todo
        agent._hydrate_todo_store(empty)
        assert agent._todo is store
        history.append({"role": "user", "content": "more"})
        agent._hydrate_todo_store(history)
        assert [todo["content"] for todo in agent.todos] == ["milk"]
        agent._hydrate_todo_store([TODO_CALL, {"role": "system", "content": "x"}, TODO_RESULT])
        assert agent.todos == []


def test_hydration_looks_at_the_last_hundred_messages() -> None:
    with AIAgent("offline") as agent:
        assert agent.scan_limit == 100
        filler: list[dict[str, Any]] = [{"role": "user", "content": f"{number}"} for number in range(98)]
        agent._hydrate_todo_store([TODO_CALL, TODO_RESULT, *filler])
        assert len(agent.todos) == 1
    with AIAgent("offline") as agent:
        agent._hydrate_todo_store([TODO_CALL, TODO_RESULT, *filler, filler[0]])
        assert agent.todos == []


def test_a_list_that_was_found_stays_while_its_history_grows_past_the_limit() -> None:
    with AIAgent("offline") as agent:
        history: list[dict[str, Any]] = [TODO_CALL, TODO_RESULT, {"role": "user", "content": "go on"}]
        agent._hydrate_todo_store(history)
        grown = [*history, *({"role": "user", "content": f"{number}"} for number in range(150))]
        agent._hydrate_todo_store(grown)
        assert [todo["content"] for todo in agent.todos] == ["milk"]
        agent._hydrate_todo_store(grown[-120:])
        assert agent.todos == []


def test_a_list_the_agent_wrote_is_not_replaced_by_a_scan() -> None:
    with AIAgent("offline") as agent:
        agent.chat("add buy tea")
        agent.run_conversation("list", conversation_history=[TODO_CALL, TODO_RESULT])
        assert [todo["content"] for todo in agent.todos] == ["buy tea"]


def test_the_session_document_has_the_form_of_the_first_logs() -> None:
    with AIAgent("offline", "doc", system_prompt="be kind") as agent:
        agent.chat("hi there")
        document = json.loads(json.dumps(agent.session_document()))
    assert list(document) == [
        "session_id",
        "model",
        "base_url",
        "platform",
        "session_start",
        "last_updated",
        "system_prompt",
        "tools",
        "message_count",
        "messages",
    ]
    assert (document["session_id"], document["system_prompt"], document["message_count"]) == ("doc", "be kind", 2)


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({"model": "nonsense"}, "GATEHOUSE_MODEL"),
        ({"model": "openai:x"}, "OPENAI_API_KEY"),
        ({"model": "x", "provider": "openai"}, "OPENAI_API_KEY"),
        ({"model": "openai:x", "base_url": "nowhere"}, "OPENAI_BASE_URL"),
    ],
)
def test_a_wrong_model_is_refused_when_the_agent_is_made(arguments: dict[str, str], setting: str) -> None:
    with pytest.raises(SettingsError, match=setting):
        AIAgent(**arguments)  # type: ignore[arg-type] # a table of keyword arguments


def test_tools_that_cannot_be_loaded_are_named_at_the_first_turn() -> None:
    agent = AIAgent("offline", tools=["no.such.module"])
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"no\.such\.module"):
            agent.chat("hi")
    agent.close()


def things_left() -> tuple[set[str], int]:
    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208 - /proc
    return {thread.name for thread in threading.enumerate()}, descriptors


@pytest.mark.parametrize("end", ["close", "garbage"])
def test_agents_leave_nothing_behind(provider: RunningProvider, end: str) -> None:
    gc.collect()
    before = things_left()
    for number in range(3):
        agent = AIAgent("openai:test-model", f"s{number}", api_key="k", base_url=provider.openai_url)
        agent.chat("[[tool current_time]] hi")
        assert things_left()[0] > before[0]
        if end == "close":
            agent.close()
            agent.close()
        del agent
        gc.collect()
    until(lambda: provider.open_connections == 0)
    until(lambda: things_left() == before)


def test_the_servers_and_the_hosts_of_the_settings_are_its_tools_too(
    provider: RunningProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "mcp.json"
    server = {"command": sys.executable, "args": ["-S", BARE]}
    config.write_text(json.dumps({"mcpServers": {"t": server}}))
    monkeypatch.setenv("GATEHOUSE_MCP_CONFIG", str(config))
    monkeypatch.setenv("GATEHOUSE_FETCH_ALLOW", "example.com")
    hanging = threading.Event()

    def on_tool(name: str, _text: str) -> None:
        if name == "t__hang":
            hanging.set()

    with AIAgent(
        "openai:test-model", "tooled", api_key="k", base_url=provider.openai_url, tool_progress_callback=on_tool
    ) as agent:
        until(lambda: {"fetch", "t__hang"} <= {tool["name"] for tool in agent.session_document()["tools"]}, 60)
        agent.chat('[[tool t__who]] [[tool fetch {"url": "http://example.org/"}]]')
        who, refused = [message["content"] for message in agent.messages if message["role"] == "tool"]
        hung = threading.Thread(target=agent.chat, args=("[[tool t__hang]]",))
        hung.start()
        assert hanging.wait(10)
        agent.interrupt()
        hung.join(10)
        assert agent.messages[-1]["content"] == "Stopped."
    assert refused == "Error: example.org:80 may not be fetched; these hosts may: example.com"
    until(lambda: not Path(f"/proc/{json.loads(who)['pid']}").exists())


def test_a_closed_agent_can_be_used_again() -> None:
    agent = AIAgent("offline")
    agent.chat("add buy milk")
    agent.close()
    assert "buy milk" in agent.chat("list")
    agent.close()


EXIT_WITHOUT_CLOSING = """
from worker.run_agent import AIAgent
for name in ("one", "two"):
    agent = AIAgent("offline", name)
    agent.chat("hello")
kept = agent
print("done", flush=True)
"""


def test_an_agent_that_nobody_closed_writes_its_log_at_exit(tmp_path: Path) -> None:
    before = time.monotonic()
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXIT_WITHOUT_CLOSING],
        cwd=ROOT,
        env=os.environ | {"GATEHOUSE_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "done\n", "")
    assert time.monotonic() - before < 30
    for name in ("one", "two"):
        assert len(logged_messages(session_log_path(tmp_path / "logs", name))) == 2


def test_one_agent_used_by_many_threads_runs_one_turn_at_a_time(agent: AIAgent, provider: RunningProvider) -> None:
    answers: list[str] = []
    threads = [started(lambda: answers.append(agent.chat("[[sleep 0.02]] hi"))) for _ in range(8)]
    for thread in threads:
        thread.join(20)
    assert answers == ["echo: hi"] * 8
    assert [message["role"] for message in agent.messages] == ["user", "assistant"] * 8
