"""Gives workers the conversations that they do not hold."""

from __future__ import annotations

import asyncio

from shared.errors import FrameTooLarge, StoreUnavailable
from shared.store.port import Store
from worker.frames import History
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.store_health import StoreHealth
from worker.pool.turns.active_turn import ActiveTurn

#: messages of a session a worker is given at once
HISTORY_LIMIT = 20_000
#: and their size, for each token of a window: a window's worth to be shown, and as much again to be summarized
HISTORY_BYTES_PER_TOKEN = 8
#: but so many whatever their size: a list that a bare history shows is looked for in them (worker.agent.todo)
SCANNED = 100


class HistoryLoader:
    """Reads them from the store; a turn that is over gets none."""

    def __init__(self, store: Store, health: StoreHealth, context_tokens: int) -> None:
        self._store = store
        self._health = health
        self._limit_bytes = context_tokens * HISTORY_BYTES_PER_TOKEN

    async def send(self, turn: ActiveTurn, worker: WorkerProcess) -> None:
        """Send a turn its conversation, as much of its end as a frame holds, once the channel is not full."""
        history = await self._read(turn, HISTORY_LIMIT)
        await worker.until_writable()
        while history is not None and turn.worker is worker:
            try:
                worker.send(history)
            except FrameTooLarge:
                history = await self._read(turn, len(history.messages) // 2)
            else:
                return

    async def _read(self, turn: ActiveTurn, last: int) -> History | None:
        while not turn.over:
            try:
                found = await self._store.sessions.context(turn.session, last, self._limit_bytes, SCANNED)
            except StoreUnavailable as error:
                self._health.failed(error)
                await asyncio.sleep(self._health.pause_s)
                continue
            return History(turn.number, found.version, found.messages, found.todo, found.first, found.summary)
        return None
