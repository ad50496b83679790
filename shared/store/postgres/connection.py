"""One connection in libpq's pipeline mode: statements are sent without waiting, and their outcomes come all at once.

    send, send, send … ── sync ──▶ one round trip ──▶ outcomes, in order; the first error ends the transaction

https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import pq

from shared.store.engine import Row
from shared.store.postgres import statements

#: how long a server may take to accept a connection, and to answer a round trip at most, in seconds
CONNECT_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 60.0
#: how long what was sent may stay without the peer's acknowledgement before the kernel ends the connection
LOST_AFTER_MS = 20_000
#: what a server does with a session that is lost on its way, so that its locks are free again soon; and how it plans:
#: a prepared statement keeps its plan, and one made while a table was small would read all of it when it is large
OPTIONS = (
    "-c statement_timeout=60s -c idle_in_transaction_session_timeout=10s -c lock_timeout=20s "
    "-c enable_seqscan=off -c jit=off"
)


class DatabaseError(Exception):
    """Raised when the server refuses a statement; ``sqlstate`` is its code, of five characters."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.sqlstate = sqlstate


class ConnectionLost(Exception):
    """Raised when the connection has ended or the server does not answer: nobody knows what became of what was sent."""


class Outcome:
    """What became of one statement, once ``sync`` has returned: its rows, and how many it changed."""

    __slots__ = ("changed", "rows")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.changed = 0


class Connection:
    """An open connection; ``prepares`` unless a pooler hands each transaction to another server session."""

    def __init__(self, conninfo: str, *, prepares: bool, application: str) -> None:
        more: dict[str, Any] = {"options": OPTIONS} if prepares else {}
        try:
            self._psycopg = psycopg.connect(
                conninfo,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                application_name=application,
                tcp_user_timeout=LOST_AFTER_MS,
                **more,
            )
        except psycopg.Error as error:
            raise ConnectionLost(" ".join(str(error).split())) from error
        self._pg = self._psycopg.pgconn
        self._pg.enter_pipeline_mode()
        self._pg.nonblocking = 1
        self._prepares = prepares
        self._prepared: set[bytes] = set()
        #: outcomes of what was sent, names of what was prepared
        self._sent: list[Outcome | bytes] = []
        self._poll = select.poll()
        self.round_trips = self.statements = 0

    @property
    def is_lost(self) -> bool:
        """Whether it has ended while nothing was asked of it."""
        self._poll.register(self._pg.socket, select.POLLIN)
        try:
            while self._poll.poll(0):
                self._pg.consume_input()
        except psycopg.Error:
            return True
        return bool(self._pg.status != pq.ConnStatus.OK)

    def close(self) -> None:
        """End the connection, whatever it is doing."""
        with contextlib.suppress(Exception):
            self._psycopg.close()

    def send(self, sql: str, values: Sequence[Any] = ()) -> Outcome:
        """Send a statement of the shared ones; its outcome is there after ``sync``."""
        text, sent = statements.statement(sql).text, statements.encode(values)
        self.statements += 1
        try:
            if self._prepares:
                name = statements.name(text, sent.types)
                if name not in self._prepared:
                    self._pg.send_prepare(name, text, sent.types)
                    self._prepared.add(name)
                    self._sent.append(name)
                self._pg.send_query_prepared(name, sent.bodies, sent.formats, 1)
            else:
                self._pg.send_query_params(text, sent.bodies, sent.types, sent.formats, 1)
        except psycopg.Error as error:
            raise ConnectionLost(str(error)) from error
        outcome = Outcome()
        self._sent.append(outcome)
        return outcome

    def sync(self) -> None:
        """Wait for all outcomes. Raises DatabaseError for the first that is an error, and ConnectionLost."""
        self.round_trips += 1
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        sent, self._sent = self._sent, []
        try:
            self._pg.pipeline_sync()
            while self._pg.flush():
                if self._wait(select.POLLIN | select.POLLOUT, deadline) & select.POLLIN:
                    self._pg.consume_input()
            failed = [error for outcome in sent if (error := self._receive(outcome, deadline)) is not None]
            while (result := self._result(deadline)) is None or result.status != pq.ExecStatus.PIPELINE_SYNC:
                continue
        except psycopg.Error as error:
            raise ConnectionLost(" ".join(str(error).split())) from error
        if failed:
            raise failed[0]

    def _receive(self, outcome: Outcome | bytes, deadline: float) -> DatabaseError | None:
        """Read what became of one statement."""
        result = self._result(deadline)
        if result is None:
            raise ConnectionLost("the server ended the connection")
        self._result(deadline)  # None, which ends the results of a statement
        match result.status:
            case pq.ExecStatus.TUPLES_OK if isinstance(outcome, Outcome):
                columns = [statements.decoder(result.ftype(column)) for column in range(result.nfields)]
                outcome.rows = statements.rows_of(columns, result.get_value, result.ntuples)
                outcome.changed = result.ntuples
            case pq.ExecStatus.COMMAND_OK if isinstance(outcome, Outcome):
                outcome.changed = result.command_tuples or 0
            case pq.ExecStatus.PIPELINE_ABORTED if isinstance(outcome, bytes):
                self._prepared.discard(outcome)  # behind an error nothing is done
            case pq.ExecStatus.FATAL_ERROR:
                if isinstance(outcome, bytes):
                    self._prepared.discard(outcome)
                state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
                message = result.get_error_message()
                if not state or state.startswith("57P") or self._pg.status != pq.ConnStatus.OK:
                    raise ConnectionLost(" ".join(message.split()))
                return DatabaseError(state, message)
        return None

    def _result(self, deadline: float) -> pq.abc.PGresult | None:
        while self._pg.is_busy():
            self._wait(select.POLLIN, deadline)
            self._pg.consume_input()
        return self._pg.get_result()

    def _wait(self, events: int, deadline: float) -> int:
        """Wait until the socket is ready and return what it is ready for."""
        self._poll.register(self._pg.socket, events)
        ready = self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            raise ConnectionLost(f"the server has not answered for {ANSWER_TIMEOUT_S:.0f} s")
        return ready[0][1]
