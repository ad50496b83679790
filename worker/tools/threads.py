"""Threads for sync tools: a bounded set of own daemon threads, so that a hung tool starves nobody.

The default executor is not used: six hung tools would end every other tool in the process, and the exit would
wait for them. A thread cannot be stopped; one that nobody waits for any more is left behind, its place goes to a
new thread, and after a moment's grace it counts as leaked and its stack is told.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from shared.events import Emit, Event

THREAD_LIMIT = 64
LEAK_GRACE_S = 1.0
STACK_LIMIT_CHARS = 4000


class _Job:
    """One call on its way through a thread."""

    __slots__ = ("context", "ended", "function", "future", "loop", "session", "thread", "tool")

    def __init__(self, function: Callable[[], object], tool: str, session: str) -> None:
        self.function = function
        self.tool = tool
        self.session = session
        self.thread: _ToolThread | None = None
        self.ended = False
        self.context = contextvars.copy_context()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[tuple[object, BaseException | None]] = self.loop.create_future()


class _ToolThread(threading.Thread):
    """A daemon thread that runs one job after the other until it is given None."""

    def __init__(self, on_end: Callable[[_ToolThread, _Job, object, BaseException | None], None]) -> None:
        super().__init__(name="tool", daemon=True)
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.left_behind = False
        self._on_end = on_end

    def run(self) -> None:
        while (job := self.jobs.get()) is not None:
            value, error = self._run_job(job)
            try:
                job.loop.call_soon_threadsafe(self._on_end, self, job, value, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            del job, value, error  # an idle thread keeps nothing alive

    @staticmethod
    def _run_job(job: _Job) -> tuple[object, BaseException | None]:
        try:
            return job.context.run(job.function), None
        except BaseException as error:  # noqa: BLE001 - handed to whoever awaits the job, SystemExit too
            return None, error


class ToolThreads:
    """Runs sync tools in at most ``limit`` threads at once; one loop uses it, and all its state is touched there."""

    def __init__(self, emit: Emit, limit: int = THREAD_LIMIT, leak_grace_s: float = LEAK_GRACE_S) -> None:
        self._emit = emit
        self._limit = limit
        self._leak_grace_s = leak_grace_s
        self._count = 0
        self._idle: list[_ToolThread] = []
        self._waiting: deque[_Job] = deque()
        self._leaked: set[_ToolThread] = set()

    @property
    def leaked(self) -> int:
        """How many threads run on though nobody waits for them."""
        return len(self._leaked)

    async def run(self, function: Callable[[], object], *, tool: str, session: str = "") -> Any:
        """Run the function in a thread and return its result, or raise what it raised.

        Cancelling leaves the thread behind at once. ``tool`` and ``session`` name the call if it leaks.
        """
        job = _Job(function, tool, session)
        self._waiting.append(job)
        self._dispatch()
        try:
            value, error = await job.future
        except asyncio.CancelledError:
            self._leave(job)
            raise
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End every idle thread; one that still runs ends after its job."""
        self._limit = 0
        while self._idle:
            self._idle.pop().jobs.put(None)

    def _dispatch(self) -> None:
        """Give waiting jobs to idle threads, then to new ones up to the limit."""
        while self._waiting and (self._idle or self._count < self._limit):
            job = self._waiting.popleft()
            job.thread = self._idle.pop() if self._idle else self._new_thread()
            job.thread.jobs.put(job)

    def _new_thread(self) -> _ToolThread:
        thread = _ToolThread(self._ended)
        thread.start()
        self._count += 1
        return thread

    def _ended(self, thread: _ToolThread, job: _Job, value: object, error: BaseException | None) -> None:
        job.ended = True
        if not job.future.done():
            job.future.set_result((value, error))
        self._leaked.discard(thread)
        if thread.left_behind or not self._limit:
            thread.jobs.put(None)
        else:
            self._idle.append(thread)
            self._dispatch()

    def _leave(self, job: _Job) -> None:
        """Nobody waits for the job any more: drop it, or leave its thread behind and free the place."""
        if job.thread is None:
            self._waiting.remove(job)
        elif job.future.cancelled():
            job.thread.left_behind = True
            self._count -= 1
            job.loop.call_later(self._leak_grace_s, self._look_for_leak, job)
            self._dispatch()

    def _look_for_leak(self, job: _Job) -> None:
        if job.ended or job.thread is None:
            return
        self._leaked.add(job.thread)
        self._emit(Event.TOOL_LEAKED, tool=job.tool, session=job.session, leaked=self.leaked, stack=_stack(job.thread))


def _stack(thread: threading.Thread) -> str:
    """Return where the thread is now, its innermost frames last."""
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame))[-STACK_LIMIT_CHARS:] if frame else ""
