"""What one part has to tell, in order, for the one that acts on it.

Who tells goes on at once and is never entered again from its own call; who acts iterates, one after the other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Generic, TypeVar

News = TypeVar("News")


class Feed(Generic[News]):
    """News with one reader; it grows while nobody reads."""

    def __init__(self) -> None:
        self._waiting: deque[News] = deque()
        self._some = asyncio.Event()

    def put(self, news: News) -> None:
        """Tell; never blocks."""
        self._waiting.append(news)
        self._some.set()

    def left(self) -> Iterator[News]:
        """Take what waits now, without waiting for more."""
        while self._waiting:
            yield self._waiting.popleft()

    async def __aiter__(self) -> AsyncIterator[News]:
        """Take news as they come, for ever."""
        while True:
            for news in self.left():
                yield news
            self._some.clear()
            await self._some.wait()
