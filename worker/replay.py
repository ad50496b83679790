"""``python -m worker.replay``: run a recorded session again, against its recorded model and tool outputs.

The recording is a session's history, read from stdin as ``{"session", "messages", "todos"}``. Its assistant messages
are what the model says, its tool messages what the tools give; the turns run in the code of today, the todo tool too.
Where their transcripts differ from the recording it is printed. Exit status: 0 no difference, 1 some, 2 no recording.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, TextIO

import msgspec

from shared.errors import ModelRejected
from shared.messages import Usage
from worker.agent.context import transcript
from worker.agent.models.port import CallWatch, ModelReply, ModelRequest
from worker.agent.todo import TOOL_NAMES, TodoStore, hydrate
from worker.agent.turn import Turn
from worker.agent.turn_request import TurnRequest
from worker.tools.context import ToolContext
from worker.tools.spec import ToolCall
from worker.tools.toolbox import OnResult, Toolbox, tell_nobody

TURN_DEADLINE_S = 60.0
#: messages before a turn that it is given; the recorded model does not read them
HISTORY_MESSAGES = 100
SHOWN_CHARACTERS = 2000
#: tokens of a window: summaries are no part of a recording, so none is asked for
UNBOUNDED = sys.maxsize


class Recording(msgspec.Struct, frozen=True):
    """A session as it was: transcript messages, oldest first, and the todo list at the end (null if not known)."""

    session: str
    messages: tuple[msgspec.Raw, ...]
    todos: list[dict[str, Any]] | None = None


class RecordedTurn(msgspec.Struct, frozen=True):
    """One turn of a recording; ``before`` is the place of its first message."""

    before: int
    messages: tuple[bytes, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """What the user said."""
        read = [transcript.read(message) for message in self.messages]
        return tuple(message.content or "" for message in read if message.role == "user")

    def replies(self) -> list[ModelReply]:
        """Return what the model said."""
        read = [transcript.read(message) for message in self.messages]
        return [_reply(message) for message in read if message.role == "assistant"]

    def results(self) -> dict[str, str]:
        """Return what the tools gave, by the ids of their calls."""
        read = [transcript.read(message) for message in self.messages]
        return {message.tool_call_id: message.content or "" for message in read if message.role == "tool"}


class RecordedModel:
    """Says what the recorded one said; ``at_end`` is called where the recording ends in the middle of a turn."""

    name = "recorded"

    def __init__(self, replies: Sequence[ModelReply], at_end: Callable[[], None]) -> None:
        self._replies = list(replies)
        self._at_end = at_end

    async def reply(
        self,
        request: ModelRequest,  # noqa: ARG002 - the port's; a recording answers whatever is asked
        on_text: Callable[[str], None] | None = None,  # noqa: ARG002 - likewise
        *,
        timeout: float = 300.0,  # noqa: ARG002 - likewise
        watch: CallWatch | None = None,  # noqa: ARG002 - likewise
    ) -> ModelReply:
        """Return the next recorded answer. Raises ModelRejected where there is none."""
        if not self._replies:
            raise ModelRejected("the recording has no further model call")
        reply = self._replies.pop(0)
        if reply.tool_calls and not self._replies:
            self._at_end()
        return reply

    async def close(self) -> None:
        """Close nothing."""


class RecordedToolbox(Toolbox):
    """Gives what the recorded tools gave; the todo tool is the real one."""

    def __init__(self, results: dict[str, str]) -> None:
        super().__init__()
        self._results = results

    async def call(self, call: ToolCall, context: ToolContext, on_result: OnResult = tell_nobody) -> str:
        """Return the recorded result of a call."""
        recorded = self._results.get(call.id)
        if call.name in TOOL_NAMES and (recorded is None or recorded.startswith("{")):
            return await super().call(msgspec.structs.replace(call, name="todo"), context, on_result)
        text = recorded if recorded is not None else f"Error: the recording has no result of {call.name}."
        on_result(text)
        return text


class Replay:
    """Runs a recording's turns one after the other; ``differences`` counts where they differ."""

    def __init__(self, recording: Recording, out: TextIO) -> None:
        self._recording = recording
        self._messages = [bytes(message) for message in recording.messages]
        self._out = out
        self._todo = TodoStore.from_bytes(first_list(self._messages))
        self.turns = 0
        self.differences = 0

    async def run(self) -> None:
        """Run every turn, and print what differs."""
        for turn in turns_of(self._messages):
            self.turns += 1
            try:
                replayed = await self._run_turn(turn)
            except msgspec.DecodeError as error:
                self._differs(f"turn {self.turns} cannot be replayed: {error}")
                continue
            self._compare(turn, replayed)
            # what differs in one turn is told once, and not of every later one too
            self._todo = hydrate(turn.messages, len(turn.messages)) or self._todo
        kept = self._recording.todos
        if kept is not None and msgspec.json.decode(self._todo.to_bytes()) != kept:
            self._differs("the todo list at the end", msgspec.json.encode(kept), self._todo.to_bytes())

    async def _run_turn(self, recorded: RecordedTurn) -> list[bytes]:
        history = self._messages[max(0, recorded.before - HISTORY_MESSAGES) : recorded.before]
        request = TurnRequest(
            session=self._recording.session,
            message_id=f"replay_{self.turns}",
            texts=recorded.texts,
            history=history,
            deadline_s=TURN_DEADLINE_S,
            window_tokens=UNBOUNDED,
        )
        toolbox = RecordedToolbox(recorded.results())
        # the turn is made after its model
        model = RecordedModel(recorded.replies(), lambda: turn.park())  # noqa: PLW0108
        turn = Turn(request, model, toolbox, self._todo)
        try:
            await turn.run()
        finally:
            toolbox.close()
        return turn.messages

    def _compare(self, recorded: RecordedTurn, replayed: Sequence[bytes]) -> None:
        for place, (old, new) in enumerate(zip_longest(recorded.messages, replayed), recorded.before + 1):
            if old is None or new is None or msgspec.json.decode(old) != msgspec.json.decode(new):
                self._differs(f"turn {self.turns}, message {place}", old, new)

    def _differs(self, where: str, recorded: bytes | None = b"", replayed: bytes | None = b"") -> None:
        self.differences += 1
        self._out.write(f"{where}\n")
        for name, message in (("recorded", recorded), ("replayed", replayed)):
            if message != b"":
                text = "(nothing)" if message is None else message.decode("utf-8", "replace")
                self._out.write(f"  {name}: {text[:SHOWN_CHARACTERS]}\n")


