"""An answer that its provider broke off, to be asked to go on: after many calls of its own tools, or a compaction.

What came so far goes back as it came, and the model goes on with it (stop reasons ``pause_turn`` and ``compaction``):
https://docs.claude.com/en/api/handling-stop-reasons
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from worker.agent.context import transcript
from worker.agent.models.failures import EmptyAnswer
from worker.agent.models.port import LENGTH, PAUSED, ModelReply, ModelRequest
from worker.agent.models.provider_state import ProviderState, decode_state, encode_state

#: the stop reasons of such an answer
PAUSES = frozenset(("pause_turn", "compaction"))
#: how often one answer is asked to go on: each time its provider has called its tools ten times or so
MOST_CONTINUED = 10


def going_on(request: ModelRequest, reply: ModelReply) -> ModelRequest:
    """Return the request that lets the model go on with this answer."""
    state = _state(reply)
    *before, last = state.blocks
    if last.get("type") == "text":  # an answer to go on with must not end with blanks
        last = last | {"text": str(last.get("text")).rstrip()}
    ended = msgspec.structs.replace(state, blocks=[*before, last])
    said = transcript.assistant(reply.text, (), encode_state(ended))
    return msgspec.structs.replace(request, messages=[*request.messages, said])


def join(reply: ModelReply, more: ModelReply) -> ModelReply:
    """Return an answer and what followed as one."""
    before, after = _state(reply), _state(more)
    # an end without anything to give back has its words in its text alone
    last = after.blocks or _written(more)
    blocks = [*before.blocks, *last]
    if not more.tool_calls and more.finish != PAUSED:
        blocks = without_open_calls(blocks)
    state = ProviderState(before.origin, blocks=blocks, container=after.container or before.container)
    return msgspec.structs.replace(
        more, text=reply.text + more.text, usage=reply.usage + more.usage, state=encode_state(state)
    )


def end(reply: ModelReply, finish: str) -> ModelReply:
    """Return a paused answer as one that has ended. Raises EmptyAnswer."""
    if not reply.text.strip():
        raise EmptyAnswer(f"{reply.provider}:{reply.model} paused its answer again and again and said no word", LENGTH)
    state = _state(reply)
    kept = msgspec.structs.replace(state, blocks=without_open_calls(state.blocks))
    return msgspec.structs.replace(reply, finish=finish, state=encode_state(kept))


def without_open_calls(blocks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the blocks of an answer without calls of the provider's own tools that have no result: it refuses them."""
    answered = {block.get("tool_use_id") for block in blocks}
    return [
        block for block in blocks if not str(block.get("type")).endswith("_tool_use") or block.get("id") in answered
    ]


def _state(reply: ModelReply) -> ProviderState:
    return decode_state(msgspec.json.decode(reply.state)) if reply.state else ProviderState()


def _written(reply: ModelReply) -> list[dict[str, Any]]:
    """Return the blocks of an answer that is all in the transcript."""
    said: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text.strip() else []
    return [*said, *({"type": "tool_use", "call": number} for number in range(len(reply.tool_calls)))]
