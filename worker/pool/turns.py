"""The turns of this host, from their claim until their outcome is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from shared.messages import Claim, ClaimRef, Ended, Outcome, Pending, Step, Usage
from worker.channel import RunTurn
from worker.pool.process import WorkerProcess
from worker.pool.snapshot import TurnRow
from worker.pool.verdict import RanTurn, latest_todo


@dataclass(eq=False, slots=True)
class Turn:
    """One claim on its way to an outcome.

    ``steps`` are all finished ones, those of earlier attempts first; ``worker`` runs it, None while it waits;
    ``lost`` says that another host holds the claim now, so that nothing of the turn is written any more. The ``_mono``
    times are of the monotonic clock.
    """

    number: int
    claim: Claim
    steps: list[Step] = field(default_factory=list)
    worker: WorkerProcess | None = None
    worker_name: str = ""
    started_at: float = 0.0
    started_mono: float = 0.0
    interrupted_mono: float | None = None
    lost: bool = False
    tool: str = ""
    outcome: Outcome | None = None

    @property
    def ref(self) -> ClaimRef:
        return self.claim.ref

    @property
    def session(self) -> str:
        return self.claim.ref.session

    @property
    def message(self) -> Pending:
        """The message the turn answers."""
        return self.claim.messages[0]

    @property
    def running(self) -> bool:
        """Tell whether a worker has it and has not ended it."""
        return self.worker is not None and self.outcome is None

    def begin(self, worker: WorkerProcess, name: str) -> None:
        """Note which worker runs it from now on."""
        self.worker = worker
        self.worker_name = name
        self.started_at = time.time()
        self.started_mono = time.monotonic()

    def order(self, deadline_s: float, *, stream: bool) -> RunTurn:
        """Return the frame that has it run."""
        return RunTurn(
            self.number,
            self.session,
            self.ref.epoch,
            self.claim.version,
            self.message.id,
            tuple(message.text for message in self.claim.messages),
            tuple(self.steps),
            deadline_s,
            self.message.attempts,
            stream,
            self.message.traceparent,
        )

    def ended(self, last: Ended) -> Ended:
        """Return the outcome of the whole turn, given that of its last step."""
        steps = (*self.steps, Step(0, last.messages, last.todo, last.usage))
        return Ended(
            last.status,
            last.text,
            tuple(message for step in steps for message in step.messages),
            latest_todo(steps),
            sum((step.usage for step in steps), Usage()),
            self.worker_name,
            last.error,
        )

    def ran(self) -> RanTurn:
        """Return what the verdict on its worker's death has to know of it."""
        return RanTurn(self.number, self.message.attempts, tuple(self.steps), self.interrupted_mono is not None)

    def row(self) -> TurnRow:
        """Return it as the API shows it."""
        n = self.worker.n if self.worker else None
        step = len(self.steps) + 1
        return TurnRow(self.message.id, self.session, n, self.started_at, step, self.tool, self.message.attempts)


class Turns:
    """Owns the table of turns, by number, by session and by worker."""

    def __init__(self) -> None:
        self._last_number = 0
        self._by_number: dict[int, Turn] = {}
        self._by_session: dict[str, Turn] = {}
        self._by_worker: dict[WorkerProcess, dict[int, Turn]] = {}

    def __iter__(self) -> Iterator[Turn]:
        return iter(list(self._by_number.values()))

    def __len__(self) -> int:
        return len(self._by_number)

    def open(self, claim: Claim) -> Turn:
        """Begin the turn of a claim."""
        self._last_number += 1
        turn = Turn(self._last_number, claim, list(claim.steps))
        self._by_number[turn.number] = turn
        self._by_session[turn.session] = turn
        return turn

    def begin(self, turn: Turn, worker: WorkerProcess, name: str) -> None:
        """Note which worker runs a turn."""
        turn.begin(worker, name)
        self._by_worker.setdefault(worker, {})[turn.number] = turn

    def finish(self, turn: Turn, outcome: Outcome) -> None:
        """Note how a turn came out; it stays in the table until that is written."""
        turn.outcome = outcome
        self._leave_worker(turn)

    def close(self, turn: Turn) -> None:
        """Forget a turn whose outcome is written, or never will be."""
        self._leave_worker(turn)
        self._by_number.pop(turn.number, None)
        if self._by_session.get(turn.session) is turn:
            del self._by_session[turn.session]

    def get(self, number: int) -> Turn | None:
        """Return the turn of this number that has no outcome yet."""
        turn = self._by_number.get(number)
        return turn if turn is not None and turn.outcome is None else None

    def of_session(self, session: str) -> Turn | None:
        """Return the turn of this session that has no outcome yet, running or waiting."""
        turn = self._by_session.get(session)
        return turn if turn is not None and turn.outcome is None and not turn.lost else None

    def of_claim(self, ref: ClaimRef) -> Turn | None:
        """Return the turn of this very claim."""
        turn = self._by_session.get(ref.session)
        return turn if turn is not None and turn.ref == ref else None

    def of_worker(self, worker: WorkerProcess) -> list[Turn]:
        """Return the turns a worker runs."""
        return list(self._by_worker.get(worker, {}).values())

    @property
    def running(self) -> Iterator[Turn]:
        """Every turn a worker runs."""
        for turns in list(self._by_worker.values()):
            yield from list(turns.values())

    def refs(self) -> list[ClaimRef]:
        """Return the claims this host still needs."""
        return [turn.ref for turn in self._by_number.values() if not turn.lost]

    def _leave_worker(self, turn: Turn) -> None:
        if turn.worker is None:
            return
        turns = self._by_worker.get(turn.worker, {})
        turns.pop(turn.number, None)
        if not turns:
            self._by_worker.pop(turn.worker, None)
