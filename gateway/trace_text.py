"""Where a message is, in words: for the command line and for chat."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from shared.store.port import Store
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


def trace_lines(found: MessageTrace, *, brief: bool = False) -> list[str]:
    """Return a message's stages, one a line; ``brief`` keeps of an error what is for the people of a chat."""
    state = "running" if found.running else found.state.value
    lines = [
        f"{found.id}  {state}  session {found.session}  from {found.user}",
        f"accepted  {moment(found.accepted_at)}",
    ]
    if found.claimed_at is not None:
        suspect = "  runs alone" if found.suspect else ""
        worker = found.worker or "-"
        lines.append(f"claimed   {moment(found.claimed_at)}  worker {worker}  attempts {found.attempts}{suspect}")
    if found.settled_at is not None:
        lines.append(f"settled   {moment(found.settled_at)}  {spent(found)}")
    elif found.claimed_at is not None:
        lines.append(f"so far    {found.steps} steps, {spent(found)}")
        lines += [call_line(call) for call in found.calls]
        if found.said:
            lines.append(f"says      {found.said}")
    if found.joined:
        lines.append(f"joined    the turn of {found.joined}")
    lines += [reply_line(reply) for reply in found.replies]
    error = last_line(found.error) if brief else found.error
    return [*lines, f"error     {error}"] if error else lines


def last_line(error: str) -> str:
    """Return what a traceback ends with: the files before it are for the operator."""
    return error.strip().rpartition("\n")[2][:MOST_ERROR_CHARACTERS]


def spent(found: MessageTrace) -> str:
    """Return what a message's turn used, in words."""
    usage = found.usage
    calls = f"{usage.model_calls} model calls, {usage.tool_calls} tool calls"
    cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
    cost = f", ${usage.cost:.4f}" if usage.cost else ""
    return f"{calls}, {usage.input_tokens} tokens in{cached}, {usage.output_tokens} out{cost}"


def call_line(call: CallTrace) -> str:
    """Return one tool call in progress, in words."""
    how = "running" if call.ended_at is None else f"took {call.ended_at - call.started_at:.3f} s"
    return f"tool      {moment(call.started_at)}  {call.name}  {how}"


def reply_line(reply: ReplyTrace) -> str:
    """Return one reply's way out, in words."""
    when = moment(reply.sent_at) if reply.sent_at is not None else f"after {reply.attempts} attempts"
    return f"reply {reply.part}   {when}  {reply.state.value}  {reply.sent_id or reply.error or '-'}"


def moment(unix_s: float) -> str:
    """Return a time for people, to the millisecond, in local time."""
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))
    return f"{whole}.{int(unix_s * 1000) % 1000:03d}"
