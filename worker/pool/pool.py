"""The pool: composes the parent wing, and alone relates turns to workers.

    claimer ── claim ──> turn ── dispatcher ──> slot ── supervisor ──> worker ── TurnDone ──> settler
                           └──────────── watchman: hung, worn ── verdict ────────────────────────┘

A turn is in ``_turns`` from its claim until its outcome goes to the settler; its claim is renewed until that is
committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from shared.errors import FrameTooLarge, StoreUnavailable
from shared.events import Event, Events
from shared.messages import Claim, ClaimRef, Dead, Ended, Outcome, Parked, Retry, Step, TurnStatus
from shared.settings import Settings
from shared.store.port import Store
from worker.channel import (
    Delta,
    History,
    Interrupt,
    NeedHistory,
    Report,
    Said,
    StepDone,
    ToolStarted,
    ToPool,
    TurnDone,
)
from worker.pool.active_turn import ActiveTurn
from worker.pool.claimer import Claimer
from worker.pool.dispatcher import Assignment, Dispatcher
from worker.pool.listener import TurnListener
from worker.pool.process import WorkerProcess
from worker.pool.quarantine import Quarantine
from worker.pool.settler import Settler
from worker.pool.snapshot import PoolSnapshot, TurnRow, WorkerRow, WorkerState
from worker.pool.store_watch import StoreWatch
from worker.pool.supervisor import Supervisor
from worker.pool.verdict import Cause, Death, judge
from worker.pool.watchman import Limits, Watchman
from worker.pool.worker_config import worker_config

#: messages of a session a worker is given when it holds none of them
HISTORY_LIMIT = 2000
#: seconds between two moves of turns that wait for a full slot
RELIEVE_EVERY_S = 1.0
#: how long outcomes may still be written after the last worker is gone, in seconds
FLUSH_S = 3.0
TOO_LARGE_TEXT = "Sorry, this conversation has become too large to go on with. Send /new to begin a new one."


class Pool:
    """Runs the turns of one host; ``listener`` is told what they do, ``host`` names this process in the claims."""

    def __init__(self, settings: Settings, store: Store, events: Events, listener: TurnListener, host: str) -> None:
        self._settings = settings
        self._store = store
        self._events = events
        self._listener = listener
        self._turns: dict[int, ActiveTurn] = {}
        self._ending: dict[ClaimRef, ActiveTurn] = {}
        self._next_turn = 1
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = asyncio.Event()
        self._dispatcher = Dispatcher()
        self._supervisor = Supervisor(settings.workers, settings.spares, worker_config(settings), events, self)
        self._quarantine = Quarantine(self._supervisor, settings.workers)
        watch = StoreWatch(events)
        self._settler = Settler(store, events, watch, self._settled)
        self._claimer = Claimer(
            store,
            events,
            watch,
            host,
            room=lambda: self._dispatcher.room,
            wants_suspect=lambda: self._quarantine.is_free,
            on_claim=self._begin,
            held=self._held,
            on_lost=self._lost,
        )
        self._watchman = Watchman(
            Limits.of(settings),
            lambda: self._supervisor.workers,
            self._turns.values,
            on_hung=self._hung,
            on_worn=self._worn,
            on_look=self._quarantine.close_if_idle,
        )

    @property
    def ready(self) -> bool:
        """Tell whether a worker can take turns now."""
        return not self._draining and any(worker and worker.usable for worker in self._supervisor.slots.values())

    async def start(self) -> None:
        """Start the workers and begin to claim; returns once a worker is ready, at once with no workers."""
        if self._settings.workers == 0:
            return
        self._supervisor.start()
        self._claimer.start()
        self._spawn(self._watchman.watch())
        self._spawn(self._relieve_always())
        await self._ready.wait()

    def wake(self) -> None:
        """Look for work now: some was accepted."""
        self._claimer.wake()

    async def drain(self, within_s: float) -> None:
        """Park every turn at its next step boundary; what has not parked in time is killed and resumes later."""
        self._draining = True
        await self._claimer.stop_claiming()
        waiting = [turn for turn in self._turns.values() if turn.worker is None]
        self._supervisor.drain_all()
        for turn in waiting:
            self._end(turn, Parked())
        try:
            async with asyncio.timeout(within_s):
                await self._until_empty()
        except TimeoutError:
            for worker in list(self._supervisor.workers):
                await self._supervisor.end(worker, Death(Cause.DRAINED, error="it did not drain in time"), dump=False)
            await self._until_empty()

    async def close(self) -> None:
        """End every worker and write what can be written; turns that still ran resume in a later process."""
        self._draining = True
        await self._claimer.stop_claiming()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._supervisor.close()
        for turn in list(self._turns.values()):
            self._end(turn, Parked())
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._settler.flush()
        except TimeoutError:
            await self._settler.close()
        await self._claimer.close()

    async def interrupt(self, session: str) -> bool:
        """End the session's running turn now; False if none runs."""
        turn = self._turn_of(session)
        if turn is None:
            return False
        if turn.interrupted_mono is None:
            turn.interrupted_mono = asyncio.get_running_loop().time()
            self._events.emit(Event.TURN_INTERRUPTED, session=session, message=turn.message_id)
            if turn.worker is not None:
                turn.worker.send(Interrupt(turn.number))
        return True

    async def kill_worker(self, n: int) -> bool:
        """SIGKILL the worker in a slot, as a fault would; False if there is none."""
        worker = next((worker for worker in self._supervisor.workers if worker.n == n), None)
        if worker is None:
            return False
        worker.kill_now()
        return True

    def running_turn(self, session: str) -> TurnRow | None:
        """Return the session's running turn."""
        turn = self._turn_of(session)
        return turn.row() if turn and turn.worker else None

    def snapshot(self) -> PoolSnapshot:
        """Return how the pool looks now."""
        workers = {worker.n: worker for worker in self._supervisor.workers if worker.n is not None}
        rows = [self._row(n, workers.get(n)) for n in sorted({*workers, *self._supervisor.slots})]
        running = sum(turn.worker is not None for turn in self._turns.values())
        waiting = len(self._turns) - running
        return PoolSnapshot(tuple(rows), self._supervisor.spares, self._supervisor.restarts, running, waiting)

    # what the supervisor tells

    def worker_placed(self, worker: WorkerProcess) -> None:
        """Give a worker that took its slot what waits for it."""
        self._ready.set()
        if worker.n == self._quarantine.n:
            if suspect := self._quarantine.placed(worker):
                self._run(suspect, worker)
        elif worker.n is not None:
            self._run_all(self._dispatcher.add_slot(worker.n, self._settings.turns_per_worker))
        self._claimer.wake()

    def worker_said(self, worker: WorkerProcess, frame: ToPool) -> None:
        """Act on a frame."""
        match frame:
            case NeedHistory(turn=number):
                self._with_turn(worker, number, self._send_history)
            case StepDone(turn=number, step=step):
                self._with_turn(worker, number, lambda turn: self._step_done(turn, step))
            case ToolStarted(turn=number, name=name):
                self._with_turn(worker, number, lambda turn: self._tool_started(turn, name))
            case Delta(turn=number, step=at, text=text):
                self._with_turn(
                    worker, number, lambda turn: self._listener.delta(turn.message_id, turn.session, at, text)
                )
            case TurnDone(turn=number, outcome=outcome):
                worker.turns_done += 1
                self._run_all(self._dispatcher.finish(number))
                self._with_turn(worker, number, lambda turn: self._turn_done(turn, worker, outcome))
            case Said(event=name, fields=fields):
                self._say(worker, name, fields)
            case Report() | _:
                pass

    def worker_writable(self, worker: WorkerProcess) -> None:
        """Give a worker that reads again new turns."""
        if worker.n is not None and self._supervisor.slots.get(worker.n) is worker:
            self._run_all(self._dispatcher.resume(worker.n))
            self._claimer.wake()

    def worker_ended(self, worker: WorkerProcess, death: Death) -> None:
        """Decide what becomes of the turns that ran in a worker that is gone."""
        if worker.n is not None and self._supervisor.slots.get(worker.n) is worker:
            self._dispatcher.remove_slot(worker.n)
        turns = [turn for turn in self._turns.values() if turn.worker is worker]
        verdicts = judge(death, [turn.ran() for turn in turns], self._settings.max_attempts, worker_name(worker))
        for turn in turns:
            self._end(turn, verdicts[turn.number])

    # turns

    def _begin(self, claim: Claim) -> None:
        turn = ActiveTurn(self._next_turn, claim)
        self._next_turn += 1
        self._turns[turn.number] = turn
        if claim.messages[0].suspect:
            if worker := self._quarantine.admit(turn):
                self._run(turn, worker)
        else:
            self._run_all(self._dispatcher.add(turn.number, turn.session))

    def _run_all(self, assignments: Iterable[Assignment]) -> None:
        for assignment in assignments:
            turn = self._turns.get(assignment.turn)
            worker = self._supervisor.slots.get(assignment.slot)
            if turn is not None and worker is not None:
                self._run(turn, worker)

    def _run(self, turn: ActiveTurn, worker: WorkerProcess) -> None:
        try:
            worker.send(turn.begin(worker, self._settings.turn_timeout_s))
        except FrameTooLarge as error:
            self._fail(turn, error)
            return
        self._listener.turn_started(turn.message_id, turn.session, worker_name(worker))
        if turn.interrupted_mono is not None:
            worker.send(Interrupt(turn.number))
        if worker.full and worker.n is not None:
            self._dispatcher.pause(worker.n)

    def _fail(self, turn: ActiveTurn, error: FrameTooLarge) -> None:
        text = TOO_LARGE_TEXT
        outcome = turn.whole(Ended(TurnStatus.FAILED, text, (), error=str(error)), "")
        self._run_all(self._dispatcher.finish(turn.number))
        self._end(turn, outcome)

    def _with_turn(self, worker: WorkerProcess, number: int, act: Callable[[ActiveTurn], None]) -> None:
        """Act on a turn that still runs in this worker; frames of one that is lost or settled are stale."""
        turn = self._turns.get(number)
        if turn is not None and turn.worker is worker:
            act(turn)

    def _send_history(self, turn: ActiveTurn) -> None:
        self._spawn(self._fetch_history(turn))

    async def _fetch_history(self, turn: ActiveTurn) -> None:
        while turn.number in self._turns and turn.worker is not None:
            try:
                found = await self._store.sessions.conversation(turn.session, HISTORY_LIMIT)
            except StoreUnavailable:
                await asyncio.sleep(0.5)
                continue
            history = History(turn.number, found.version, found.messages, found.todo)
            try:
                turn.worker.send(history)
            except FrameTooLarge as error:
                self._fail(turn, error)
            return

    def _step_done(self, turn: ActiveTurn, step: Step) -> None:
        turn.steps.append(step)
        turn.tool = ""
        self._settler.checkpoint(turn.ref, step)
        if step.todo is not None:
            self._listener.todo_changed(turn.session, step.todo)

    def _tool_started(self, turn: ActiveTurn, name: str) -> None:
        turn.tool = name
        self._listener.tool_started(turn.message_id, turn.session, name)

    def _turn_done(self, turn: ActiveTurn, worker: WorkerProcess, outcome: Outcome) -> None:
        if isinstance(outcome, Ended):
            if outcome.todo is not None:
                self._listener.todo_changed(turn.session, outcome.todo)
            outcome = turn.whole(outcome, worker_name(worker))
        self._end(turn, outcome)

    def _end(self, turn: ActiveTurn, outcome: Outcome) -> None:
        """Hand a turn's outcome to the settler; from here on only its claim is kept."""
        if self._turns.pop(turn.number, None) is None:
            return
        self._run_all(self._dispatcher.finish(turn.number))
        self._quarantine.leave(turn)
        self._ending[turn.ref] = turn
        self._settler.settle(turn.ref, outcome)
        self._claimer.wake()

    def _settled(self, ref: ClaimRef, outcome: Outcome | None) -> None:
        turn = self._ending.pop(ref, None)
        if outcome is None and turn is None:
            self._lost(ref)
        if turn is None or outcome is None:
            return
        self._emit(turn, outcome)
        self._listener.settled(turn.message_id, turn.session, outcome)
        if isinstance(outcome, Retry) and outcome.suspect:
            self._claimer.expect_suspect()
        self._claimer.wake()

    def _lost(self, ref: ClaimRef) -> None:
        """Drop a turn whose claim is somebody else's now: nothing it does may count."""
        turn = next((turn for turn in self._turns.values() if turn.ref == ref), None)
        if turn is None:
            return
        self._events.emit(Event.CLAIM_LOST, session=ref.session, message=turn.message_id)
        del self._turns[turn.number]
        self._quarantine.leave(turn)
        if turn.worker is not None:
            turn.worker.send(Interrupt(turn.number))
        else:
            self._run_all(self._dispatcher.finish(turn.number))

    def _emit(self, turn: ActiveTurn, outcome: Outcome) -> None:
        names = {"session": turn.session, "message": turn.message_id}
        match outcome:
            case Ended(status=status, error=error, worker=worker):
                self._events.emit(Event.TURN_ENDED, **names, status=status.value, worker=worker, error=error)
            case Parked():
                self._events.emit(Event.TURN_PARKED, **names)
            case Retry(attempts=attempts, suspect=suspect, error=error):
                self._events.emit(Event.TURN_RETRIED, **names, attempts=attempts, suspect=suspect, error=error)
            case Dead(attempts=attempts, error=error):
                self._events.emit(Event.MESSAGE_DEAD, **names, attempts=attempts, error=error)

    # workers

    def _hung(self, worker: WorkerProcess, death: Death) -> None:
        self._events.emit(Event.WORKER_HUNG, n=worker.n, pid=worker.pid, cause=death.cause.value, error=death.error)
        self._spawn(self._supervisor.end(worker, death, dump=True))

    def _worn(self, worker: WorkerProcess, reason: str) -> None:
        """Replace a worker behind a spare; until one is ready it goes on."""
        if worker.n is not None and self._supervisor.spares:
            self._dispatcher.remove_slot(worker.n)
            self._events.emit(Event.WORKER_RECYCLED, n=worker.n, pid=worker.pid, reason=reason)
        self._supervisor.replace(worker)

    def _say(self, worker: WorkerProcess, name: str, fields: dict[str, str | int | float | bool | None]) -> None:
        event = Event(name) if name in set(Event) else Event.WORKER_SAID
        self._events.emit(event, **{"n": worker.n, "pid": worker.pid} | fields)

    def _row(self, n: int, worker: WorkerProcess | None) -> WorkerRow:
        if worker is None:
            return WorkerRow(n, 0, WorkerState.STARTING, 0, 0, 0, 0, 0.0, 0, 0, 0)
        report = worker.report
        return WorkerRow(
            n=n,
            pid=worker.pid,
            state=worker.state,
            turns=sum(turn.worker is worker for turn in self._turns.values()),
            turns_done=worker.turns_done,
            sessions=self._dispatcher.sessions(n),
            rss_bytes=report.rss_bytes,
            started_at=worker.started_at,
            cache_hits=report.cache_hits,
            cache_misses=report.cache_misses,
            cache_size=report.cache_size,
        )

    # the pool itself

    def _turn_of(self, session: str) -> ActiveTurn | None:
        return next((turn for turn in self._turns.values() if turn.session == session), None)

    def _held(self) -> list[ClaimRef]:
        return [*(turn.ref for turn in self._turns.values()), *self._ending]

    async def _relieve_always(self) -> None:
        while True:
            await asyncio.sleep(RELIEVE_EVERY_S)
            self._run_all(self._dispatcher.relieve())

    async def _until_empty(self) -> None:
        """Return once no turn runs and every outcome is written."""
        while self._turns:
            await asyncio.sleep(0.02)
        await self._settler.flush()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def worker_name(worker: WorkerProcess) -> str:
    """Return the name of a worker in traces: its slot and its process."""
    return f"{worker.n}:{worker.pid}"
