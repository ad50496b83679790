"""Gives workers the images that their messages refer to, and keeps those that platforms hold."""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec

from shared.attachments import Attachment, AttachmentLimits, FileSource, Upload, read_uploads, upload_key
from shared.errors import NotFound, StoreUnavailable
from shared.messages import Pending
from shared.signals import Signal, SignalKind
from shared.store.port import Store
from worker.frames import AttachmentData
from worker.pool.host_lease import HostLease
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.store_health import StoreHealth
from worker.pool.turns.active_turn import ActiveTurn

#: how long a gateway has to fetch a file for another host, and how often that host looks for it, in seconds
FETCH_S = 30.0
LOOK_S = 0.2


def encode_file(file: Attachment) -> str:
    """Return what names a file to a gateway."""
    return msgspec.json.encode(file).decode()


class AttachmentLoader:
    """Reads and writes them in the store; while that is away, for as long as the turn is not over.

    ``files`` is None on a host that has no platforms: a gateway is asked there.
    """

    def __init__(
        self,
        store: Store,
        health: StoreHealth,
        files: FileSource | None,
        limits: AttachmentLimits,
        lease: HostLease,
    ) -> None:
        self._store = store
        self._health = health
        self._files = files
        self._limits = limits
        self._lease = lease

    async def fetch(self, turn: ActiveTurn) -> None:
        """Fetch what the messages of a turn left at their platform; what cannot be had is named to the model."""
        for message in turn.unfetched:
            turn.replace(await self._fetched(turn, message))

    async def _fetched(self, turn: ActiveTurn, message: Pending) -> Pending:
        waiting = [one for one in message.attachments if one.source]
        uploads = await asyncio.gather(*(self._upload(turn, message, one) for one in waiting))
        read = read_uploads(message.text, uploads, self._limits)
        for digest, data in read.data.items():
            await self._keep(turn, digest, data)
        here = tuple(one for one in message.attachments if not one.source)
        return msgspec.structs.replace(message, text=read.text, attachments=(*here, *read.attachments))

    async def _upload(self, turn: ActiveTurn, message: Pending, file: Attachment) -> Upload:
        platform = turn.claim.platform
        if self._files is not None:
            return await self._files.fetch(platform, file)
        if gateway := self._lease.gateway_for(message.gateway):
            asked = Signal(SignalKind.FETCH, turn.session, message.id, name=platform, text=encode_file(file))
            self._store.signals.send(gateway, asked)
            if (upload := await self._fetched_elsewhere(turn, file)) is not None:
                return upload
        return Upload(file.name, file.media_type, problem="no gateway fetched it in time")

    async def _fetched_elsewhere(self, turn: ActiveTurn, file: Attachment) -> Upload | None:
        """Return what a gateway keeps for this host once it has fetched it; None if that takes too long."""
        until_mono = time.monotonic() + FETCH_S
        while not turn.over and time.monotonic() < until_mono:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(NotFound, StoreUnavailable):
                kept = await self._store.sessions.take_attachment(turn.session, upload_key(file))
                return msgspec.msgpack.decode(kept, type=Upload)
        return None

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

    async def _keep(self, turn: ActiveTurn, digest: str, data: bytes) -> None:
        """Keep an image of a message."""
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
