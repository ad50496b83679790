"""Recorded sessions run again by the turn code, in the process and as the command."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from worker.replay import Recording, Replay

MILK = {"id": "1", "content": "buy milk", "status": "pending"}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str | None, *calls: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    entries = [
        {"id": id_, "function": {"name": name, "arguments": json.dumps(given)}, "type": "function"}
        for id_, name, given in calls
    ]
    return {"role": "assistant", "content": text} | ({"tool_calls": entries} if entries else {})


def gives(id_: str, name: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "name": name, "content": content}


def todo_result(*todos: dict[str, str]) -> str:
    statuses = ("pending", "in_progress", "completed", "cancelled")
    summary = {"total": len(todos)} | {name: sum(todo["status"] == name for todo in todos) for name in statuses}
    return msgspec.json.encode({"todos": todos, "summary": summary}).decode()


async def replayed(*messages: dict[str, Any], todos: list[dict[str, Any]] | None = None) -> tuple[Replay, str]:
    out = io.StringIO()
    recording = Recording("test:a:s", tuple(msgspec.Raw(msgspec.json.encode(message)) for message in messages), todos)
    replay = Replay(recording, out)
    await replay.run()
    return replay, out.getvalue()


TOOLS = (
    user("roll twice"),
    says(None, ("a", "roll", {"sides": 6}), ("b", "gone_since", {})),
    gives("a", "roll", "4"),
    gives("b", "gone_since", "Error: it broke"),
    says(None, ("c", "roll", {"sides": 6})),
    gives("c", "roll", "2"),
    says("4 and 2"),
)
STEERED = (
    user("roll"),
    says(None, ("e", "roll", {"sides": 6})),
    gives("e", "roll", "4"),
    user("and once more"),
    says(None, ("f", "roll", {"sides": 6})),
    gives("f", "roll", "2"),
    says("4 and 2"),
)
TODO = (
    user("add milk"),
    says(None, ("d", "todo", {"todos": [MILK]})),
    gives("d", "todo", todo_result(MILK)),
    says("added"),
)


async def test_recorded_model_and_tool_outputs_give_the_same_turns() -> None:
    replay, told = await replayed(user("hi"), user("and"), says("hello"), *TOOLS, *TODO, todos=[MILK])
    assert (replay.turns, replay.differences, told) == (3, 0, "")


async def test_words_that_joined_a_turn_are_replayed_where_they_came() -> None:
    replay, told = await replayed(*STEERED)
    assert (replay.differences, told) == (0, "")


async def test_a_recording_that_ends_in_the_middle_of_a_turn_is_replayed_so_far() -> None:
    for cut in (4, 6):
        replay, told = await replayed(*TOOLS[:cut], *TODO, todos=[MILK])
        assert (replay.turns, replay.differences, told) == (2, 0, "")


async def test_an_interrupted_todo_call_is_not_made() -> None:
    stopped = "Error: interrupted before this call gave a result; it may or may not have happened."
    cut = (user("add"), says(None, ("e", "todo", {"todos": [MILK]})), gives("e", "todo", stopped), says("Stopped."))
    assert (await replayed(*cut, todos=[]))[0].differences == 0


async def test_a_recording_may_begin_with_a_list() -> None:
    read = (user("list"), says(None, ("f", "todo", {})), gives("f", "todo", todo_result(MILK)), says("milk"))
    assert (await replayed(*read, todos=[MILK]))[0].differences == 0


async def test_a_todo_result_that_the_code_of_today_does_not_give_is_shown_once() -> None:
    old = todo_result(MILK).replace("buy milk", "BUY MILK")
    replay, told = await replayed(*TODO[:2], gives("d", "todo", old), *TODO[3:], user("hi"), says("hello"))
    assert replay.differences == 1
    assert told.startswith("turn 1, message 3\n  recorded: ")
    assert "BUY MILK" in told
    assert "replayed: " in told


@pytest.mark.parametrize(
    ("messages", "where"),
    [
        ((user("hi"), says("  hello\n")), "turn 1, message 2"),
        ((user("hi"), says("")), "turn 1, message 2"),
        ((user("hi"), says("hello"), says("again")), "turn 1, message 3"),
        ((user("hi"), {"role": "assistant", "content": [{"type": "text", "text": "x"}]}), "turn 1 cannot be replayed"),
        ((*TOOLS[:3], *TOOLS[4:]), "turn 1, message 4"),
    ],
    ids=["blanks", "empty", "two-ends", "unreadable", "no-result"],
)
async def test_what_the_turn_code_would_not_have_written_is_a_difference(
    messages: tuple[dict[str, Any], ...], where: str
) -> None:
    replay, told = await replayed(*messages)
    assert replay.differences >= 1
    assert told.startswith(where)


async def test_another_list_at_the_end_is_a_difference() -> None:
    replay, told = await replayed(*TODO, todos=[])
    assert (replay.differences, told.splitlines()[0]) == (1, "the todo list at the end")


def test_the_command_tells_what_it_found_by_its_status() -> None:
    for recording, status in (
        ({"session": "s", "messages": TOOLS, "todos": None}, 0),
        ({"session": "s", "messages": [user("hi"), says("")]}, 1),
        ({"session": "s"}, 2),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "worker.replay"],
            input=json.dumps(recording).encode(),
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert ended.returncode == status, ended.stderr
    assert ended.stderr.startswith(b"gatehouse: ")
