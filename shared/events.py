"""Named events: what code says happened; here alone they become log lines and counters.

Code emits an event with fields; this module picks the level, hides secrets, and writes one JSON line an event, or a
line for people on a terminal. Lines are written by a thread of their own, so a slow log never stalls a loop.
"""

from __future__ import annotations

import enum
import io
import logging
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TextIO

import msgspec

from shared.loose_json import mend_all
from shared.printable import printable, printable_json, printable_line
from shared.redaction import Redaction

#: how long lines gather before they are written together; a warning, and all before it, is written at once
GATHER_S = 0.02

Field = str | int | float | bool | None

#: fields of many lines
TRACES = frozenset({"exception", "stacks"})


class Event(enum.StrEnum):
    """Every event there is; the value is its name in the log and in the metrics."""

    STARTED = "started"
    SETTING_HINT = "setting_hint"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    AUDIT = "audit"
    REQUEST_FAILED = "request_failed"
    CONNECTION_REFUSED = "connection_refused"
    WEBHOOK_REJECTED = "webhook_rejected"
    WEBHOOK_IGNORED = "webhook_ignored"
    MESSAGE_ACCEPTED = "message_accepted"
    MESSAGE_DUPLICATE = "message_duplicate"
    MESSAGE_REFUSED = "message_refused"
    MESSAGE_REJECTED = "message_rejected"
    MESSAGE_JOINED = "message_joined"
    MESSAGE_WITHDRAWN = "message_withdrawn"
    COMMAND_ANSWERED = "command_answered"
    STRANGER = "stranger"
    CHAT_MOVED = "chat_moved"
    SESSION_CLAIMED = "session_claimed"
    CLAIMS_ADOPTED = "claims_adopted"
    CLAIM_LOST = "claim_lost"
    TURN_ENDED = "turn_ended"
    TURN_PARKED = "turn_parked"
    TURN_LET_GO = "turn_let_go"
    TURN_AWAITS_APPROVAL = "turn_awaits_approval"
    TURN_RETRIED = "turn_retried"
    TURN_INTERRUPTED = "turn_interrupted"
    MESSAGE_DEAD = "message_dead"
    WORKER_STARTED = "worker_started"
    WORKER_READY = "worker_ready"
    WORKER_FAILED_TO_START = "worker_failed_to_start"
    WORKER_HUNG = "worker_hung"
    WORKER_STACKS = "worker_stacks"
    WORKER_KILLED = "worker_killed"
    WORKER_DIED = "worker_died"
    WORKER_RECYCLED = "worker_recycled"
    WORKER_SAID = "worker_said"
    POOL_FAULT = "pool_fault"
    HOST_FENCED = "host_fenced"
    WAITING_LIMIT_REACHED = "waiting_limit_reached"
    RENEWING = "renewing"
    RENEWED = "renewed"
    TOOL_FAILED = "tool_failed"
    TOOL_ENDED = "tool_ended"
    TOOL_LEAKED = "tool_leaked"
    TOOL_WARNING = "tool_warning"
    MCP_SERVER_READY = "mcp_server_ready"
    MCP_SERVER_LOST = "mcp_server_lost"
    MCP_TOOL_LEFT_OUT = "mcp_tool_left_out"
    MODEL_FAILED = "model_failed"
    MODEL_ANSWERED = "model_answered"
    MODEL_ODDITY = "model_oddity"
    MODEL_ADAPTED = "model_adapted"
    CONTEXT_COMPACTED = "context_compacted"
    CONTEXT_CUT = "context_cut"
    SESSION_LOG_FAILED = "session_log_failed"
    SESSION_LOG_SALVAGED = "session_log_salvaged"
    SESSION_LOG_REPAIRED = "session_log_repaired"
    REPLY_SENT = "reply_sent"
    REPLY_POSTPONED = "reply_postponed"
    REPLY_REFUSED = "reply_refused"
    REPLY_AMBIGUOUS = "reply_ambiguous"
    DELIVERY_FAILED = "delivery_failed"
    STORE_UNAVAILABLE = "store_unavailable"
    STORE_RECOVERED = "store_recovered"
    MIGRATING = "migrating"
    MIGRATED = "migrated"
    BACKUP_MADE = "backup_made"
    BACKUP_FAILED = "backup_failed"
    OLD_REMOVED = "old_removed"
    SUBSCRIBER_FAILED = "subscriber_failed"


