"""A model that answers from a script, and the small things turn tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from shared.messages import Ended, Step, Usage
from worker.agent.models.port import CallWatch, ModelReply, ModelRequest
from worker.agent.progress import TurnNews
from worker.agent.turn import Turn
from worker.tools.spec import ToolCall


class Hang(msgspec.Struct, frozen=True):
    """A script entry: say this much, then never end."""

    said: str = ""


class ScriptedModel:
    """Answers each call with the next entry of its script; keeps the requests, and how many calls were cancelled."""

    name = "scripted:model"

    def __init__(self, *script: ModelReply | Exception | Hang) -> None:
        self.script = list(script)
        self.requests: list[ModelRequest] = []
        self.cancelled = 0
        self.called = asyncio.Event()

    async def reply(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None] | None = None,
        *,
        timeout: float = 300.0,
        watch: CallWatch | None = None,
    ) -> ModelReply:
        self.requests.append(msgspec.structs.replace(request, messages=list(request.messages)))
        entry = self.script.pop(0)
        if isinstance(entry, Hang):
            await self._hang(entry, on_text)
        if isinstance(entry, Exception):
            raise entry
        assert isinstance(entry, ModelReply)
        if on_text and entry.text:
            on_text(entry.text)
        await asyncio.sleep(0)
        return entry

    async def _hang(self, entry: Hang, on_text: Callable[[str], None] | None) -> None:
        if on_text and entry.said:
            on_text(entry.said)
        self.called.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def close(self) -> None:
        return None


class Recorded(TurnNews):
    """Keeps everything a turn tells."""

    def __init__(self) -> None:
        self.texts: list[tuple[int, str]] = []
        self.started: list[ToolCall] = []
        self.said: list[tuple[str, str]] = []
        self.ended: list[bytes] = []
        self.steps: list[Step] = []
        self.tool_running = asyncio.Event()
        self.waited_for: set[str] = set()
        self.restarts = 0

    def restarted(self, step: int) -> None:
        self.restarts += 1

    def model_away(self, model: str, problem: str) -> None:
        self.waited_for.add(model)

    def text(self, step: int, text: str) -> None:
        self.texts.append((step, text))

    def tool_started(self, call: ToolCall) -> None:
        self.started.append(call)
        self.tool_running.set()

    def tool_said(self, call: ToolCall, text: str) -> None:
        self.said.append((call.name, text))

    def tool_ended(self, call: ToolCall, message: bytes) -> None:
        self.ended.append(message)

    def step_done(self, step: Step) -> None:
        self.steps.append(step)


def says(text: str, finish: str = "stop") -> ModelReply:
    """A reply without tool calls."""
    return ModelReply(text, (), Usage(model_calls=1, input_tokens=3, output_tokens=2), "scripted", "model", finish)


def asks(*calls: tuple[str, str] | ToolCall, text: str = "") -> ModelReply:
    """A reply that asks for tools, given as (name, JSON arguments)."""
    made = tuple(
        call if isinstance(call, ToolCall) else ToolCall(f"call_{number}", *call) for number, call in enumerate(calls)
    )
    return ModelReply(text, made, Usage(model_calls=1), "scripted", "model", "tool_calls")


def decoded(messages: Any) -> list[dict[str, Any]]:
    """The transcript messages as dicts."""
    return [msgspec.json.decode(message) for message in messages]


def unanswered(messages: Any) -> list[str]:
    """The tool calls of a transcript that have no result right behind them, and results without a call."""
    wrong: list[str] = []
    waiting: list[str] = []
    for message in decoded(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] in waiting:
                waiting.remove(message["tool_call_id"])
            else:
                wrong.append(message["tool_call_id"])
            continue
        wrong += waiting
        waiting = [call["id"] for call in message.get("tool_calls", ())]
    return wrong + waiting


async def ended(turn: Turn) -> Ended:
    """Run a turn to its end; its transcript and what a model is shown of it are valid for every provider."""
    outcome = await turn.run()
    assert isinstance(outcome, Ended)
    assert unanswered(turn.messages) == []
    assert unanswered(turn.window.shown) == []
    return outcome
