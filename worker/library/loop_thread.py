"""An event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Owns one loop and the daemon thread that runs it."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._farewell: Coroutine[Any, Any, object] | None = None
        self._handing_over = threading.RLock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end on the loop and return its result; an interrupted wait cancels it.

        Raises RuntimeError on the loop's own thread, which would wait for itself, and once the loop is closed.
        """
        with self._handing_over:  # once the loop is told to stop, nobody would run it or cancel it
            try:
                self.refuse_own_thread()
            except RuntimeError:
                coroutine.close()
                raise
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # does something only where Ctrl-C ended the wait

    def refuse_own_thread(self) -> None:
        """Raise RuntimeError on the loop's own thread, which would wait for itself, and once the loop is closed."""
        if threading.current_thread() is self._thread or self._farewell is not None or self._loop.is_closed():
            raise RuntimeError("the agent is closed, or was called from one of its own callbacks or async tools")

    def soon(self, callback: Callable[[], object]) -> None:
        """Call this on the loop, after everything that was run before; nothing happens once the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def close(self, farewell: Coroutine[Any, Any, object]) -> None:
        """Cancel what runs, run the farewell, end the thread and close the loop; once."""
        with self._handing_over:
            if self._farewell is not None or self._loop.is_closed():
                farewell.close()
            else:
                self._farewell = farewell
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._end())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _end(self) -> None:
        left = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if self._farewell is not None:
            await self._farewell