LEVELS = {
    Event.REQUEST_FAILED: logging.ERROR,
    Event.MESSAGE_DEAD: logging.ERROR,
    Event.STORE_UNAVAILABLE: logging.ERROR,
    Event.BACKUP_FAILED: logging.ERROR,
    Event.SUBSCRIBER_FAILED: logging.ERROR,
    Event.WORKER_FAILED_TO_START: logging.ERROR,
    Event.POOL_FAULT: logging.ERROR,
    Event.HOST_FENCED: logging.ERROR,
    Event.WAITING_LIMIT_REACHED: logging.WARNING,
    Event.SETTING_HINT: logging.WARNING,
    Event.WORKER_HUNG: logging.WARNING,
    Event.WORKER_STACKS: logging.WARNING,
    Event.WORKER_KILLED: logging.WARNING,
    Event.WORKER_DIED: logging.WARNING,
    Event.TURN_RETRIED: logging.WARNING,
    Event.CLAIM_LOST: logging.WARNING,
    Event.AUDIT: logging.WARNING,
    Event.CONNECTION_REFUSED: logging.WARNING,
    Event.WEBHOOK_REJECTED: logging.WARNING,
    Event.MESSAGE_REFUSED: logging.WARNING,
    Event.TOOL_FAILED: logging.WARNING,
    Event.TOOL_LEAKED: logging.WARNING,
    Event.TOOL_WARNING: logging.WARNING,
    Event.MCP_SERVER_LOST: logging.WARNING,
    Event.MCP_TOOL_LEFT_OUT: logging.WARNING,
    Event.MODEL_FAILED: logging.WARNING,
    Event.MODEL_ODDITY: logging.WARNING,
    Event.MODEL_ADAPTED: logging.WARNING,
    Event.CONTEXT_CUT: logging.WARNING,
    Event.SESSION_LOG_FAILED: logging.WARNING,
    Event.REPLY_POSTPONED: logging.WARNING,
    Event.REPLY_REFUSED: logging.ERROR,
    Event.DELIVERY_FAILED: logging.ERROR,
    Event.REPLY_AMBIGUOUS: logging.WARNING,
    Event.WEBHOOK_IGNORED: logging.DEBUG,
    Event.SESSION_CLAIMED: logging.DEBUG,
    Event.WORKER_STARTED: logging.DEBUG,
    Event.MODEL_ANSWERED: logging.DEBUG,
    Event.TOOL_ENDED: logging.DEBUG,
}


class Emit(Protocol):
    """How code that holds no Events emits one; ``Events.emit`` is such a function."""

    def __call__(self, event: Event, **fields: Field) -> None:
        """Emit this; never raises, never blocks, and may be called on any thread."""


#: who is told of every event with its fields; what it raises is said once and harms nobody
Subscriber = Callable[[Event, Mapping[str, Field]], None]


