"""The model calls, tool calls and lost attempts of the latest messages, with their times: what the console draws.

They are kept in memory, as the turns of this gateway's pool tell them: the store keeps of a finished step what was
said, not how long each call took.
"""

from __future__ import annotations

import enum
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar

import msgspec

from shared.events import Event, Field

#: messages that are remembered, and parts of one
MESSAGES_KEPT = 1000
PARTS_KEPT = 200
#: turns in progress that are remembered at most
OPEN_LIMIT = 10_000


class PartKind(enum.StrEnum):
    """What a part of a message's way is."""

    MODEL = "model"  #: a model call, or a try of one that failed
    TOOL = "tool"  #: a tool call
    ATTEMPT = "attempt"  #: an execution that was lost or handed on


class MessagePart(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened on a message's way; times are unix seconds."""

    kind: PartKind
    #: the model, the tool, or how the execution ended
    name: str
    started_at: float
    ended_at: float
    #: what went wrong, empty for nothing
    problem: str = ""
    #: the model's id of a tool call
    call_id: str = ""
    #: tokens that a model read and wrote
    input_tokens: int = 0
    output_tokens: int = 0


class CallHistory:
    """Owns what is remembered; a subscriber of events, on any thread."""

    heard: ClassVar = (
        Event.SESSION_CLAIMED,
        Event.MODEL_ANSWERED,
        Event.MODEL_FAILED,
        Event.TOOL_ENDED,
        Event.TURN_ENDED,
        Event.MESSAGE_DEAD,
        Event.TURN_PARKED,
        Event.TURN_RETRIED,
        Event.CLAIM_LOST,
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, list[MessagePart]] = {}
        self._ended: OrderedDict[str, list[MessagePart]] = OrderedDict()

    def on_event(self, event: Event, fields: Mapping[str, Field]) -> None:
        """Take what a turn did, and whose turn it was once that is told."""
        session, message = str(fields.get("session", "")), str(fields.get("message", ""))
        match event:
            case Event.SESSION_CLAIMED:
                with self._lock:
                    if len(self._running) < OPEN_LIMIT:
                        self._running[session] = []
            case Event.MODEL_ANSWERED | Event.MODEL_FAILED | Event.TOOL_ENDED:
                with self._lock:
                    parts = self._running.get(session)
                    if parts is not None and len(parts) < PARTS_KEPT:
                        parts.append(part_of(event, fields))
            case Event.TURN_ENDED | Event.MESSAGE_DEAD:
                self._keep(session, message)
            case Event.TURN_PARKED | Event.TURN_RETRIED | Event.CLAIM_LOST:
                self._keep(session, message, part_of(event, fields))

    def parts(self, session: str, message: str, *, running: bool) -> tuple[MessagePart, ...]:
        """Return what is remembered of a message, in its order; with ``running`` also of the turn in progress."""
        with self._lock:
            known = self._ended.get(message, [])
            return (*known, *self._running.get(session, [])) if running else tuple(known)

    def _keep(self, session: str, message: str, last: MessagePart | None = None) -> None:
        with self._lock:
            parts = self._running.pop(session, None)
            if parts is None:
                return
            known = self._ended.setdefault(message, [])
            known += parts if last is None else [*parts, last]
            del known[PARTS_KEPT:]
            self._ended.move_to_end(message)
            while len(self._ended) > MESSAGES_KEPT:
                self._ended.popitem(last=False)


def part_of(event: Event, fields: Mapping[str, Field]) -> MessagePart:
    """Return what an event tells as a part that ends now."""
    now, seconds = time.time(), fields.get("seconds")
    began = now - seconds if isinstance(seconds, int | float) else now
    match event:
        case Event.MODEL_ANSWERED:
            tokens = int(fields.get("input_tokens") or 0), int(fields.get("output_tokens") or 0)
            return MessagePart(PartKind.MODEL, str(fields.get("model", "")), began, now, "", "", *tokens)
        case Event.MODEL_FAILED:
            return MessagePart(PartKind.MODEL, str(fields.get("model", "")), began, now, str(fields.get("problem", "")))
        case Event.TOOL_ENDED:
            call = str(fields.get("call", ""))
            return MessagePart(PartKind.TOOL, str(fields.get("tool", "")), began, now, call_id=call)
        case _:
            problem = str(fields.get("error") or "")
            return MessagePart(PartKind.ATTEMPT, event.value.replace("_", " "), now, now, problem)
