"""A real worker process, driven over its channel as the pool does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from shared.messages import Ended, Outcome
from tests.worker.waiting import until
from worker.channel import Channel, open_channel
from worker.frames import (
    Configure,
    History,
    LogEvent,
    ModelSpec,
    NeedHistory,
    Ready,
    RunTurn,
    ToPool,
    ToWorker,
    TurnDone,
    WorkerConfig,
)
from worker.pool.processes.spawn import preload_of, spawn

F = TypeVar("F", bound=msgspec.Struct)
TOOLS = "tests.worker.agent.child_tools"
#: what the one fork server of a test run has: the pool's tests use it too
PRELOAD = preload_of(WorkerConfig((ModelSpec("openai", "scripted"),), ""))


class ChildProcess:
    """One worker process; ``frames`` are all it sent, with the time of each."""

    def __init__(self) -> None:
        self._spawned = spawn("worker.agent.child", PRELOAD)
        self.page = self._spawned.page
        self.pid = self._spawned.process.pid or 0
        self.frames: list[tuple[float, ToPool]] = []
        self.closed = False
        self.histories: dict[int, History] = {}
        self.gives_history = True
        self._channel: Channel[ToPool, ToWorker]
        self._turns = itertools.count(1)
        self._came = asyncio.Event()

    async def open(self) -> None:
        self._channel = await open_channel(self._spawned.sock, ToPool, self._take, self._close)

    def send(self, frame: ToWorker) -> None:
        self._channel.send(frame)

    def run_turn(self, text: str, **fields: object) -> int:
        """Send a turn and return its number; its conversation is empty unless ``histories`` has one."""
        turn = next(self._turns)
        made = RunTurn(turn, f"test:a:{turn}", turn, 0, f"msg_{turn}", (text,), (), 30.0)
        self.send(msgspec.structs.replace(made, **fields))
        return turn

    async def outcome(self, turn: int) -> Outcome:
        return (await self.frame(TurnDone, lambda frame: frame.turn == turn)).outcome

    async def ended(self, turn: int) -> Ended:
        outcome = await self.outcome(turn)
        assert isinstance(outcome, Ended), outcome
        return outcome

    async def frame(self, kind: type[F], wanted: Callable[[F], bool] = lambda _: True, within_s: float = 20.0) -> F:
        """Wait for the first frame of a kind. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not (found := [frame for frame in self.all(kind) if wanted(frame)]):
                assert not self.closed, "the child hung up"
                self._came.clear()
                await self._came.wait()
        return found[0]

    def all(self, kind: type[F]) -> list[F]:
        return [frame for _, frame in self.frames if isinstance(frame, kind)]

    def said(self, event: str) -> list[LogEvent]:
        return [said for said in self.all(LogEvent) if said.event == event]

    def stacks(self) -> str:
        return os.pread(self._spawned.stacks_fd, 1 << 20, 0).decode()

    def hang_up(self) -> None:
        """Close the channel, as the end of the parent does."""
        self._channel.close()

    async def exit_status(self) -> int:
        await until(lambda: self._spawned.process.exitcode is not None)
        assert self._spawned.process.exitcode is not None
        return self._spawned.process.exitcode

    async def release(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.exit_status()
        self._channel.close()
        self._spawned.process.close()
        os.close(self._spawned.stacks_fd)
        await until(lambda: self.closed)
        self.page.close()

    def _take(self, frame: ToPool) -> None:
        self.frames.append((asyncio.get_running_loop().time(), frame))
        if isinstance(frame, NeedHistory) and self.gives_history:
            self.send(self.histories.get(frame.turn) or History(frame.turn, 0, (), None))
        self._came.set()

    def _close(self, reason: Exception | None) -> None:
        assert reason is None or isinstance(reason, OSError), reason
        self.closed = True
        self._came.set()


@contextlib.asynccontextmanager
async def child_process(config: WorkerConfig, *, ready: bool = True) -> AsyncIterator[ChildProcess]:
    """Start a child and configure it; it and its group are gone afterwards."""
    child = await asyncio.to_thread(ChildProcess)
    await child.open()
    try:
        child.send(Configure(config))
        if ready:
            await child.frame(Ready, within_s=60)
        yield child
    finally:
        await child.release()


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has reaped yet does not."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
