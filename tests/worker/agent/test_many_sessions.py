"""Ten thousand sessions go through one real worker whose cache holds a thousand."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec

from shared.messages import Ended
from tests.worker.agent.child_process import ChildProcess
from worker.frames import (
    Configure,
    History,
    ModelSpec,
    NeedHistory,
    Ready,
    Report,
    RunTurn,
    StepDone,
    ToPool,
    TurnDone,
    WorkerConfig,
)

SESSIONS, CACHED, AT_ONCE = 10_000, 1_000, 64
MEMORY_BYTES = 32 << 20


class Kept(msgspec.Struct):
    """What a store has of a session."""

    version: int = 0
    messages: tuple[bytes, ...] = ()
    todo: bytes | None = None


class Crowd(ChildProcess):
    """A worker, and everything that its host remembers of many sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = [Kept() for _ in range(SESSIONS)]
        self.asked = 0
        self.reports: list[Report] = []
        self._next = 0
        self._session_of: dict[int, int] = {}
        self._ended: dict[int, asyncio.Future[str]] = {}

    async def say(self, session: int, text: str) -> str:
        """Run a turn of a session and return its reply."""
        self._next += 1
        turn, kept = self._next, self.kept[session]
        self._session_of[turn] = session
        self._ended[turn] = asyncio.get_running_loop().create_future()
        self.send(RunTurn(turn, f"test:a:{session}", turn, kept.version, f"msg_{turn}", (text,), (), 60.0))
        try:
            async with asyncio.timeout(60):
                return await self._ended[turn]
        finally:
            del self._ended[turn], self._session_of[turn]
            kept.version = turn

    async def next_report(self) -> Report:
        """Return what the worker reports of itself from now on."""
        seen = len(self.reports)
        async with asyncio.timeout(20):
            while len(self.reports) < seen + 2:  # noqa: ASYNC110 - it comes each second
                await asyncio.sleep(0.05)
        return self.reports[-1]

    def _take(self, frame: ToPool) -> None:
        match frame:
            case NeedHistory(turn=turn):
                self.asked += 1
                kept = self.kept[self._session_of[turn]]
                self.send(History(turn, kept.version, kept.messages, kept.todo))
            case StepDone(turn=turn, step=step):
                self._keep(turn, step.messages, step.todo)
            case TurnDone(turn=turn, outcome=outcome):
                assert isinstance(outcome, Ended)
                self._keep(turn, outcome.messages, outcome.todo)
                self._ended[turn].set_result(outcome.text)
            case Report():
                self.reports.append(frame)
            case Ready():
                super()._take(frame)
            case _:
                pass

    def _keep(self, turn: int, messages: tuple[bytes, ...], todo: bytes | None) -> None:
        kept = self.kept[self._session_of[turn]]
        kept.messages += messages
        kept.todo = kept.todo if todo is None else todo


async def test_ten_thousand_sessions_get_right_answers_in_bounded_memory(tmp_path: Path) -> None:
    config = WorkerConfig(
        (ModelSpec("offline", "offline"),), "be brief", todo_cache_size=CACHED, log_dir=str(tmp_path / "logs")
    )
    crowd = await asyncio.to_thread(Crowd)
    await crowd.open()
    try:
        crowd.send(Configure(config))
        await crowd.frame(Ready, within_s=60)
        room = asyncio.Semaphore(AT_ONCE)

        async def check(session: int, text: str, expected: str) -> None:
            async with room:
                assert await crowd.say(session, text) == expected

        async def all_of(sessions: range | list[int], text: str, expected: str) -> None:
            async with asyncio.TaskGroup() as group:
                for n in sessions:
                    group.create_task(check(n, text.format(n), expected.format(n)))

        early, late = list(range(CACHED)), list(range(SESSIONS - CACHED // 2, SESSIONS))
        await all_of(early, "add thing {}", "Added “thing {0}”.\n\n1. [ ] thing {0}")
        before = await crowd.next_report()
        await all_of(range(CACHED, late[0]), "message {}", "You said: message {}")
        await all_of(late, "add thing {}", "Added “thing {0}”.\n\n1. [ ] thing {0}")
        after = await crowd.next_report()
        assert after.cache_misses == SESSIONS
        assert crowd.asked == 0  # a new session has no conversation
        assert after.cache_size <= CACHED
        assert after.rss_bytes - before.rss_bytes < MEMORY_BYTES
        await all_of(late, "list", "1. [ ] thing {}")
        assert crowd.asked == 0  # these were held
        again = random.Random(7).sample(early, CACHED // 5)
        await all_of(again, "done 1", "Done: “thing {0}”.\n\n1. [x] thing {0}")
        await all_of(again, "list", "1. [x] thing {}")
        assert crowd.asked == len(again)
    finally:
        await crowd.release()