class Events:
    """Where code says what happened."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("gatehouse")
        self._subscribers: dict[Event, list[Subscriber]] = {event: [] for event in Event}
        self.counts: Counter[Event] = Counter()  #: how often each event was said

    def subscribe(self, subscriber: Subscriber, heard: Iterable[Event] = Event) -> None:
        """Tell somebody of these events from now on, of every one by default, on the thread that says it."""
        for event in heard:
            self._subscribers[event].append(subscriber)

    def emit(self, event: Event, **fields: Field) -> None:
        """Say that this happened, with the fields that tell which and why; never raises, never blocks."""
        self._write(event, fields)
        for subscriber in self._subscribers[event]:
            try:
                subscriber(event, fields)
            except Exception as error:  # noqa: BLE001 - whoever said it has no part in what a subscriber does wrong
                self.subscriber_failed(event.value, error)

    def _write(self, event: Event, fields: Mapping[str, Field], error: Exception | None = None) -> None:
        self.counts[event] += 1
        level = LEVELS.get(event, logging.INFO)
        if self._logger.isEnabledFor(level):
            self._logger.handle(EventRecord(self._logger.name, level, event, fields, error))

    def subscriber_failed(self, told: str, error: Exception) -> None:
        """Say that somebody who was told of something raised; never raises."""
        if self.counts[Event.SUBSCRIBER_FAILED]:
            self.counts[Event.SUBSCRIBER_FAILED] += 1  # it was said; a log of nothing else helps nobody
        else:
            self._write(Event.SUBSCRIBER_FAILED, {"told": told}, error)


#: what a log record tells beside its event
NOT_SHOWN: Mapping[str, object] = (
    dict.fromkeys(("pathname", "filename", "module", "funcName"), "")
    | dict.fromkeys(("args", "stack_info", "exc_text", "thread", "threadName", "process", "processName"))
    | {"lineno": 0, "relativeCreated": 0.0}
)


class EventRecord(logging.LogRecord):
    """The log record of an event, made without what no event shows: file and line, thread, process.

    The library's own looks all of them up, which costs more than everything else that an event does.
    """

    def __init__(  # the library's would do the work that this saves
        self, name: str, level: int, event: Event, fields: Mapping[str, Field], error: Exception | None
    ) -> None:
        self.__dict__.update(NOT_SHOWN)
        self.name = name
        self.levelno = level
        self.levelname = logging.getLevelName(level)
        self.msg = event.value
        self.created = time.time()
        self.msecs = self.created % 1 * 1000
        self.exc_info = (type(error), error, error.__traceback__) if error else None
        self.fields = fields


class LineFormatter(logging.Formatter):
    """One line a record: JSON, or ``time level event key=value`` for people; secrets become ``***``."""

    def __init__(self, secrets: Iterable[str], *, people: bool) -> None:
        super().__init__()
        self._redaction = Redaction(secrets)
        self._people = people

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        fields: dict[str, Field] = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return self._redaction.clean_text(
            self._for_people(record, fields) if self._people else self._as_json(record, fields)
        )

    def _as_json(self, record: logging.LogRecord, fields: dict[str, Field]) -> str:
        head = {"at": round(record.created, 3), "level": record.levelname.lower(), "event": record.getMessage()}
        if record.name != "gatehouse":
            head["logger"] = record.name
        try:
            line = msgspec.json.encode(head | fields)
        except UnicodeEncodeError:  # halves of characters, such as names of files that are no UTF-8
            line = msgspec.json.encode(mend_all(head | fields))
        return printable_json(line.decode())

    def _for_people(self, record: logging.LogRecord, fields: dict[str, Field]) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        rest = " ".join(f"{name}={shown(name, value)}" for name, value in fields.items() if value not in {None, ""})
        return f"{clock} {record.levelname.lower():7} {printable_line(record.getMessage())} {rest}".rstrip()


def shown(name: str, value: Field) -> str:
    """Return a field for people: in one line, so that none can pass for another event; traces in lines of their own."""
    if name in TRACES:
        return "".join(f"\n    {line}" for line in printable(str(value)).splitlines())
    return printable_line(str(value))


class LogWriter:
    """Owns the process's log output: a queue, and the thread that writes the lines of one moment together."""

    def __init__(self, secrets: Iterable[str], stream: TextIO | None = None) -> None:
        target = stream or sys.stdout
        if isinstance(target, io.TextIOWrapper):
            target.reconfigure(errors="backslashreplace")  # in a locale without the letter no line is lost
        self._lines = _Lines(target)
        self._lines.setFormatter(LineFormatter(secrets, people=target.isatty()))
        self._door = _Door()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take over the root logger and start the thread."""
        # what no line shows is not looked up for each record
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
        root = logging.getLogger()
        root.handlers[:] = [self._door]
        root.setLevel(logging.INFO)
        for noisy in ("httpx2", "httpcore2", "asyncio", "uvicorn.access"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self._thread = threading.Thread(target=self._main, name="log-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued and end the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._door.close_behind()
            thread.join()
        logging.getLogger().handlers[:] = [self._lines]

    def _main(self) -> None:
        while (records := self._door.take()) is not None:
            self._lines.write(records)


class _Lines(logging.StreamHandler[TextIO]):
    """Writes records, many at a time."""

    def write(self, records: Iterable[logging.LogRecord]) -> None:
        """Write these in one piece; a record that cannot be written costs no other one its line."""
        lines = []
        for record in records:
            try:
                lines.append(self.format(record) + self.terminator)
            except Exception:  # noqa: BLE001 - as every handler of the library does
                self.handleError(record)
        try:
            self.stream.write("".join(lines))
            self.flush()
        except Exception:  # noqa: BLE001 - as every handler of the library does
            self.handleError(record)


class _Door(logging.Handler):
    """Queues a record as it is: nothing is formatted on the caller's time."""

    def __init__(self) -> None:
        super().__init__()
        self._records: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._urgent = threading.Event()

    def handle(self, record: logging.LogRecord) -> bool:
        """Queue it; a queue needs no lock of ours."""
        self._records.put(record)
        if record.levelno >= logging.WARNING:
            self._urgent.set()
        return True

    def close_behind(self) -> None:
        """Let ``take`` return None once it has returned what is queued."""
        self._records.put(None)
        self._urgent.set()

    def take(self) -> list[logging.LogRecord] | None:
        """Wait for a record; return it with those of the next moment, None at the end. A warning ends the moment."""
        record = self._records.get()
        if record is None:
            return None
        self._urgent.wait(GATHER_S)
        self._urgent.clear()
        records = []
        while record is not None:
            records.append(record)
            try:
                record = self._records.get_nowait()
            except queue.Empty:
                return records
        self._records.put(None)
        return records
