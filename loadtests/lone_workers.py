"""Workers under the real supervisor, with no store and no pool above them: for benchmarks of turns and starts."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from shared.events import Events
from shared.messages import Outcome
from worker.frames import History, ModelSpec, NeedHistory, RunTurn, TurnDone, WorkerConfig
from worker.pool.processes.worker_process import FrameReceived, WorkerPlaced, WorkerProcess
from worker.pool.supervisor import Supervisor

REAL_ENTRY = "worker.agent.child"


class LoneWorkers:
    """Reads what the supervisor tells, hands turns to workers, and remembers when each slot was last filled."""

    def __init__(self) -> None:
        self.placed_at: dict[int, float] = {}
        self.placed: dict[int, WorkerProcess] = {}
        self._placing = asyncio.Condition()
        self._turns = itertools.count(1)
        self._done: dict[int, Callable[[Outcome], None]] = {}

    def start_turn(self, text: str, on_done: Callable[[Outcome], None], n: int = 0) -> None:
        """Send one turn of a new conversation to a worker."""
        turn = next(self._turns)
        self._done[turn] = on_done
        frame = RunTurn(turn, f"bench:{turn}", 1, 0, f"msg_{turn}", (text,), (), deadline_s=60)
        assert self.placed[n].send(frame), "the worker is gone"

    async def run_turn(self, text: str, n: int = 0) -> Outcome:
        """Run one turn to its end."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.start_turn(text, done.set_result, n)
        return await done

    async def run_turns(self, count: int, in_flight: int, text: str) -> float:
        """Run so many turns, so many at a time; return the seconds it took."""
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left, open_turns = count, 0

        def next_turn(_: Outcome | None = None) -> None:
            nonlocal left, open_turns
            open_turns -= 1
            if left:
                left -= 1
                open_turns += 1
                self.start_turn(text, next_turn)
            elif not open_turns:
                finished.set_result(None)

        began = time.perf_counter()
        for _ in range(min(in_flight, count)):
            open_turns += 1
            next_turn()
        await finished
        return time.perf_counter() - began

    async def until_placed(self, n: int, after: float = 0.0) -> WorkerProcess:
        """Wait until a slot was filled later than this ``time.perf_counter()``; return who holds it."""
        async with self._placing:
            await self._placing.wait_for(lambda: self.placed_at.get(n, -1.0) > after)
            return self.placed[n]

    async def read(self, supervisor: Supervisor) -> None:
        """Act on what the supervisor tells, for ever; it fills its slots by itself."""
        async for news in supervisor.news:
            match news:
                case WorkerPlaced(worker=worker) if worker.n is not None:
                    self.placed_at[worker.n] = time.perf_counter()
                    self.placed[worker.n] = worker
                    async with self._placing:
                        self._placing.notify_all()
                case FrameReceived(worker=worker, frame=TurnDone(turn=turn, outcome=outcome)):
                    worker.turns_done += 1
                    self._done.pop(turn)(outcome)
                case FrameReceived(worker=worker, frame=NeedHistory(turn=turn)):
                    worker.send(History(turn, 0, (), None))
                case _:
                    pass


@asynccontextmanager
async def lone_workers(
    data_dir: Path, *, slots: int = 1, spares: int = 0, entry: str = REAL_ENTRY
) -> AsyncIterator[tuple[LoneWorkers, Supervisor]]:
    """Run workers on the offline model while the context is open; every slot is filled when it opens."""
    workers = LoneWorkers()
    config = WorkerConfig((ModelSpec("offline", "offline"),), "Be brief.", log_dir=str(data_dir / "logs"))
    supervisor = Supervisor(slots, spares, config, Events(), entry=entry)
    reading = asyncio.create_task(workers.read(supervisor))
    supervisor.start()
    try:
        async with asyncio.timeout(120):
            for n in range(slots):
                await workers.until_placed(n)
        yield workers, supervisor
    finally:
        await supervisor.close()
        reading.cancel()
