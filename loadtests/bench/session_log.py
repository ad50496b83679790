"""The session log of a turn: what a turn waits for, beside what it would wait for the usual ways."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import queue
import tempfile
import time
from pathlib import Path

from loadtests.measuring import each_us, figure, percentile, print_table, rounds
from shared.events import Events
from shared.session_files import log_line
from worker.agent.context import transcript
from worker.agent.session_log import SessionLog
from worker.session_log.ring import HEADER_BYTES, LogRing

MESSAGE = transcript.user("a message as people write them, " * 6)


def new_log(log_dir: Path, flush_interval_s: float = 0.5, ring_bytes: int = 4 << 20) -> SessionLog:
    """Return a session log over a ring of this process."""
    ring = LogRing(memoryview(bytearray(HEADER_BYTES + ring_bytes)))
    return SessionLog(log_dir, ring, flush_interval_s, Events().emit)


class Rewriter:
    """A session log as one JSON document that every turn writes anew and syncs."""

    def __init__(self, path: Path, messages: int) -> None:
        self._path = path
        self._messages = [json.loads(MESSAGE) for _ in range(messages)]

    def save(self) -> None:
        with self._path.open("w") as file:
            json.dump({"messages": self._messages}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())


def main(directory: Path) -> None:
    """Print what one turn pays for its session log."""
    log, line = new_log(directory / "logs"), log_line(time.time(), "s", MESSAGE)
    log.start()
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logger = logging.getLogger("bench")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.handlers.QueueHandler(records))
    text = line.decode()
    samples = rounds(
        {
            "put into the session log": (4000, lambda: log.put("s", line)),
            "logging with a QueueHandler": (4000, lambda: logger.info(text)),
            "rewrite and fsync, 100 messages": (20, Rewriter(directory / "100.json", 100).save),
            "rewrite and fsync, 1,000 messages": (5, Rewriter(directory / "1000.json", 1000).save),
        }
    )
    whole = log.close()
    print_table("the session log: what a turn waits for", "us", samples)
    print(f"  {log.lines} lines put, {log.written} file writes, all of them in the file: {whole}")
    slowest_us = percentile([each_us(1, lambda: log.put("s", line)) for _ in range(4000)], 0.999)
    print(f"  slowest put of a thousand: {figure(slowest_us)} us")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(place))
