"""Compaction: when a window fills, its older part is summarized by one model call, or left out where that fails.

The summary folds in the one before it, leaves the todo list out, which is put beside it as it is now, and touches no
transcript: the whole history stays in the store. What fails or is refused costs the summary, never the turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from shared.errors import GatehouseError
from shared.messages import Summary
from shared.usage import BYTES_PER_TOKEN, Usage
from worker.agent.context import transcript
from worker.agent.context.prompts import CONVERSATION, EARLIER, INSTRUCTION
from worker.agent.context.repair import role_of
from worker.agent.context.window import Window
from worker.agent.models.port import CallWatch, Model, ModelReply, ModelRequest
from worker.agent.sanitize import sanitize_text
from worker.agent.todo import TOOL_NAMES, TodoStore

#: how much of its limit a window is cut to: a cut is rare, so that a provider's prompt cache holds for long
KEPT_SHARE = 0.5
TEXT_LIMIT_CHARS = 12_000  #: characters of a summary
MESSAGE_LIMIT_CHARS = 4_000  #: characters of what somebody said, as the summarizing model reads it
RESULT_LIMIT_CHARS = 1_000  #: characters of a tool's result or of its arguments there
MOST_TOKENS, LEAST_TOKENS = 2_048, 256  #: that a summary may have

#: the reasons of a model to end its answer that make it none
REFUSALS = frozenset({"refusal", "content_filter", "safety"})


class NoSummary(GatehouseError):
    """Raised when a model answered without a summary; who makes room leaves the older part out then."""


class Compaction:
    """Makes room in one window; ``made`` is the last summary it got, None for none.

    ``spend`` gets what each call has used, whatever came of it; ``on_made`` is told of each summary, ``on_failed`` of
    each failure in words; none may block.
    """

    def __init__(
        self,
        window: Window,
        model: Model,
        todo: TodoStore,
        session: str,
        *,
        spend: Callable[[Usage], None],
        on_made: Callable[[Summary], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self.made: Summary | None = None
        self._window = window
        self._model = model
        self._todo = todo
        self._session = session
        self._spend = spend
        self._on_made = on_made
        self._on_failed = on_failed

    async def make_room(self, limit_tokens: int, unfinished: int, timeout_s: float) -> None:
        """Summarize what is more than half of this limit, by one call of at most so many seconds.

        The newest messages stay, at least the last ``unfinished``. Where nothing can go nothing is asked.
        """
        window = self._window
        count = window.surplus(int(limit_tokens * KEPT_SHARE), unfinished)
        if count == 0:
            return
        try:
            reply = await self._ask(summary_request(window, count, limit_tokens, self._session), timeout_s)
            text = summary_text(reply, limit_tokens)
        except (GatehouseError, TimeoutError) as failure:
            self._on_failed(f"{type(failure).__name__}: {failure}")
            self.cut(limit_tokens, unfinished)
        else:
            summary = self._summary(count, text, limit_tokens)
            window.drop(count, summary)
            self.made = summary
            self._on_made(summary)

    def cut(self, limit_tokens: int, unfinished: int) -> None:
        """Leave out what is more than half of this limit, as far as it can go."""
        count = self._window.surplus(int(limit_tokens * KEPT_SHARE), unfinished)
        if count:
            earlier = self._window.summary
            self._window.drop(count, self._summary(count, earlier.text if earlier else "", limit_tokens))

    async def _ask(self, request: ModelRequest, timeout_s: float) -> ModelReply:
        watch = CallWatch()
        try:
            reply = await self._model.reply(request, timeout=timeout_s, watch=watch)
        except BaseException:
            self._spend(watch.usage)
            raise
        self._spend(msgspec.structs.replace(reply.usage, model_calls=max(1, reply.usage.model_calls)))
        return reply

    def _summary(self, count: int, text: str, limit_tokens: int) -> Summary:
        window = self._window
        return Summary(
            covers=window.first + count,
            text=text,
            todo=self._todo.to_bytes(),
            asked=_asked(window, count)[: limit_tokens // 2],
            opening=window.opening,
        )


def summary_request(window: Window, count: int, limit_tokens: int, session: str) -> ModelRequest:
    """Return the model call that summarizes the oldest messages of a window; what is too much of them is left out."""
    earlier = window.summary.text if window.summary else ""
    left = limit_tokens * BYTES_PER_TOKEN - len(earlier)
    lines: list[str] = []
    for line in told(window.messages[:count] if window.summary else window.messages[len(window.opening) : count]):
        left -= len(line)
        if left < 0:
            break
        lines.append(line)
    asked = [f"{EARLIER}\n\n{earlier}"] if earlier else []
    asked.append(f"{CONVERSATION}\n\n" + "\n\n".join(reversed(lines)))
    tokens = min(max(limit_tokens // 4, LEAST_TOKENS), MOST_TOKENS)
    return ModelRequest(INSTRUCTION, [transcript.user("\n\n".join(asked))], (), session, tokens)


def summary_text(reply: ModelReply, limit_tokens: int) -> str:
    """Return the summary that a model gave. Raises NoSummary."""
    text = sanitize_text(reply.text).strip()
    if not text or reply.tool_calls or reply.finish in REFUSALS:
        raise NoSummary(f"{reply.provider}:{reply.model} gave no summary ({reply.finish})")
    return text[: min(TEXT_LIMIT_CHARS, limit_tokens)]


class _Function(msgspec.Struct):
    name: str = ""
    arguments: Any = ""


class _Call(msgspec.Struct):
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct):
    """What a summary is made of; anything may stand in a history that was given to us."""

    role: str = ""
    content: Any = None
    name: str | None = None
    tool_calls: list[_Call] | None = None


_MESSAGES = msgspec.json.Decoder(_Message)


def told(messages: Sequence[bytes]) -> Iterator[str]:
    """Yield the messages as text, newest first; calls of the todo tool and their results are left out."""
    for message in reversed(messages):
        try:
            seen = _MESSAGES.decode(message)
        except msgspec.DecodeError:
            continue
        if told_as := _told(seen):
            yield told_as


def _told(seen: _Message) -> str:
    text = _text(seen.content)
    match seen.role:
        case "tool":
            return "" if seen.name in TOOL_NAMES else f"Result of {seen.name or 'a tool'}: {text[:RESULT_LIMIT_CHARS]}"
        case "assistant":
            calls = [call.function for call in seen.tool_calls or () if call.function.name not in TOOL_NAMES]
            used = [f"[calls {call.name} {str(call.arguments)[:RESULT_LIMIT_CHARS]}]" for call in calls]
            said = "\n".join(filter(None, (text[:MESSAGE_LIMIT_CHARS], *used)))
            return f"Assistant: {said}" if said else ""
        case "user" | "system" | "developer":
            return f"{seen.role.capitalize()}: {text[:MESSAGE_LIMIT_CHARS]}"
        case _:
            return ""


def _text(content: object) -> str:
    """Return the text of a message's content, a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return "\n".join(str(part["text"]) for part in parts if isinstance(part, dict) and part.get("text"))


def _asked(window: Window, count: int) -> str:
    """Return what the user had said last before the messages that stay, if those begin in the middle of a turn."""
    if role_of(window.messages[count]) == "user":
        return ""
    said: list[str] = []
    for message in reversed(window.messages[:count]):
        if role_of(message) == "user":
            said.append(_text(_MESSAGES.decode(message).content))
        elif said:
            break
    if not said and window.summary:
        return window.summary.asked
    return "\n\n".join(reversed(said))
