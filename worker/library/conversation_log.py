"""The session log of a conversation that is held as dicts: puts what is new into it each time it is saved."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.events import Emit
from shared.redaction import Redaction
from shared.session_files import log_line
from worker.agent.session_log import SessionLog
from worker.frames import WorkerConfig
from worker.library.message_import import json_bytes
from worker.session_log.ring import HEADER_BYTES, LogRing

RING_BYTES = 256 * 1024

Message = dict[str, Any]


class ConversationLog:
    """Owns the log of one session, for any thread; its own thread runs from the first save until ``close``."""

    def __init__(self, config: WorkerConfig, session: str, emit: Emit) -> None:
        self._config = config
        self._session = session
        self._emit = emit
        self._logged: list[Message] = []
        self._saving = threading.Lock()
        self._making = threading.Lock()
        self.running: SessionLog | None = None

    def start(self) -> SessionLog:
        """Return the log with its thread running."""
        with self._making:
            if self.running is None:
                ring = LogRing(memoryview(bytearray(HEADER_BYTES + RING_BYTES)))
                self.running = SessionLog(
                    Path(self._config.log_dir),
                    ring,
                    self._config.log_flush_interval_s,
                    self._emit,
                    redaction=Redaction(self._config.secrets()),
                )
                self.running.start()
            return self.running

    def save(self, messages: Sequence[Message]) -> None:
        """Put what differs from the last save into the log, from the first message that does; touches no disk."""
        with self._saving:
            messages = list(messages)
            known = common_length(self._logged, messages)
            log, now = self.start(), time.time()
            for index, message in enumerate(messages[known:], known):
                log.put(self._session, log_line(now, self._session, json_bytes(message), index=index))
            self._logged[known:] = messages[known:]
            if self.running is not log:  # closed meanwhile, and its thread writes no more
                log.flush()

    def close(self) -> None:
        """Write what waits and end the thread; a later save starts it again."""
        with self._making:
            log, self.running = self.running, None
        if log is not None:
            log.close()


def common_length(old: Sequence[Message], new: Sequence[Message]) -> int:
    """Return how many messages both begin with."""
    length = min(len(old), len(new))
    if old[:length] == new[:length]:
        return length
    return next(index for index in range(length) if old[index] != new[index])
