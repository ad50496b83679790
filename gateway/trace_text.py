"""Where a message is, in words: for the command line and for chat."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from shared.store.port import Store
from shared.texts import ENGLISH, Texts
from shared.traces import CallTrace, MessageTrace, ReplyTrace
from worker.pool import TurnRow

#: what people in a chat are shown of an error
MOST_ERROR_CHARACTERS = 200

#: returns a session's running turn, None if none runs here
RunningTurnOf = Callable[[str], TurnRow | None]


async def trace_message(store: Store, running_turn: RunningTurnOf, message_id: str) -> MessageTrace:
    """Return every stage of one message, with the worker it runs in now. Raises NotFound."""
    found = await store.inbox.trace(message_id)
    row = running_turn(found.session) if found.running else None
    if row is None or row.message_id != message_id:
        return found
    return msgspec.structs.replace(found, worker="" if row.worker is None else str(row.worker), said=row.said)


def trace_lines(found: MessageTrace, texts: Texts = ENGLISH, *, brief: bool = False) -> list[str]:
    """Return a message's stages, one a line; ``brief`` keeps of an error what is for the people of a chat."""
    state = texts.state_running if found.running else texts.of_state(found.state)
    lines = [
        texts.trace_message.format(id=found.id, state=state, session=found.session, user=found.user),
        texts.trace_accepted.format(at=moment(found.accepted_at)),
    ]
    if found.claimed_at is not None:
        at, worker = moment(found.claimed_at), found.worker or "-"
        claimed = texts.trace_claimed.format(at=at, worker=worker, attempts=found.attempts)
        lines.append(texts.trace_alone.format(claimed=claimed) if found.suspect else claimed)
    if found.settled_at is not None:
        lines.append(texts.trace_settled.format(at=moment(found.settled_at), spent=spent(found, texts)))
    elif found.claimed_at is not None:
        lines.append(texts.trace_so_far.format(steps=found.steps, spent=spent(found, texts)))
        lines += [call_line(call, texts) for call in found.calls]
        lines += [texts.trace_says.format(text=found.said)] if found.said else []
    if found.joined:
        lines.append(texts.trace_joined.format(id=found.joined))
    lines += [reply_line(reply, texts) for reply in found.replies]
    error = last_line(found.error) if brief else found.error
    return [*lines, texts.trace_error.format(error=error)] if error else lines


def last_line(error: str) -> str:
    """Return what a traceback ends with: the files before it are for the operator."""
    return error.strip().rpartition("\n")[2][:MOST_ERROR_CHARACTERS]


def spent(found: MessageTrace, texts: Texts) -> str:
    """Return what a message's turn used, in words."""
    usage = found.usage
    return texts.trace_spent.format(
        calls=usage.model_calls,
        tools=usage.tool_calls,
        input=usage.input_tokens,
        cached=texts.trace_cached.format(count=usage.cached_tokens) if usage.cached_tokens else "",
        output=usage.output_tokens,
        cost=f", ${usage.cost:.4f}" if usage.cost else "",
    )


def call_line(call: CallTrace, texts: Texts) -> str:
    """Return one tool call in progress, in words."""
    at, name = moment(call.started_at), call.name
    if call.ended_at is None:
        return texts.trace_tool_runs.format(at=at, tool=name)
    return texts.trace_tool_took.format(at=at, tool=name, seconds=f"{call.ended_at - call.started_at:.3f}")


def reply_line(reply: ReplyTrace, texts: Texts) -> str:
    """Return one reply's way out, in words."""
    known = {"part": reply.part, "state": texts.of_state(reply.state), "what": reply.sent_id or reply.error or "-"}
    if reply.sent_at is None:
        return texts.trace_reply_tried.format(attempts=reply.attempts, **known)
    return texts.trace_reply.format(at=moment(reply.sent_at), **known)


def moment(unix_s: float) -> str:
    """Return a time for people, to the millisecond, in local time."""
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))
    return f"{whole}.{int(unix_s * 1000) % 1000:03d}"
