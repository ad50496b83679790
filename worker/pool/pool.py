"""The pool: composes the parent wing, and alone relates turns to workers.

claimer ── claim ──> turn ── dispatcher ──> slot ── supervisor ──> worker ── TurnDone ──> settler
                       └──────────── watchman: hung, worn ── verdict ────────────────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from typing import Any

from shared.errors import FrameTooLarge
from shared.events import Event, Events, Field
from shared.messages import Claim, Dead, Outcome, Parked, Retry
from shared.settings import Settings
from shared.store.port import Store
from worker.frames import Interrupt, LogEvent, NeedAllowance, NeedHistory, OfTurn, ToPool, ToWorker, TurnDone
from worker.pool.dispatcher import Assignment, Dispatcher
from worker.pool.hang_detector import HangDetector, Limits
from worker.pool.log_audit import LogAudit
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.quarantine import Quarantine
from worker.pool.rolling_restart import RollingRestart
from worker.pool.snapshot import PoolSnapshot, TurnRow
from worker.pool.store_health import StoreHealth
from worker.pool.supervisor import Supervisor
from worker.pool.turns.active_turn import ActiveTurn
from worker.pool.turns.claimer import Claimer
from worker.pool.turns.crash_policy import Cause, Death, given_up_text, judge, used
from worker.pool.turns.history_loader import HistoryLoader
from worker.pool.turns.observer import TurnObserver
from worker.pool.turns.turn_control import TurnControl
from worker.pool.turns.turns import Turns
from worker.pool.worker_config import worker_config
from worker.pool.worker_rows import worker_table

#: seconds between two moves of turns that wait for a full slot
REBALANCE_EVERY_S = 1.0
#: how long outcomes may still be written after the last worker is gone, in seconds
FLUSH_S = 3.0


class Pool:
    """Runs the turns of one host; ``listener`` is told what they do, ``host`` names this process in the claims.

    ``turn_control`` is where senders ask turns to end, or to take in later words.
    """

    def __init__(self, settings: Settings, store: Store, events: Events, listener: TurnObserver, host: str) -> None:
        self._settings = settings
        self._events = events
        self._listener = listener
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = asyncio.Event()
        watch = StoreHealth(events)
        # to stay with a worker is of use as long as it can hold the conversation
        self._dispatcher = Dispatcher(sticky_limit=max(1, settings.workers) * settings.todo_cache_size)
        self._supervisor = Supervisor(settings.workers, settings.spares, worker_config(settings), events, self)
        self._log_audit = LogAudit(store, events, worker_config(settings))
        self._quarantine = Quarantine(self._supervisor, first=settings.workers)
        self._renewal = RollingRestart(self._supervisor, events, self._replace)
        self._turns = Turns(
            store, events, watch, listener, settings.budgets, on_left=self._left, on_settled=self._settled
        )
        self.turn_control = TurnControl(self._turns, events, self._spawn)
        self._conversations = HistoryLoader(
            store, watch, settings.context_tokens, lambda turn: self._turns.get(turn.number) is turn
        )
        self._claimer = Claimer(
            store,
            events,
            watch,
            host,
            room=lambda: self._dispatcher.room,
            suspect_room=lambda: self._quarantine.room,
            on_claim=self._begin,
            held=lambda: self._turns.held,
            on_lost=self._turns.lose,
            budgets=settings.budgets,
        )
        self._watchman = HangDetector(
            Limits.of(settings),
            lambda: self._supervisor.all_workers,
            lambda: self._turns,
            on_hung=self._hung,
            on_worn=self._replace,
            on_look=self._quarantine.close_idle,
        )

    @property
    def ready(self) -> bool:
        """Tell whether a worker can take turns now, and work is looked for."""
        serves = not self._draining and not self._claimer.broken
        return serves and any(worker and worker.usable for worker in self._supervisor.slots.values())

    async def start(self) -> None:
        """Start the workers and begin to claim; returns once a worker is ready, at once with no workers."""
        if self._settings.workers == 0:
            return
        self._supervisor.start()
        self._claimer.start()
        for work in (self._watchman.watch(), self._rebalance_always(), self._renewal.always(), self._log_audit.run()):
            self._spawn(work)
        await self._ready.wait()

    def wake(self) -> None:
        """Look for work now: some was accepted."""
        self._claimer.wake()

    async def drain(self, within_s: float) -> None:
        """Park every turn at its next step boundary; what has not parked in time is killed and resumes later."""
        self._draining = True
        await self._claimer.stop_claiming()
        waiting = [turn for turn in self._turns if turn.worker is None]
        self._supervisor.drain_all()
        for turn in waiting:
            self._turns.end(turn, Parked())
        try:
            async with asyncio.timeout(within_s):
                await self._until_empty()
        except TimeoutError:
            for worker in list(self._supervisor.workers):
                await self._supervisor.end(worker, Death(Cause.DRAINED, error="it did not drain in time"), dump=False)
            # a store that is away may not hold up the end: what it did not take resumes from the checkpoints
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._until_empty()

    async def close(self) -> None:
        """End every worker and write what can be written; turns that still ran resume in a later process."""
        self._draining = True
        await self._claimer.stop_claiming()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._supervisor.close()
        for turn in self._turns:
            self._turns.end(turn, Parked())
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._turns.flush()
        except TimeoutError:
            await self._turns.close()
        await self._claimer.close()

    def renew(self) -> None:
        """Replace every worker, one at a time, by one with the code and tools that lie on disk now."""
        self._renewal.ask()

    async def interrupt(self, session: str) -> bool:
        """End the session's running turn now; False if none runs."""
        turn = self._turns.of_session(session)
        if turn is not None:
            self.turn_control.interrupt(turn)
        return turn is not None

    def removed(self, session: str) -> None:
        """Take note that a session was removed: what a worker still writes of it into its log is to go, too."""
        self._log_audit.suspect([session])

    async def kill_worker(self, n: int) -> bool:
        """SIGKILL the worker in a slot, as a fault would; False if there is none."""
        worker = next((worker for worker in self._supervisor.workers if worker.n == n), None)
        if worker is not None:
            worker.kill_now()
        return worker is not None

    def running_turn(self, session: str) -> TurnRow | None:
        """Return the session's running turn."""
        turn = self._turns.of_session(session)
        return turn.row() if turn and turn.worker else None

    def todo(self, session: str) -> bytes | None:
        """Return the todo list (JSON array) that a turn has changed and not settled; None where the store's holds.

        Ask this before the store: what is settled in between is found there then.
        """
        return self._turns.todo(session)

    def snapshot(self) -> PoolSnapshot:
        """Return how the pool looks now."""
        return worker_table(self._supervisor, self._dispatcher, self._turns)

    def worker_placed(self, worker: WorkerProcess) -> None:
        """Give a worker that took its slot what waits for it (called by the supervisor)."""
        self._ready.set()
        if worker.n is not None and worker.n in self._quarantine:
            if suspect := self._quarantine.placed(worker.n, worker):
                self._run(suspect, worker)
        elif worker.n is not None:
            self._run_all(self._dispatcher.add_slot(worker.n, self._settings.turns_per_worker))
        self._claimer.wake()

    def worker_said(self, worker: WorkerProcess, frame: ToPool) -> None:
        """Act on a frame (called by the supervisor)."""
        if isinstance(frame, LogEvent):
            self._say(worker, frame.event, frame.fields)
        elif isinstance(frame, OfTurn):
            turn = self._turns.get(frame.turn)
            if isinstance(frame, TurnDone):
                worker.turns_done += 1
                self._run_all(self._dispatcher.finish(frame.turn))
            # frames of a turn that was lost, or that runs elsewhere by now, are stale
            if turn is not None and turn.worker is worker:
                self._turn_said(turn, worker, frame)

    def worker_writable(self, worker: WorkerProcess) -> None:
        """Give a worker that reads again new turns (called by the supervisor)."""
        if worker.n is not None and worker.usable and self._supervisor.slots.get(worker.n) is worker:
            self._run_all(self._dispatcher.resume(worker.n))
            self._claimer.wake()

    def worker_ended(self, worker: WorkerProcess, death: Death) -> None:
        """Decide what becomes of the turns that ran in a worker that is gone (called by the supervisor)."""
        if worker.n is not None and self._supervisor.slots.get(worker.n) is worker:
            self._run_all(self._dispatcher.remove_slot(worker.n))
        turns = self._turns.of_worker(worker)
        self._log_audit.suspect(turn.session for turn in turns)
        verdicts = judge(death, [turn.ran() for turn in turns], self._settings.max_attempts, worker.name)
        for turn in turns:
            self._turns.end(turn, verdicts[turn.number])

    def _begin(self, claim: Claim) -> None:
        turn = self._turns.begin(claim)
        if not self.turn_control.turn_begins(turn):
            return
        attempts = turn.attempts
        if attempts >= self._settings.max_attempts:
            # a host died under it as often as it may, so it never came to a verdict
            spent = used(turn.ran().steps)
            self._turns.end(turn, Dead(attempts, "its host died under it", given_up_text(attempts), usage=spent))
        elif (refused := turn.over_budget()) is not None:
            self._turns.end(turn, refused)
        elif not claim.messages[0].suspect:
            self._run_all(self._dispatcher.add(turn.number, turn.session))
        elif worker := self._quarantine.admit(turn):
            self._run(turn, worker)

    def _run_all(self, assignments: Iterable[Assignment]) -> None:
        for assignment in assignments:
            turn = self._turns.get(assignment.turn)
            worker = self._supervisor.slots.get(assignment.slot)
            if turn is None:
                continue
            if worker is not None and worker.usable:
                self._run(turn, worker)
            else:
                # it is gone, or about to be: whoever takes its slot runs the turn
                self._dispatcher.refuse(assignment)

    def _run(self, turn: ActiveTurn, worker: WorkerProcess) -> None:
        if not self._send(turn, worker, turn.begin(worker, self._settings.turn_timeout_s)):
            return
        self._listener.turn_started(turn.message_id, turn.session, worker.name)
        if turn.interrupted_mono is not None:
            worker.send(Interrupt(turn.number))
        if worker.full and worker.n is not None:
            self._dispatcher.pause(worker.n)

    def _send(self, turn: ActiveTurn, worker: WorkerProcess, frame: ToWorker) -> bool:
        """Send a turn's first frame; one that is too large ends the turn, one that does not leave parks it."""
        try:
            if worker.send(frame):
                return True
            # the worker is gone and the news on their way: the turn never ran, so this is no attempt
            self._turns.end(turn, Parked())
        except FrameTooLarge as error:
            self._turns.end(turn, turn.too_large(str(error), worker.name))
        return False

    def _turn_said(self, turn: ActiveTurn, worker: WorkerProcess, frame: OfTurn) -> None:
        match frame:
            case NeedHistory():
                self._spawn(self._conversations.send(turn, worker))
            case NeedAllowance():
                self._spawn(self._turns.send_allowance(turn, worker, frame))
            case TurnDone(outcome=outcome):
                self._turns.done(turn, worker.name, outcome)
            case _:
                self._turns.said(turn, frame)

    def _left(self, turn: ActiveTurn) -> None:
        self._run_all(self._dispatcher.finish(turn.number))
        self._quarantine.leave(turn)
        self._claimer.wake()

    def _settled(self, outcome: Outcome) -> None:
        if isinstance(outcome, Retry) and outcome.suspect:
            self._claimer.expect_suspect()
        self._claimer.wake()

    def _hung(self, worker: WorkerProcess, death: Death) -> None:
        self._events.emit(Event.WORKER_HUNG, n=worker.n, pid=worker.pid, cause=death.cause.value, error=death.error)
        if worker.n is not None and self._supervisor.slots.get(worker.n) is worker:
            # what came now would share the blame for a death it has no part in
            self._dispatcher.pause(worker.n)
        self._spawn(self._supervisor.end(worker, death, dump=True))

    def _replace(self, worker: WorkerProcess, reason: str) -> bool:
        """Replace a worker behind a spare; until one is ready it goes on, and this returns False."""
        if worker.n is not None and self._supervisor.slots.get(worker.n) is worker and self._supervisor.spares:
            self._run_all(self._dispatcher.remove_slot(worker.n))
            self._events.emit(Event.WORKER_RECYCLED, n=worker.n, pid=worker.pid, reason=reason)
        return self._supervisor.replace(worker)

    def _say(self, worker: WorkerProcess, name: str, fields: dict[str, Field]) -> None:
        event = Event(name) if name in set(Event) else Event.WORKER_SAID
        self._events.emit(event, **{"n": worker.n, "pid": worker.pid} | fields)

    async def _rebalance_always(self) -> None:
        while True:
            await asyncio.sleep(REBALANCE_EVERY_S)
            self._run_all(self._dispatcher.rebalance())

    async def _until_empty(self) -> None:
        """Return once no turn runs and every outcome is written."""
        await self._turns.empty()
        await self._turns.flush()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
