"""Names the turn whose code runs on the loop in the shared page, so that a loop that hangs tells who hung it.

A turn number lives in a context variable. A task that is made where it is set (a turn's own, and every subtask of it)
is wrapped: each step of it writes the number into the page before and 0 after. A thread that holds the interpreter
lock is not named by this; the pool then suspects every turn of the worker.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any

_TURN: contextvars.ContextVar[int] = contextvars.ContextVar("turn", default=0)


class TurnAttribution:
    """Wraps the tasks of turns; ``set_running`` is the shared page's."""

    def __init__(self, set_running: Callable[[int], None]) -> None:
        self._set_running = set_running

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make every task of the loop that belongs to a turn name it."""
        loop.set_task_factory(self._make_task)

    def start(self, turn: int, coro: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        """Start a turn's own task."""
        context = contextvars.copy_context()
        context.run(_TURN.set, turn)
        return loop.create_task(coro, context=context)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Any, context: contextvars.Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        turn = _TURN.get() if context is None else context.get(_TURN, 0)
        if turn:
            coro = _named(_Steps(coro, turn, self._set_running))
        return asyncio.Task(coro, loop=loop, context=context, **options)


async def _named(steps: _Steps) -> Any:
    # A native coroutine round the generator: asyncio drives it without a Python call, and takes no bare generator
    return await steps


class _Steps:
    """Awaits a coroutine, naming its turn for as long as each of its steps runs."""

    __slots__ = ("_coro", "_set_running", "_turn")

    def __init__(self, coro: Coroutine[Any, Any, Any], turn: int, set_running: Callable[[int], None]) -> None:
        self._coro = coro
        self._turn = turn
        self._set_running = set_running

    def __del__(self) -> None:
        # a task that is cancelled before its first step never starts the coroutine it was given
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        turn, set_running = self._turn, self._set_running
        send, throw = self._coro.send, self._coro.throw
        error: BaseException | None = None
        while True:
            set_running(turn)
            try:
                future = send(None) if error is None else throw(error)
            except StopIteration as end:
                return end.value
            finally:
                set_running(0)
            error = None
            try:
                yield future
            except GeneratorExit:
                self._coro.close()
                raise
            except BaseException as thrown:  # noqa: BLE001 - whatever is thrown in is the coroutine's to handle
                error = thrown
