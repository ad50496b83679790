"""The seam between the pool and its workers: how frames (worker.frames) cross the socket.

A frame crosses an AF_UNIX stream socket as four bytes of length (big endian) and a msgpack body. Sending never
blocks: what the socket does not take waits in the transport, and a channel with a MiB waiting says it is full.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

from shared.errors import ChannelClosed, ChannelError, FrameTooLarge

#: bytes of the length before a frame
LENGTH_BYTES = 4
#: the largest frame, in bytes of its body
FRAME_LIMIT_BYTES = 64 * 1024 * 1024
#: bytes waiting in the transport past which a channel is full
PENDING_LIMIT_BYTES = 1024 * 1024
#: the receive buffer; it grows for a larger frame and shrinks after it
BUFFER_BYTES = 256 * 1024
#: past this a frame is handed over beside its length instead of joined to it, bytes
JOIN_BYTES = 64 * 1024

Incoming = TypeVar("Incoming")
Outgoing = TypeVar("Outgoing", bound=msgspec.Struct, contravariant=True)

_ENCODER = msgspec.msgpack.Encoder()


class GarbageReceived(ChannelError):
    """Raised when the other end sends what is no frame; the channel closes with it as the reason."""


class Channel(asyncio.BufferedProtocol, Generic[Incoming, Outgoing]):
    """One end of the socket: sends frames, hands over those that come, and says once that it is closed.

    ``incoming`` is the union of frames the other end may send; anything else closes the channel. ``on_frame`` and
    ``on_closed`` are called on the loop; ``on_closed`` gets the reason, None for a plain end of the stream.
    """

    def __init__(
        self, incoming: Any, on_frame: Callable[[Incoming], None], on_closed: Callable[[Exception | None], None]
    ) -> None:
        self._decoder = msgspec.msgpack.Decoder(incoming)
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = bytearray(BUFFER_BYTES)
        self._filled = 0
        self._reason: Exception | None = None
        self.on_writable: Callable[[], None] = lambda: None

    @property
    def pending_bytes(self) -> int:
        """Count the bytes the socket has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    @property
    def full(self) -> bool:
        """Tell whether a MiB waits, so that only small frames should follow; ``on_writable`` tells when it is over."""
        return self.pending_bytes >= PENDING_LIMIT_BYTES

    @property
    def closed(self) -> bool:
        """Tell whether this end is closed."""
        return self._transport is None or self._transport.is_closing()

    def send(self, frame: Outgoing) -> None:
        """Send one frame without waiting. Raises FrameTooLarge before any byte is sent, and ChannelClosed."""
        if self._transport is None or self._transport.is_closing():
            raise ChannelClosed(f"{type(frame).__name__} cannot be sent: the channel is closed")
        body = _ENCODER.encode(frame)
        if len(body) > FRAME_LIMIT_BYTES:
            raise FrameTooLarge(
                f"{type(frame).__name__} has {len(body)} bytes, over the {FRAME_LIMIT_BYTES} of a frame"
            )
        length = len(body).to_bytes(LENGTH_BYTES, "big")
        if len(body) <= JOIN_BYTES:
            self._transport.write(length + body)
        else:
            self._transport.writelines((length, body))

    def close(self) -> None:
        """Close this end at once; what was not sent is dropped."""
        if self._transport is not None:
            self._transport.abort()

    def begin(self, on_frame: Callable[[Incoming], None], early: list[Incoming]) -> None:
        """Hand over the frames that came early, and from now on each as it comes."""
        self._on_frame = on_frame
        for frame in early:
            on_frame(frame)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (called by the loop)."""
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.set_write_buffer_limits(high=PENDING_LIMIT_BYTES, low=PENDING_LIMIT_BYTES // 4)

    def resume_writing(self) -> None:
        """Tell that the channel is not full any more (called by the loop)."""
        self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say why the channel closed (called by the loop)."""
        self._transport = None
        # whoever held the other end may refer to this one for long: nothing more is received
        self._buffer, self._filled = bytearray(), 0
        self._on_closed(self._reason or exc)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (the protocol's signature)
        """Return the free end of the receive buffer, which is never empty (called by the loop)."""
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Hand over every frame that is whole now (called by the loop)."""
        self._filled += nbytes
        try:
            self._keep(self._hand_over())
        except GarbageReceived as error:
            self._reason = error
            self.close()
            return

    def _hand_over(self) -> int:
        """Decode what is whole; return where the rest begins."""
        at = 0
        view = memoryview(self._buffer)
        while not self.closed and self._filled - at >= LENGTH_BYTES:
            body_at = at + LENGTH_BYTES
            size = self._size_at(at)
            if self._filled - body_at < size:
                break
            at = body_at + size
            self._on_frame(self._decode(view[body_at:at]))
        return at

    def _decode(self, body: memoryview) -> Incoming:
        try:
            return cast(Incoming, self._decoder.decode(body))
        except msgspec.DecodeError as error:
            raise GarbageReceived(f"garbage on the channel: {error}") from error

    def _size_at(self, at: int) -> int:
        size = int.from_bytes(self._buffer[at : at + LENGTH_BYTES], "big")
        if not 0 < size <= FRAME_LIMIT_BYTES:
            raise GarbageReceived(f"garbage on the channel: a frame of {size} bytes was announced")
        return size

    def _keep(self, rest_at: int) -> None:
        """Move the rest to the front of a buffer that can hold its whole frame."""
        needed = BUFFER_BYTES
        if self._filled - rest_at >= LENGTH_BYTES:
            needed = max(needed, LENGTH_BYTES + self._size_at(rest_at))
        if rest_at == 0 and needed == len(self._buffer):
            return
        rest = self._buffer[rest_at : self._filled]
        if needed != len(self._buffer):
            self._buffer = bytearray(needed)
        self._buffer[: len(rest)] = rest
        self._filled = len(rest)


async def open_channel(
    sock: socket.socket,
    incoming: Any,
    on_frame: Callable[[Incoming], None],
    on_closed: Callable[[Exception | None], None],
) -> Channel[Incoming, Outgoing]:
    """Open a channel over a connected AF_UNIX stream socket; ``incoming`` is ToPool or ToWorker.

    The channel owns the socket from here on. ``on_frame`` is first called after this returned: uvloop would hand over
    what already lies in the socket before that, to an owner that does not hold its channel yet.
    """
    sock.setblocking(False)
    early: list[Incoming] = []
    channel = Channel[Incoming, Outgoing](incoming, early.append, on_closed)
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: channel, sock=sock)
    loop.call_soon(channel.begin, on_frame, early)
    return channel
