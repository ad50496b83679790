"""Gives workers the images that their messages refer to, and keeps those that tools return."""

from __future__ import annotations

import asyncio

from shared.errors import NotFound, StoreUnavailable
from shared.store.port import Store
from worker.frames import AttachmentData
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.store_health import StoreHealth
from worker.pool.turns.active_turn import ActiveTurn


class AttachmentLoader:
    """Reads and writes them in the store; while that is away, for as long as the turn is not over."""

    def __init__(self, store: Store, health: StoreHealth) -> None:
        self._store = store
        self._health = health

    async def send(self, turn: ActiveTurn, worker: WorkerProcess, digest: str) -> None:
        """Send a turn the bytes of an image, once the channel is not full."""
        while not turn.over:
            try:
                data: bytes | None = await self._store.sessions.attachment(turn.session, digest)
            except NotFound:
                data = None
            except StoreUnavailable as error:
                self._health.failed(error)
                await asyncio.sleep(self._health.pause_s)
                continue
            await worker.until_writable()
            if turn.worker is worker:
                worker.send(AttachmentData(turn.number, digest, data))
            return

    async def keep(self, turn: ActiveTurn, digest: str, data: bytes) -> None:
        """Keep an image of a tool's result."""
        while True:
            try:
                await self._store.sessions.keep_attachments(turn.session, {digest: data})
            except StoreUnavailable as error:
                self._health.failed(error)
                if turn.over:
                    return
                await asyncio.sleep(self._health.pause_s)
            else:
                return
