"""An MCP server's program and its three pipes.

The mcp package's own stdio client starts each program in a session of its own, where it outlives a worker that is
killed with its process group. Here it stays in the group, so the kill of a hung worker leaves none behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import cast

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from worker.mcp_server import McpServer
from worker.os_processes import descendants
from worker.tools.mcp.wire import Received, mended

#: bytes of the longest message a program may write
LINE_LIMIT_BYTES = 16 * 1024 * 1024
#: lines of what the program wrote to its standard error that are kept, and characters of each
TAIL_LINES, TAIL_LINE_CHARS = 20, 500
#: seconds between closing its input, SIGTERM and SIGKILL
END_GRACE_S = 1.0
#: seconds that the end of a killed program is waited for
KILLED_S = 3.0
#: seconds in which the last words of a program that has ended are read
LAST_WORDS_S = 0.1

Streams = tuple[ObjectReceiveStream[Received], ObjectSendStream[SessionMessage]]


class Program:
    """One run of a server's program; ``on_end`` is called after its last word.

    ``tail`` is the end of its standard error; ``end`` says how it ended by itself, empty where it did not.
    """

    def __init__(self, server: McpServer, on_end: Callable[[], None]) -> None:
        self._server = server
        self._on_end = on_end
        self.end = ""
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncGenerator[Streams, None]:
        """Start the program, and give what it says and what it is told as messages; it is gone afterwards.

        Raises OSError for a program that cannot be started.
        """
        transport, protocol = await self._start()
        process = Process(transport, protocol, asyncio.get_running_loop())
        to_session, heard = anyio.create_memory_object_stream[Received](0)
        told, from_session = anyio.create_memory_object_stream[SessionMessage](0)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hear, process, protocol, to_session)
                tasks.start_soon(self._outlive, protocol, to_session)
                tasks.start_soon(_tell, process, from_session, to_session)
                tasks.start_soon(self._keep_tail, process)
                try:
                    yield heard, told
                finally:
                    self.end = _how(process.returncode)
                    with anyio.CancelScope(shield=True):
                        await _end(process, protocol)
                    tasks.cancel_scope.cancel()
        finally:
            transport.close()
            for stream in (to_session, heard, told, from_session):
                stream.close()

    async def _start(self) -> tuple[asyncio.SubprocessTransport, _Protocol]:
        """Start the program as create_subprocess_exec does, and keep the transport, which alone can be closed."""
        cwd = self._server.cwd
        if cwd and not os.path.isdir(cwd):  # noqa: ASYNC240, PTH112 - one look at a local folder
            raise NotADirectoryError(errno.ENOTDIR, "its cwd is no directory", cwd)
        try:
            return await self._exec()
        except FileNotFoundError:  # uvloop does not name it
            raise FileNotFoundError(errno.ENOENT, "there is no such program", self._server.command) from None
        except PermissionError:
            raise PermissionError(errno.EACCES, "this program may not be run", self._server.command) from None

    async def _exec(self) -> tuple[asyncio.SubprocessTransport, _Protocol]:
        return await asyncio.get_running_loop().subprocess_exec(
            _Protocol,
            self._server.command,
            *self._server.args,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=get_default_environment() | self._server.env,
            cwd=self._server.cwd or None,
        )

    async def _hear(self, process: Process, protocol: _Protocol, to_session: ObjectSendStream[Received]) -> None:
        """Pass on what the program writes, line by line, until it ends its output."""
        stdout = cast(asyncio.StreamReader, process.stdout)
        async with to_session:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                while line := await _line(stdout):
                    if line.strip():
                        await to_session.send(_message(line))
            with anyio.move_on_after(LAST_WORDS_S):
                await protocol.exited.wait()  # mostly it follows at once, and tells the reason
        self._on_end()

    async def _outlive(self, protocol: _Protocol, to_session: ObjectSendStream[Received]) -> None:
        """End the session of a program that has ended though its output has not: what it started may hold the pipe."""
        await protocol.exited.wait()
        await anyio.sleep(LAST_WORDS_S)
        await to_session.aclose()
        self._on_end()

    async def _keep_tail(self, process: Process) -> None:
        stderr = cast(asyncio.StreamReader, process.stderr)
        while data := await stderr.read(TAIL_LINE_CHARS):
            self.tail.extend(data.decode("utf-8", "replace").splitlines())


class _Protocol(SubprocessStreamProtocol):
    """The pipes of a program, and the moment of its end; Process.wait waits for the end of the pipes too."""

    def __init__(self) -> None:
        super().__init__(limit=LINE_LIMIT_BYTES, loop=asyncio.get_running_loop())
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


def _how(status: int | None) -> str:
    """Return in words how a process ended, empty while it runs."""
    if status is None:
        return ""
    if status < 0:
        return f"its program was ended by {signal.Signals(-status).name}"
    return f"its program ended with status {status}"


async def _line(stdout: asyncio.StreamReader) -> bytes:
    """Return the next line, empty at the end of the output and for a line without end."""
    try:
        return await stdout.readline()
    except (ValueError, OSError):
        return b""


def _message(line: bytes) -> Received:
    try:
        return mended(SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False)))
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
    except (OSError, RuntimeError):  # uvloop says RuntimeError where the other end of the pipe is closed
        await to_session.aclose()


async def _end(process: Process, protocol: _Protocol) -> None:
    """Ask the program to end by closing its input, then by SIGTERM, then kill it, with all that it started.

    Many a server is run by another program, such as npx, which does not pass on its end.
    """
    family = {process.pid, *descendants(process.pid)}
    cast(asyncio.StreamWriter, process.stdin).close()
    with anyio.move_on_after(END_GRACE_S):
        await protocol.exited.wait()
    family.update(descendants(process.pid))
    _signal(family, signal.SIGTERM)
    with anyio.move_on_after(END_GRACE_S):
        await protocol.exited.wait()
    family.update(descendants(process.pid))
    _signal(family, signal.SIGKILL)
    with anyio.move_on_after(KILLED_S):
        await protocol.exited.wait()


def _signal(family: Iterable[int], signum: signal.Signals) -> None:
    """Send a signal to those that are still in this process's group, which a process of another origin is not."""
    group = os.getpgrp()
    for pid in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) == group:
                os.kill(pid, signum)
