"""Relates turns to workers: which turn runs where and when, and what becomes of one that cannot.

begin ──> dispatcher, or quarantine for a suspect ──> started in a worker ──> done, stopped, lost, or its worker ended
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Coroutine, Iterable
from typing import Any

from shared.errors import FrameTooLarge, StaleClaim
from shared.events import Event, Events
from shared.messages import Claim, ClaimRef, Dead, Ended, Outcome, Parked, TurnStatus
from shared.settings import Settings
from worker.frames import (
    AllowanceGranted,
    IntentCommitted,
    Interrupt,
    NeedAllowance,
    NeedAttachment,
    NeedHistory,
    OfTurn,
    Park,
    Steer,
    StepOpened,
    TurnDone,
    TurnGoesOn,
    TurnWaits,
)
from worker.pool.dispatcher import Assignment, Dispatcher
from worker.pool.faults import fault_text, tell_fault
from worker.pool.loops import Loops
from worker.pool.patience import Patience
from worker.pool.processes.death import Death
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.quarantine import Quarantine
from worker.pool.turns.active_turn import MODEL, ActiveTurn
from worker.pool.turns.attachment_loader import AttachmentLoader
from worker.pool.turns.crash_policy import given_up_text, judge, used, went_wrong
from worker.pool.turns.early_requests import EarlyRequests
from worker.pool.turns.history_loader import HistoryLoader
from worker.pool.turns.turns import Turns, longest_waiting

#: memory that turns which were let go take here at most; past it none is let go
RESTING_LIMIT_BYTES = 128 << 20


class TurnScheduler:
    """Owns which worker serves which slot, and what runs there; ``loops`` runs what a turn waits for."""

    def __init__(
        self,
        settings: Settings,
        events: Events,
        turns: Turns,
        dispatcher: Dispatcher,
        quarantine: Quarantine,
        history: HistoryLoader,
        attachments: AttachmentLoader,
        loops: Loops,
    ) -> None:
        self._profiles = settings.profiles
        self._max_attempts = settings.max_attempts
        self._turn_timeout_s = settings.turn_timeout_s
        self._capacity = settings.turns_per_worker
        self._waiting_limit = settings.waiting_turns
        self._held_up: set[int] = set()
        self._events = events
        self._turns = turns
        self._dispatcher = dispatcher
        self._quarantine = quarantine
        self._history = history
        self._attachments = attachments
        self._loops = loops
        self._early = EarlyRequests()
        self._patience = Patience()
        self._draining = False
        self._serving: dict[int, WorkerProcess] = {}

    @property
    def serving(self) -> bool:
        """Tell whether a worker can take turns now."""
        return any(worker.usable for worker in self._serving.values())

    @property
    def counts(self) -> tuple[int, int]:
        """How many turns have begun, those counted that were let go, and how many were claimed and wait."""
        running = sum(turn.worker is not None or turn.rests > 0 for turn in self._turns)
        return running, len(self._turns) - running

    # Workers that come and go.

    def serve(self, worker: WorkerProcess) -> None:
        """Give a worker that took its slot what waits for it."""
        if worker.n is None:
            return
        if worker.n in self._quarantine:
            if suspect := self._quarantine.placed(worker.n, worker):
                self._run_suspect(suspect, worker)
        else:
            self._serving[worker.n] = worker
            self._dispatch(self._dispatcher.add_slot(worker.n, self._capacity, self._waiting_limit))

    def serves(self, worker: WorkerProcess) -> bool:
        """Tell whether a worker is given new turns."""
        return worker.n is not None and self._serving.get(worker.n) is worker

    def pause(self, worker: WorkerProcess) -> None:
        """Give a worker nothing new; what it runs goes on."""
        if worker.n is not None and self.serves(worker):
            self._dispatcher.pause(worker.n)

    def resume(self, worker: WorkerProcess) -> None:
        """Give a worker new turns again."""
        if worker.n is not None and self.serves(worker) and worker.usable:
            self._dispatch(self._dispatcher.resume(worker.n))

    def stop_serving(self, worker: WorkerProcess) -> None:
        """Give a worker nothing new, ever; whoever takes its slot runs what waits for it."""
        if worker.n is not None and self.serves(worker):
            del self._serving[worker.n]
            self._dispatch(self._dispatcher.remove_slot(worker.n))

    def worker_ended(self, worker: WorkerProcess, death: Death) -> list[str]:
        """Decide what becomes of the turns of a worker that is gone; return their sessions."""
        self.stop_serving(worker)
        self._turns.forget_worker(worker)
        turns = self._turns.of_worker(worker)
        for turn in turns:
            self._turns.cut_off(turn)
        verdicts = judge(death, [turn.ran() for turn in turns], self._max_attempts, worker.name)
        for turn in turns:
            self.end(turn, verdicts[turn.number])
        return [turn.session for turn in turns]

    def rebalance(self) -> None:
        """Move turns that have waited for their full slot to any other."""
        self._dispatch(self._dispatcher.rebalance())

    def make_room(self) -> None:
        """See which turns may be let go where new ones would find no place, and let those go on that were."""
        resting = [turn for turn in self._turns if turn.rests and turn.worker is None]
        for turn in resting:
            if time.monotonic() - turn.started_mono >= self._turn_timeout_s:
                self.end(turn, turn.out_of_time())
        full = sum(turn.kept_bytes for turn in resting) > RESTING_LIMIT_BYTES
        for n in self._dispatcher.crowded():
            silent = [] if full else [turn for turn in self._turns if self._may_be_let_go(turn, n)]
            silent.sort(key=lambda turn: turn.waits_since_mono)
            self._dispatch(self._dispatcher.may_let_go(n, [turn.number for turn in silent]))
        self._dispatch(self._dispatcher.resume_rested())

    def _may_be_let_go(self, turn: ActiveTurn, n: int) -> bool:
        if turn.waits_for != MODEL or turn.worker is None or turn.worker.n != n or turn.let_go:
            return False
        return turn.waited_s >= self._patience.of(turn.profile, turn.rests)

    def drain(self) -> None:
        """Park all that no worker has, from now on."""
        self._draining = True
        for turn in self._turns:
            if turn.worker is None:
                self.end(turn, Parked())

    def tell_who_waits(self) -> None:
        """Say once which workers take nothing new because turns wait in them, and for what the longest do."""
        held_up = set(self._dispatcher.held_up())
        for n in held_up - self._held_up:
            rows = longest_waiting(self._turns, n)
            longest = "; ".join(f"{row.session} {row.waited_s:.0f} s for {row.waits_for}" for row in rows)
            self._events.emit(
                Event.WAITING_LIMIT_REACHED, n=n, turns=self._capacity + self._waiting_limit, longest=longest
            )
        self._held_up = held_up

    # What workers and the store tell of turns.

    def begin(self, claim: Claim) -> None:
        """Have the turn of a claim run as soon as there is a place for it."""
        if earlier := self._turns.of_session(claim.ref.session):
            self.lose(earlier)  # or the store would not have given this one
        turn = self._turns.begin(claim)
        sender = claim.messages[0].user
        turn.profile = self._profiles.name_of(turn.session, sender)
        turn.texts = self._profiles.texts_of(turn.session, sender)
        if claim.messages[0].stop or self._early.take_stop(turn.message_id):
            self._interrupt(turn)
            return
        if self._early.take_steer(turn.session):
            self._spawn_for(turn, self._join(turn))
        attempts = turn.attempts
        if attempts >= self._max_attempts:
            # a host died under it as often as it may, so it never came to a verdict
            spent = used(turn.ran().steps)
            self.end(turn, Dead(attempts, "its host died under it", given_up_text(attempts, turn.texts), usage=spent))
        elif (refused := turn.over_budget()) is not None:
            self.end(turn, refused)
        elif turn.unfetched:
            self._spawn_for(turn, self._fetch_and_place(turn))
        else:
            self._place(turn)

    def _place(self, turn: ActiveTurn) -> None:
        """Run a turn as soon as there is a place for it."""
        if not turn.claim.messages[0].suspect:
            self._dispatch(self._dispatcher.add(turn.number, turn.session))
        elif worker := self._quarantine.admit(turn):
            self._run_suspect(turn, worker)

    async def _fetch_and_place(self, turn: ActiveTurn) -> None:
        await self._attachments.fetch(turn)
        if not turn.over:
            self._place(turn)

    def frame_came(self, worker: WorkerProcess, frame: OfTurn) -> None:
        """Take what a worker tells of a turn; that of one which is over, or runs elsewhere by now, is stale."""
        if isinstance(frame, TurnDone):
            worker.turns_done += 1
            self._turns.left_worker(frame.turn)
        turn = self._turns.get(frame.turn)
        if turn is None or turn.worker is not worker:
            return
        match frame:
            case NeedHistory():
                self._spawn_for(turn, self._history.send(turn, worker))
            case NeedAttachment(digest=digest):
                self._spawn_for(turn, self._attachments.send(turn, worker, digest))
            case NeedAllowance():
                self._spawn_for(turn, self._send_allowance(turn, worker, frame))
            case TurnDone(outcome=Parked()) if turn.let_go and not self._draining:
                self._rest(turn)
            case TurnDone(outcome=outcome):
                self._note_answer(turn, frame)
                self._turns.done(turn, worker.name, outcome)
                self._left(turn)
            case TurnWaits():
                self._wait(turn, frame)
            case TurnGoesOn():
                turn.go_on()
                self._dispatcher.take_place(turn.number)
            case _:
                self._note_answer(turn, frame)
                self._turns.said(turn, frame)

    def _wait(self, turn: ActiveTurn, frame: TurnWaits) -> None:
        turn.wait(frame.waits_for, frame.usage)
        if turn.let_go:  # too late: some of an answer has come
            turn.let_go = False
            turn.wait_anew()
            self._dispatcher.keep(turn.number)
        self._dispatch(self._dispatcher.give_place(turn.number))

    def _rest(self, turn: ActiveTurn) -> None:
        """Take back a turn that was let go; it ends where its sender or its time ended it meanwhile."""
        if turn.interrupted_mono is not None:
            self._turns.cut_off(turn)
            self.end(turn, turn.stopped(turn.texts.stopped))
            return
        self._turns.rest(turn)
        self._dispatch(self._dispatcher.rest(turn.number, turn.session))

    def _note_answer(self, turn: ActiveTurn, frame: OfTurn) -> None:
        """Learn from a step that a model answered how long that took."""
        match frame:
            case StepOpened() | TurnDone(outcome=Ended(status=TurnStatus.REPLIED)):
                self._patience.answered(turn.profile, turn.answer_s)

    def frame_failed(self, worker: WorkerProcess, frame: OfTurn, error: Exception) -> None:
        """End the turn a frame was about that could not be acted on."""
        turn = self._turns.get(frame.turn)
        if turn is not None and turn.worker is worker:
            self.fail(turn, error, still_runs=not isinstance(frame, TurnDone))

    def intent_kept(self, ref: ClaimRef, call_id: str) -> None:
        """Let a tool call begin that had to wait until its intent was committed."""
        turn = self._turns.of_claim(ref)
        if turn is not None and turn.worker is not None:
            turn.worker.send(IntentCommitted(turn.number, call_id))

    # What senders ask for.

    def stop(self, session: str, message_id: str) -> None:
        """End a message's turn now, or when it begins."""
        turn = self._turns.of_session(session)
        if turn is not None and turn.message_id == message_id:
            self._interrupt(turn)
        elif not self._turns.is_ending(message_id):
            self._early.stop(message_id)

    def steer(self, session: str) -> None:
        """Let the words that wait to join the session's turn do so, now or when it begins."""
        turn = self._turns.of_session(session)
        if turn is not None:
            self._spawn_for(turn, self._join(turn))
        else:
            self._early.steer(session)

    def interrupt(self, session: str) -> bool:
        """End the session's turn now; False if there is none."""
        turn = self._turns.of_session(session)
        if turn is not None:
            self._interrupt(turn)
        return turn is not None

    def forget(self, session: str) -> None:
        """Drop the turn of a session that was removed, and where it stays."""
        if turn := self._turns.of_session(session):
            self.lose(turn)
        self._dispatcher.forget(session)

    # How turns end.

    def end(self, turn: ActiveTurn, outcome: Outcome) -> None:
        """Settle an active turn this way, and run what waited for its place."""
        self._turns.end(turn, outcome)
        self._left(turn)

    def lose(self, turn: ActiveTurn) -> None:
        """Drop a turn whose claim is not this host's any more."""
        self._turns.lose(turn)
        self._abandon(turn)
        self._left(turn)

    def fail(self, turn: ActiveTurn, error: Exception, *, still_runs: bool = True) -> None:
        """End a turn at which the pool itself failed: it runs again, or is a dead letter."""
        worker = turn.worker.name if turn.worker else ""
        if still_runs:
            self._abandon(turn)
        self.end(turn, went_wrong(turn.ran(), self._max_attempts, fault_text(error), worker))

    def begin_failed(self, claim: Claim, error: Exception) -> None:
        """End what a claim was for that could not be begun."""
        if turn := self._turns.of_claim(claim.ref):
            self.fail(turn, error)
        else:
            first = claim.messages[0]
            attempts, texts = first.attempts + 1, self._profiles.texts_of(claim.ref.session, first.user)
            self._turns.refuse(claim, Dead(attempts, fault_text(error), given_up_text(attempts, texts)))

    def _dispatch(self, assignments: Iterable[Assignment]) -> None:
        """Run turns where the dispatcher said, and what it says in place of those that cannot run."""
        waiting = deque(assignments)
        while waiting:
            assignment = waiting.popleft()
            self._displace(assignment)
            turn = self._turns.get(assignment.turn)
            worker = self._serving.get(assignment.slot)
            if turn is None:
                waiting += self._dispatcher.finish(assignment.turn)
            elif worker is None or not worker.usable:
                # it is gone, or about to be: whoever takes its slot runs the turn
                self._dispatcher.refuse(assignment)
            elif (unrun := self._start(turn, worker)) is not None:
                self._turns.end(turn, unrun)
                waiting += self._dispatcher.finish(turn.number)

    def _displace(self, assignment: Assignment) -> None:
        """Let the turn go whose place another one has."""
        turn = self._turns.get(assignment.displaces)
        if turn is not None and turn.worker is not None:
            turn.let_go = True
            turn.worker.send(Park(turn.number))

    def _run_suspect(self, turn: ActiveTurn, worker: WorkerProcess) -> None:
        if (unrun := self._start(turn, worker)) is not None:
            self.end(turn, unrun)

    def _start(self, turn: ActiveTurn, worker: WorkerProcess) -> Outcome | None:
        """Give a turn to a worker; return how it ends where that cannot be."""
        try:
            if not worker.send(turn.begin(worker, self._turn_timeout_s)):
                # the worker is gone and the news on their way: the turn never ran, so this is no attempt
                return Parked()
        except FrameTooLarge as error:
            return turn.too_large(str(error), worker.name)
        except Exception as error:  # noqa: BLE001 - one turn pays for it, and not those beside it
            tell_fault(self._events, "starting a turn", error, session=turn.session, message=turn.message_id)
            return went_wrong(turn.ran(), self._max_attempts, fault_text(error), worker.name)
        self._turns.started(turn)
        if turn.interrupted_mono is not None:
            worker.send(Interrupt(turn.number))
        if worker.full:
            self.pause(worker)
        return None

    def _interrupt(self, turn: ActiveTurn) -> None:
        if turn.interrupted_mono is not None:
            return
        turn.interrupt()
        self._events.emit(Event.TURN_INTERRUPTED, session=turn.session, message=turn.message_id)
        if turn.worker is not None:
            turn.worker.send(Interrupt(turn.number))
        else:
            self.end(turn, turn.stopped(turn.texts.stopped))

    def _abandon(self, turn: ActiveTurn) -> None:
        """Have a worker end a turn that is over here."""
        if turn.worker is not None:
            self._turns.abandon(turn)
            turn.worker.send(Interrupt(turn.number))

    def _left(self, turn: ActiveTurn) -> None:
        self._quarantine.leave(turn)
        self._dispatch(self._dispatcher.finish(turn.number))

    async def _join(self, turn: ActiveTurn) -> None:
        joined = await self._turns.join(turn)
        if turn.worker is None:
            return  # they are given to it with the rest
        await self._attachments.fetch(turn)
        if joined and turn.worker is not None and not turn.over:
            words = turn.words_of(joined)
            # what is too large for a frame waits for a turn of its own
            with contextlib.suppress(FrameTooLarge):
                turn.worker.send(Steer(turn.number, words))

    async def _send_allowance(self, turn: ActiveTurn, worker: WorkerProcess, need: NeedAllowance) -> None:
        try:
            allowance = await self._turns.allowance(turn, need)
        except StaleClaim:
            if not turn.over:
                self.lose(turn)
            return
        if allowance is not None and turn.worker is worker:
            worker.send(AllowanceGranted(turn.number, allowance))

    def _spawn_for(self, turn: ActiveTurn, work: Coroutine[Any, Any, None]) -> None:
        """Do what a turn waits for beside everything else; what goes wrong with it ends that turn."""

        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and isinstance(error := task.exception(), Exception) and not turn.over:
                self.fail(turn, error)

        self._loops.spawn("serving a turn", work).add_done_callback(done)
