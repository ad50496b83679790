"""An MCP server's program and its three pipes.

The mcp package's own stdio client starts each program in a session of its own, where it outlives a worker that is
killed with its process group. Here it stays in the group, so the kill of a hung worker leaves none behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import cast

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from worker.channel import McpServer

#: bytes of the longest message a program may write
LINE_LIMIT_BYTES = 16 * 1024 * 1024
#: lines of what the program wrote to its standard error that are kept, and characters of each
TAIL_LINES, TAIL_LINE_CHARS = 20, 500
#: seconds between closing its input, SIGTERM and SIGKILL
END_GRACE_S = 1.0
LOOK_S = 0.01

Received = SessionMessage | Exception
Streams = tuple[ObjectReceiveStream[Received], ObjectSendStream[SessionMessage]]


class Program:
    """One run of a server's program; ``tail`` ends its standard error, and ``on_end`` is called after its last word."""

    def __init__(self, server: McpServer, on_end: Callable[[], None]) -> None:
        self._server = server
        self._on_end = on_end
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncGenerator[Streams, None]:
        """Start the program, and give what it says and what it is told as messages; it is gone afterwards.

        Raises OSError for a program that cannot be started.
        """
        transport, process = await self._start()
        to_session, heard = anyio.create_memory_object_stream[Received](0)
        told, from_session = anyio.create_memory_object_stream[SessionMessage](0)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hear, process, to_session)
                tasks.start_soon(_tell, process, from_session, to_session)
                tasks.start_soon(self._keep_tail, process)
                try:
                    yield heard, told
                finally:
                    with anyio.CancelScope(shield=True):
                        await _end(process)
                    tasks.cancel_scope.cancel()
        finally:
            transport.close()
            for stream in (to_session, heard, told, from_session):
                stream.close()

    async def _start(self) -> tuple[asyncio.SubprocessTransport, Process]:
        """Start the program as create_subprocess_exec does, and keep the transport, which alone can be closed."""
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(
            lambda: SubprocessStreamProtocol(limit=LINE_LIMIT_BYTES, loop=loop),
            self._server.command,
            *self._server.args,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=get_default_environment() | self._server.env,
            cwd=self._server.cwd or None,
        )
        return transport, Process(transport, protocol, loop)

    async def _hear(self, process: Process, to_session: ObjectSendStream[Received]) -> None:
        """Pass on what the program writes, line by line, until it ends its output."""
        stdout = cast(asyncio.StreamReader, process.stdout)
        async with to_session:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                while line := await _line(stdout):
                    if line.strip():
                        await to_session.send(_message(line))
        self._on_end()

    async def _keep_tail(self, process: Process) -> None:
        stderr = cast(asyncio.StreamReader, process.stderr)
        while data := await stderr.read(TAIL_LINE_CHARS):
            self.tail.extend(data.decode("utf-8", "replace").splitlines())


async def _line(stdout: asyncio.StreamReader) -> bytes:
    """Return the next line, empty at the end of the output and for a line without end."""
    try:
        return await stdout.readline()
    except (ValueError, OSError):
        return b""


def _message(line: bytes) -> Received:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error


async def _tell(
    process: Process, from_session: ObjectReceiveStream[SessionMessage], to_session: ObjectSendStream[Received]
) -> None:
    """Write what the session says; a program that does not listen any more ends the session."""
    stdin = cast(asyncio.StreamWriter, process.stdin)
    try:
        async with from_session:
            async for message in from_session:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                stdin.write(text.encode() + b"\n")
                await stdin.drain()
    except OSError:
        await to_session.aclose()


async def _end(process: Process) -> None:
    """Ask the program to end by closing its input, then by SIGTERM, then kill it."""
    cast(asyncio.StreamWriter, process.stdin).close()
    for ask in (process.terminate, process.kill):
        if await _ended(process):
            return
        with contextlib.suppress(ProcessLookupError):
            ask()
    await _ended(process)


async def _ended(process: Process) -> bool:
    """Wait a moment; by looking, for Process.wait waits for the pipes too, which a grandchild may hold."""
    with anyio.move_on_after(END_GRACE_S):
        while process.returncode is None:  # noqa: ASYNC110 - nothing but the pipes' end tells of it
            await anyio.sleep(LOOK_S)
    return process.returncode is not None