def turns_of(messages: Sequence[bytes]) -> Iterator[RecordedTurn]:
    """Yield the turns of a history: each begins with what a user said; what is before the first one is no turn."""
    roles = [_role(message) for message in messages]
    starts = [
        place for place, role in enumerate(roles) if role == "user" and (place == 0 or roles[place - 1] != "user")
    ]
    for start, end in zip(starts, [*starts[1:], len(messages)], strict=True):
        yield RecordedTurn(start, tuple(messages[start:end]))


def first_list(messages: Sequence[bytes]) -> bytes | None:
    """Return the todo list that a recording begins with, as its first todo call tells if that call only read it."""
    for place, message in enumerate(messages):
        calls = msgspec.json.decode(message, type=_Calls).tool_calls or ()
        call = next((call for call in calls if call.function.name in TOOL_NAMES), None)
        if call is not None:
            if _changes(call.function.arguments):
                return None
            found = hydrate(messages[place : place + 1 + len(calls)], 1 + len(calls))
            return found.to_bytes() if found else None
    return None


class _Role(msgspec.Struct):
    role: str = ""


class _Calls(msgspec.Struct):
    tool_calls: tuple[transcript.TranscriptCall, ...] | None = None


def _role(message: bytes) -> str:
    return msgspec.json.decode(message, type=_Role).role


def _changes(arguments: str) -> bool:
    try:
        return bool(msgspec.json.decode(arguments or "{}", type=dict[str, Any]).get("todos") is not None)
    except msgspec.DecodeError:
        return False


def _reply(message: transcript.TranscriptMessage) -> ModelReply:
    calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls)
    return ModelReply(message.content or "", calls, Usage(1), "recorded", "recorded", "tool_calls" if calls else "stop")


def main() -> int:
    """Replay the recording on stdin and return the exit status."""
    try:
        recording = msgspec.json.decode(sys.stdin.buffer.read(), type=Recording)
        replay = Replay(recording, sys.stdout)
    except msgspec.DecodeError as error:
        sys.stderr.write(f"gatehouse: this is no recording: {error}\n")
        return 2
    asyncio.run(replay.run())
    found = f"{replay.differences} differences" if replay.differences != 1 else "1 difference"
    sys.stdout.write(f"{replay.turns} turns replayed: {found if replay.differences else 'no difference'}\n")
    return 1 if replay.differences else 0


if __name__ == "__main__":
    sys.exit(main())
