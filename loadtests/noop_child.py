"""A worker child whose turns do nothing, and the function that does the same in other process pools."""

from __future__ import annotations

import asyncio
import os
import socket

import uvloop

from shared.messages import Ended, TurnStatus
from worker.channel import Channel, open_channel
from worker.frames import Configure, Ready, RunTurn, ToPool, ToWorker, TurnDone
from worker.shared_page import SharedPage

ENTRY = "loadtests.noop_child"


def echo(payload: bytes) -> bytes:
    """Return what came: a turn that does nothing."""
    return payload


class Child:
    """Answers each turn with its own text."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self._channel: Channel[ToWorker, ToPool] | None = None

    async def serve(self, sock: socket.socket) -> None:
        """Serve until the channel closes."""
        self._channel = await open_channel(sock, ToWorker, self._on_frame, lambda _: self.over.set())
        await self.over.wait()

    def _on_frame(self, frame: ToWorker) -> None:
        assert self._channel is not None
        match frame:
            case Configure():
                self._channel.send(Ready(os.getpid(), preloaded=True, tools=()))
            case RunTurn():
                outcome = Ended(TurnStatus.REPLIED, frame.texts[0], ())
                self._channel.send(TurnDone(frame.turn, outcome))
            case _:
                pass


def run(sock: socket.socket, page: SharedPage) -> None:  # noqa: ARG001 (a child's entry; nothing here can hang)
    """Live as a worker"""
    uvloop.run(Child().serve(sock))
