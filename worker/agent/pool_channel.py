"""The channel to the pool as a worker uses it: frames and events, from any thread, without the secrets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence

from shared.errors import ChannelClosed
from shared.events import Event, Field
from shared.loose_json import mend_surrogates
from shared.redaction import Redaction
from worker.channel import Channel
from worker.frames import LogEvent, ToPool, ToWorker

TEXT_LIMIT_CHARS = 8000


class PoolChannel:
    """Sends frames on the loop's own channel; made on the loop."""

    def __init__(self, channel: Channel[ToWorker, ToPool]) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._redaction = Redaction()

    def hide(self, secrets: Sequence[str]) -> None:
        """Write ``***`` for these from now on."""
        self._redaction = Redaction(secrets)

    @property
    def full(self) -> bool:
        """Whether what may be left unsent should be."""
        return self._channel.full

    def send(self, frame: ToPool) -> None:
        """Send a frame; on the loop only. Raises FrameTooLarge; without a pool there is nobody to tell."""
        with contextlib.suppress(ChannelClosed):
            self._channel.send(frame)

    def emit(self, event: Event, **fields: Field) -> None:
        """Say an event, from any thread."""
        said = LogEvent(event.value, {name: self._clean(value) for name, value in fields.items()})
        if threading.get_ident() == self._thread:
            self.send(said)
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self.send, said)

    def clean(self, text: str) -> str:
        """Return the text as valid UTF-8, without the secrets."""
        return self._redaction.clean_text(mend_surrogates(text))

    def _clean(self, value: Field) -> Field:
        return self.clean(value)[-TEXT_LIMIT_CHARS:] if isinstance(value, str) else value

    async def left(self) -> None:
        """Return once the socket has taken all that was sent: it outlives this process's kill; mostly at once."""
        while self._channel.pending_bytes:  # noqa: ASYNC110 (the transport tells of its watermarks alone)
            await asyncio.sleep(0.002)

    async def sent(self, within_s: float) -> None:
        """Wait until the socket has taken everything, or until the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await asyncio.sleep(0)
                while self._channel.pending_bytes:  # noqa: ASYNC110 (the transport tells of its watermarks alone)
                    await asyncio.sleep(0.005)


class PoolLogHandler(logging.Handler):
    """Takes warnings of libraries and of users' tools to the host's log."""

    def __init__(self, pool: PoolChannel) -> None:
        super().__init__(logging.WARNING)
        self._pool = pool

    def emit(self, record: logging.LogRecord) -> None:
        """Say the record as an event."""
        self._pool.emit(Event.WORKER_SAID, logger=record.name, level=record.levelname.lower(), text=self.format(record))
