"""Frames over a real socket: whole, in pieces, too large, and garbage; and the memory beside it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import tracemalloc
from collections.abc import Awaitable, Callable

import msgspec
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import ChannelClosed, ChannelError, FrameTooLarge
from shared.messages import Step
from tests.worker.waiting import until
from worker.channel import BUFFER_BYTES, FRAME_LIMIT_BYTES, PENDING_LIMIT_BYTES, Channel, open_channel
from worker.frames import Delta, History, Interrupt, StepDone, ToPool, ToWorker
from worker.shared_page import RING_BYTES, SharedPage

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
NewLoop = Callable[[], asyncio.AbstractEventLoop]


class End:
    """One end of a socket as a channel, with what it was told."""

    def __init__(self) -> None:
        self.frames: list[ToPool | ToWorker] = []
        self.closed: list[Exception | None] = []
        self.channel: Channel[ToPool, ToPool | ToWorker]

    async def open(self, sock: socket.socket) -> End:
        self.channel = await open_channel(sock, ToPool, self.frames.append, self.closed.append)
        return self

    async def shut(self) -> None:
        self.channel.close()
        await until(lambda: bool(self.closed))


def on_a_pair(new_loop: NewLoop, scenario: Callable[[End, socket.socket], Awaitable[None]]) -> None:
    """Run a scenario with a channel on one end and a plain non-blocking socket on the other."""

    async def run() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        theirs.setblocking(False)
        end = await End().open(ours)
        with theirs:
            await scenario(end, theirs)
            if not end.closed:
                await end.shut()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


def crossing(frame: msgspec.Struct) -> bytes:
    body = msgspec.msgpack.encode(frame)
    return len(body).to_bytes(4, "big") + body


def test_a_channel_that_is_closed_holds_no_memory_though_it_is_referred_to() -> None:
    async def run() -> None:
        ends = []
        for _ in range(20):
            ours, theirs = socket.socketpair(socket.AF_UNIX)
            ends.append(await End().open(ours))
            theirs.close()
        await until(lambda: all(end.closed for end in ends))
        held, _ = tracemalloc.get_traced_memory()
        assert held < 5 * BUFFER_BYTES

    tracemalloc.start()
    try:
        asyncio.run(run())
    finally:
        tracemalloc.stop()


@LOOPS
def test_frames_cross_whole_and_in_order_whatever_their_size(new_loop: NewLoop) -> None:
    sent = [StepDone(n, Step(n, (bytes(size),))) for n, size in enumerate([0, 1, 70_000, 3_000_000, 5, 300_000])]

    async def run() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        left, right = await End().open(ours), await End().open(theirs)
        for frame in sent:
            left.channel.send(frame)
        await until(lambda: len(right.frames) == len(sent))
        assert right.frames == sent
        await left.shut()
        await until(lambda: bool(right.closed))
        assert right.closed == [None]

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


@given(cuts=st.lists(st.integers(1, 400), max_size=30), sizes=st.lists(st.integers(0, 300), min_size=1, max_size=8))
@settings(max_examples=40)
def test_frames_survive_being_cut_anywhere(cuts: list[int], sizes: list[int]) -> None:
    frames = [Delta(n, 1, "x" * size) for n, size in enumerate(sizes)]
    stream = b"".join(crossing(frame) for frame in frames)
    end = End()
    channel = Channel[ToPool, ToPool | ToWorker](ToPool, end.frames.append, end.closed.append)

    async def run() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with theirs:
            await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=ours)
            at = 0
            for size in [*cuts, len(stream)]:
                piece = stream[at : at + size]
                at += len(piece)
                if piece:
                    channel.get_buffer(-1)[: len(piece)] = piece
                    channel.buffer_updated(len(piece))
            channel.close()
            await until(lambda: bool(end.closed))

    asyncio.run(run())
    assert end.frames == frames


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x00\x00\x00",
        (FRAME_LIMIT_BYTES + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x03abc",
        crossing(Interrupt(1)),
    ],
    ids=["empty", "over the limit", "enormous", "no frame", "a frame of the other direction"],
)
@LOOPS
def test_garbage_closes_the_channel_and_says_why(new_loop: NewLoop, garbage: bytes) -> None:
    async def scenario(end: End, theirs: socket.socket) -> None:
        theirs.sendall(garbage)
        await until(lambda: bool(end.closed))
        assert end.frames == []
        assert isinstance(end.closed[0], ChannelError)
        with pytest.raises(ChannelClosed):
            end.channel.send(Interrupt(1))

    on_a_pair(new_loop, scenario)


@LOOPS
def test_a_frame_over_the_limit_is_refused_before_a_byte_of_it_leaves(new_loop: NewLoop) -> None:
    async def scenario(end: End, theirs: socket.socket) -> None:
        with pytest.raises(FrameTooLarge):
            end.channel.send(History(1, 1, (bytes(FRAME_LIMIT_BYTES),), None))
        assert end.channel.pending_bytes == 0
        end.channel.send(Interrupt(7))
        assert await asyncio.get_running_loop().sock_recv(theirs, 1000) == crossing(Interrupt(7))

    on_a_pair(new_loop, scenario)


@LOOPS
def test_a_reader_that_stands_still_fills_the_channel_and_is_said_to_go_on(new_loop: NewLoop) -> None:
    async def scenario(end: End, theirs: socket.socket) -> None:
        told = asyncio.Event()
        end.channel.on_writable = told.set
        frame = Delta(1, 1, "x" * 60_000)
        began = time.monotonic()
        while not end.channel.full:
            end.channel.send(frame)
            await asyncio.sleep(0)
        assert time.monotonic() - began < 10
        assert end.channel.pending_bytes < PENDING_LIMIT_BYTES + 100_000
        while not told.is_set():
            await asyncio.get_running_loop().sock_recv(theirs, 1_000_000)
        assert not end.channel.full

    on_a_pair(new_loop, scenario)


def test_a_page_is_shared_by_every_process_that_maps_it() -> None:
    page = SharedPage.create()
    other = SharedPage(os.dup(page.fd))
    other.set_running(7)
    other.ring_memory[:3] = b"abc"
    assert page.running() == 7
    assert bytes(page.ring_memory[:4]) == b"abc\0"
    assert len(page.ring_memory) == RING_BYTES
    assert 0 <= page.beat_age_s() < 60
    other.close()
    other.close()
    assert page.running() == 7
    page.close()


def test_a_page_can_be_closed_while_a_slice_of_its_ring_is_held() -> None:
    page = SharedPage.create()
    held = page.ring_memory[8:16]
    page.close()
    held[:] = b"12345678"
    assert bytes(held) == b"12345678"
