"""The model that needs no key and no network: it echoes chat, keeps a todo list from plain words, and calls tools.

It holds no state. What to do next it reads from the transcript, as any model does: it asks for the list, writes it
changed, and then answers with it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Sequence

import msgspec

from shared.prices import FREE, Price
from shared.usage import BYTES_PER_TOKEN, Usage
from worker.agent.context.prompts import ASKED, HEAD, INSTRUCTION
from worker.agent.models.offline_commands import OfflineCommand, apply, numbered, read_command
from worker.agent.models.offline_json import example
from worker.agent.models.offline_tools import WantedCall, read_tool_call
from worker.agent.models.port import CallWatch, ModelReply, ModelRequest
from worker.agent.models.wire_options import cut
from worker.agent.todo import TOOL_NAMES, TodoItem
from worker.tools.spec import ToolCall, ToolSpec

GREETING = (
    "I am the offline model: I repeat what you say, and I keep a todo list. "
    "Try “add buy milk”, “done 1”, “remove 1”, “clear” or “list”. I call a tool when you begin with its name."
)
_GREETED = re.compile(
    r"(?:hi|hello|hey|help|hallo|good (?:morning|evening|day)|what can you do)\b.{0,40}", re.IGNORECASE
)
_DELTA_CHARACTERS = 12
#: tokens of an answer at most, where the caller says nothing
OUTPUT_LIMIT = 4096
_MOST_DELTAS = 200
#: how a summary is made: of the user's words, so many of the last ones, each so long
_USER, _SAID = "User: ", "- "
_MOST_SAID, _SAID_CHARACTERS = 20, 120


class _Part(msgspec.Struct):
    text: str = ""


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class _Todos(msgspec.Struct):
    todos: list[TodoItem]


class _Seen(msgspec.Struct, frozen=True):
    """The end of a transcript: what the user said last, in one or more messages, and the tool results since then."""

    said: tuple[str, ...]
    results: tuple[str, ...]


_MESSAGES = msgspec.json.Decoder(_Message)
_RESULTS = msgspec.json.Decoder(_Todos)


class OfflineModel:
    """Answers at once."""

    name = "offline"
    price: Price | None = FREE

    async def call(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None] | None = None,
        *,
        timeout: float = 300.0,  # noqa: ARG002 - the port's; it waits for nothing
        stall_s: float = 60.0,  # noqa: ARG002 - likewise
        watch: CallWatch | None = None,
    ) -> ModelReply:
        """Answer as ``worker.agent.models.chain.Link`` describes."""
        text, calls = bound_answer(request)
        text, finish = cut(text, request.options, (request.max_tokens or OUTPUT_LIMIT) * BYTES_PER_TOKEN)
        if on_text is not None:
            await _stream(text, on_text)
        read_bytes = len(request.system) + sum(map(len, request.messages))
        written = len(text) + sum(len(call.arguments) for call in calls)
        usage = Usage(1, 0, 1 + read_bytes // BYTES_PER_TOKEN, 1 + written // BYTES_PER_TOKEN)
        if watch is not None:
            watch.spend(usage)
        return ModelReply(text, calls, usage, "offline", "offline", "tool_calls" if calls else finish)

    async def close(self) -> None:
        """Close nothing: there is no connection."""


def bound_answer(request: ModelRequest) -> tuple[str, tuple[ToolCall, ...]]:
    """Return the answer in the form, and with the tool, that the caller is bound to."""
    seen = _look_back(request.messages)
    words = seen.said[-1] if seen.said else ""
    form = request.options.get("response_format")
    tool = _bound_tool(request) if not seen.results else None
    if tool is not None:
        return "", (_call(tool.name, example(tool.parameters, words)),)
    text, calls = answer(request)
    if form is None or calls:
        return text, calls
    schema = form.get("json_schema", {}).get("schema")
    return msgspec.json.encode(example(schema, words) if schema else {"text": text}).decode(), ()


def _bound_tool(request: ModelRequest) -> ToolSpec | None:
    """Return the tool that has to be called."""
    match request.options.get("tool_choice"):
        case {"function": {"name": name}}:
            return next((spec for spec in request.tools if spec.name == name), None)
        case "required":
            return request.tools[-1] if request.tools else None
        case _:
            return None


def answer(request: ModelRequest) -> tuple[str, tuple[ToolCall, ...]]:
    """Return the text to say, or the tool call to make first."""
    if request.system == INSTRUCTION:
        return _digest(_MESSAGES.decode(request.messages[-1]).text), ()
    seen = _look_back(request.messages)
    wish = read_command(seen.said[-1]) if seen.said else None
    tool = next((spec.name for spec in request.tools if spec.name in TOOL_NAMES), None)
    if wish is None or tool is None:
        wanted = read_tool_call(seen.said[-1], request.tools) if seen.said else None
        return _use_tool(wanted, seen.results) if wanted else (_chat("\n".join(seen.said)), ())
    match seen.results:
        case ():
            return "", (_call(tool, {}),)
        case (result,):
            return _change_or_show(tool, wish, result)
        case _:
            return _show(_words(wish, seen.results[0]), seen.results[-1]), ()


def _look_back(messages: Sequence[bytes]) -> _Seen:
    said: list[str] = []
    results: list[str] = []
    for message in reversed(messages):
        read = _MESSAGES.decode(message)
        if read.role == "user":
            said.append(_asked(read.text))
        elif said:
            break
        elif read.role == "tool":
            results.append(read.text)
    return _Seen(tuple(reversed(said)), tuple(reversed(results)))


def _asked(text: str) -> str:
    """Return what the user said; the head of a window tells it too, where the message itself is not shown any more."""
    return text.rpartition(f"{ASKED}\n\n")[2] if text.startswith(HEAD) and ASKED in text else text


def _digest(text: str) -> str:
    """Return a summary of a conversation: the last things that the user said, those of an earlier summary first."""
    paragraphs = text.split("\n\n")
    earlier = [line for part in paragraphs for line in part.splitlines() if line.startswith(_SAID)]
    words = [" ".join(part[len(_USER) :].split()) for part in paragraphs if part.startswith(_USER)]
    said = [_SAID + word[:_SAID_CHARACTERS] for word in words]
    return "\n".join(["The user said, among other things:", *[*earlier, *said][-_MOST_SAID:]])


def _chat(said: str) -> str:
    if not said.strip():
        return "You said nothing that I can read."
    greeting = f"\n\n{GREETING}" if _GREETED.fullmatch(said.strip()) else ""
    return f"You said: {said}{greeting}"


def _use_tool(wanted: WantedCall, results: Sequence[str]) -> tuple[str, tuple[ToolCall, ...]]:
    """Call the tool, say what it gave, or say how it is called."""
    if results:
        return f"{wanted.tool}: {results[-1]}", ()
    if wanted.arguments is None:
        return f"That is not how {wanted.tool} is called. Try: {wanted.usage}", ()
    return "", (_call(wanted.tool, wanted.arguments),)


def _change_or_show(tool: str, wish: OfflineCommand, result: str) -> tuple[str, tuple[ToolCall, ...]]:
    items = _items(result)
    if items is None:
        return f"The todo list cannot be read: {result}", ()
    change = apply(wish, items)
    if change.arguments is not None:
        return "", (_call(tool, change.arguments),)
    return _show(change.words, result), ()


def _words(wish: OfflineCommand, before: str) -> str:
    """Return what to say of a change that was made, from the list as it was before."""
    items = _items(before)
    return apply(wish, items).words if items is not None else ""


def _show(words: str, result: str) -> str:
    items = _items(result)
    if items is None:
        return f"The todo list cannot be changed: {result}"
    return "\n\n".join(part for part in (words, numbered(items)) if part)


def _items(result: str) -> list[TodoItem] | None:
    try:
        return _RESULTS.decode(result).todos
    except msgspec.DecodeError:
        return None


def _call(tool: str, arguments: dict[str, object]) -> ToolCall:
    return ToolCall(f"call_{secrets.token_hex(12)}", tool, msgspec.json.encode(arguments).decode())


async def _stream(text: str, on_text: Callable[[str], None]) -> None:
    size = max(_DELTA_CHARACTERS, len(text) // _MOST_DELTAS)
    for start in range(0, len(text), size):
        on_text(text[start : start + size])
        await asyncio.sleep(0)
