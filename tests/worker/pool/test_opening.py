"""Opening a channel on a socket that already holds a frame."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import msgspec
import pytest
import uvloop

from worker.channel import Channel, open_channel
from worker.frames import Interrupt, ToPool, ToWorker


async def frame_comes_after_the_door(sock: socket.socket) -> list[str]:
    order: list[str] = []
    came = asyncio.Event()

    def on_frame(frame: ToWorker) -> None:
        order.append(type(frame).__name__)
        if len(order) == 3:
            came.set()

    channel: Channel[ToWorker, ToPool] = await open_channel(sock, ToWorker, on_frame, lambda _: None)
    order.append("opened")
    await asyncio.wait_for(came.wait(), 5)
    channel.close()
    await asyncio.sleep(0)
    return order


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_frame_that_waits_in_the_socket_comes_after_the_channel(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    body = msgspec.msgpack.encode(Interrupt(1))
    with ours, asyncio.Runner(loop_factory=new_loop) as runner:
        ours.sendall((len(body).to_bytes(4, "big") + body) * 2)
        assert runner.run(frame_comes_after_the_door(theirs)) == ["opened", "Interrupt", "Interrupt"]
