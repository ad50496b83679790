"""A server that answers with given bytes, in pieces of a size, cut where a test says; it counts what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec


class Plan(msgspec.Struct, frozen=True):
    """One answer: its body, sent in pieces; one that is ``cut`` is broken off behind so many bytes of it."""

    body: bytes
    status: int = 200
    content_type: str = "text/event-stream"
    piece_bytes: int = 1 << 20
    cut: int | None = None
    closes: bool = True
    server: str = "raw"


class RawServer:
    """Answers each request with the next plan, the last one again and again."""

    def __init__(self, *plans: Plan) -> None:
        self.plans = list(plans)
        self.bodies: list[bytes] = []
        self.connections = 0
        self.url = ""
        self.decide: Callable[[bytes], Plan] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
                if not await self._answer(writer, body):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        number = len(self.bodies)
        self.bodies.append(body)
        plan = self.decide(body) if self.decide else self.plans[min(number, len(self.plans) - 1)]
        sent = plan.body if plan.cut is None else plan.body[: plan.cut]
        head = f"HTTP/1.1 {plan.status} OK\r\ncontent-type: {plan.content_type}\r\n"
        head += f"server: {plan.server}\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for start in range(0, len(sent), plan.piece_bytes):
            piece = sent[start : start + plan.piece_bytes]
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            if plan.piece_bytes < len(sent):
                await writer.drain()
                await asyncio.sleep(0)
        if plan.cut is not None:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return not plan.closes


@asynccontextmanager
async def raw_server(*plans: Plan) -> AsyncIterator[RawServer]:
    """Run a server on a free port of loopback."""
    made = RawServer(*plans)
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening:
        yield made
