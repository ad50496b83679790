"""The workers that were killed last, with their stacks: what the console shows of hangs, in memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import ClassVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.responses import json_response
from shared.events import Event, Field

#: kills that are kept
KEPT = 20


class WorkerKill(msgspec.Struct):
    """One worker that the pool killed, or that died."""

    at: float  #: unix seconds
    n: int | None  #: the slot it held
    pid: int
    cause: str  #: as the crash policy names it
    error: str
    stacks: str = ""  #: of every thread at the moment of the kill, where they could be read
    message: str = ""  #: the message whose turn held it up, where one is named


class HangHistory:
    """Owns the list; a subscriber of events, which says what others did."""

    heard: ClassVar = (Event.WORKER_HUNG, Event.WORKER_STACKS, Event.WORKER_KILLED)

    def __init__(self) -> None:
        self._kills: deque[WorkerKill] = deque(maxlen=KEPT)
        self._stacks: dict[int, str] = {}
        self._messages: dict[int, str] = {}

    def on_event(self, event: Event, fields: Mapping[str, Field]) -> None:
        """Take the end of a worker; its stacks are told before it."""
        match event:
            case Event.WORKER_HUNG:
                self._messages[int(str(fields["pid"]))] = str(fields.get("message", ""))
            case Event.WORKER_STACKS:
                self._stacks[int(str(fields["pid"]))] = str(fields["stacks"])
            case Event.WORKER_KILLED:
                pid, n = int(str(fields["pid"])), fields.get("n")
                slot = n if isinstance(n, int) else None
                cause, error = str(fields.get("cause", "")), str(fields.get("error", ""))
                told = (self._stacks.pop(pid, ""), self._messages.pop(pid, ""))
                self._kills.appendleft(WorkerKill(time.time(), slot, pid, cause, error, *told))

    async def show(self, _: Request) -> Response:
        """Answer the kills, latest first (``GET /v1/hangs``)."""
        return json_response({"hangs": tuple(self._kills)})
