"""Owns the turns whose claims this host holds: from the claim until its outcome is committed.

    begin ──> active ── end ──> ending ── committed, or stale ──> gone
                └────────── lost: the claim is somebody else's ──────┘

It knows no worker's process and no slot; the pool relates turns to those.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import msgspec

from shared.budgets import Allowance, Budgets
from shared.errors import StaleClaim, StoreUnavailable
from shared.events import Event, Events, Field
from shared.journal import CallIntent, CallResult, StepOpening
from shared.messages import (
    Claim,
    ClaimRef,
    CommandAnswer,
    Dead,
    Ended,
    Outcome,
    Parked,
    Pending,
    Retry,
    Step,
    TurnStatus,
)
from shared.store.port import Store
from shared.usage import Usage
from worker.frames import (
    AllowanceGranted,
    Compacted,
    Delta,
    IntentCommitted,
    Interrupt,
    NeedAllowance,
    OfTurn,
    StepDone,
    StepOpened,
    ToolEnded,
    ToolStarted,
)
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.store_health import StoreHealth
from worker.pool.turns.active_turn import ActiveTurn
from worker.pool.turns.observer import TurnObserver
from worker.pool.turns.settler import Settler

#: how long a turn waits between two steps for what others hold of a budget, and how often it asks, in seconds
PATIENCE_S = 30.0
ASK_AGAIN_S = 1.0


class Turns:
    """The turns of one host.

    ``on_left`` is told of a turn that is not active any more (its slot is free), ``on_settled`` of each outcome that
    was committed.
    """

    def __init__(
        self,
        store: Store,
        events: Events,
        watch: StoreHealth,
        listener: TurnObserver,
        budgets: Budgets,
        *,
        on_left: Callable[[ActiveTurn], None],
        on_settled: Callable[[Outcome], None],
    ) -> None:
        self._store = store
        self._events = events
        self._watch = watch
        self._listener = listener
        self._budgets = budgets
        self._on_left = on_left
        self._on_settled = on_settled
        self._settler = Settler(store, watch, self._settled)
        self._active: dict[int, ActiveTurn] = {}
        self._by_session: dict[str, ActiveTurn] = {}
        self._ending: dict[ClaimRef, ActiveTurn] = {}
        self._next_number = 1
        self._none_active = asyncio.Event()
        self._none_active.set()

    def __iter__(self) -> Iterator[ActiveTurn]:
        """Go through the active turns as they are now."""
        return iter(list(self._active.values()))

    def __len__(self) -> int:
        return len(self._active)

    @property
    def held(self) -> list[ClaimRef]:
        """Every claim to be kept: of active turns, and of those whose outcome is not committed yet."""
        return [*(turn.ref for turn in self._active.values()), *self._ending]

    def get(self, number: int) -> ActiveTurn | None:
        """Return an active turn by its number."""
        return self._active.get(number)

    def of_session(self, session: str) -> ActiveTurn | None:
        """Return a session's active turn."""
        return self._by_session.get(session)

    def of_worker(self, worker: WorkerProcess) -> list[ActiveTurn]:
        """Return the turns that run in a worker."""
        return [turn for turn in self._active.values() if turn.worker is worker]

    def todo(self, session: str) -> bytes | None:
        """Return a session's todo list (JSON array) as a turn that is not committed yet has left it, else None."""
        ending = (turn for turn in self._ending.values() if turn.session == session)
        turn = self._by_session.get(session) or next(ending, None)
        return turn.todo if turn else None

    def begin(self, claim: Claim) -> ActiveTurn:
        """Take a claim; an earlier one of its session is lost, or the store would not have given this one."""
        if earlier := self._by_session.get(claim.ref.session):
            self.lose(earlier.ref)
        turn = ActiveTurn(self._next_number, claim)
        self._next_number += 1
        self._active[turn.number] = self._by_session[turn.session] = turn
        self._none_active.clear()
        return turn

    def said(self, turn: ActiveTurn, frame: OfTurn) -> None:
        """Take what a worker told of a turn that goes on."""
        match frame:
            case StepDone(step=step):
                self.step_done(turn, step)
            case StepOpened(opening=opening):
                self.step_opened(turn, opening)
            case Compacted(summary=summary):
                self._settler.summarize(turn.ref, summary)
            case ToolStarted():
                kept = IntentCommitted(turn.number, frame.intent.call_id)
                self.tool_started(turn, frame.intent, (lambda: self._intent_kept(turn, kept)) if frame.waits else None)
            case ToolEnded():
                self.tool_ended(turn, frame.result)
            case Delta(step=number, text=text):
                self._listener.delta(turn.message_id, turn.session, number, text)
            case _:
                pass

    def step_opened(self, turn: ActiveTurn, opening: StepOpening) -> None:
        """Journal that a step has begun."""
        turn.open(opening)
        self._settler.journal(turn.ref, opening)

    def step_done(self, turn: ActiveTurn, step: Step) -> None:
        """Keep a finished step, and checkpoint it behind."""
        turn.finish(step)
        self._settler.checkpoint(turn.ref, step)
        self._take_todo(turn, step.todo)

    def tool_started(self, turn: ActiveTurn, intent: CallIntent, on_kept: Callable[[], None] | None = None) -> None:
        """Note which tool runs, and journal the intent; ``on_kept`` is called once that is committed."""
        turn.start_call(intent)
        self._settler.journal(turn.ref, intent, on_kept)
        self._listener.tool_started(turn.message_id, turn.session, intent.name)

    def tool_ended(self, turn: ActiveTurn, result: CallResult) -> None:
        """Journal the result of a tool call."""
        turn.take_result(result)
        self._settler.journal(turn.ref, result)
        self._take_todo(turn, result.todo)

    def done(self, turn: ActiveTurn, worker: str, outcome: Outcome) -> None:
        """Take the outcome a worker gave: of an end it tells the last step alone."""
        if isinstance(outcome, Ended):
            self._take_todo(turn, outcome.todo)
            outcome = turn.whole(outcome, worker)
        self.end(turn, outcome)

    def end(self, turn: ActiveTurn, outcome: Outcome) -> None:
        """Settle a turn this way; from here on only its claim is kept."""
        if self._active.get(turn.number) is turn:
            self._ending[turn.ref] = turn
            if isinstance(outcome, Dead):
                turn.todo = None  # what a dead turn did to the list goes with it
            self._settler.settle(turn.ref, outcome)
            self._leave(turn)

    def lose(self, ref: ClaimRef) -> None:
        """Drop the turn of a claim that is somebody else's now, and have its worker end it: nothing it does counts."""
        turn = self._by_session.get(ref.session)
        if turn is None or turn.ref != ref:
            return
        self._events.emit(Event.CLAIM_LOST, session=ref.session, message=turn.message_id)
        if turn.worker is not None:
            turn.worker.send(Interrupt(turn.number))
        self._leave(turn)

    def is_ending(self, message_id: str) -> bool:
        """Tell whether a message's turn has ended and waits for its commit."""
        return any(turn.message_id == message_id for turn in self._ending.values())

    async def join(self, turn: ActiveTurn) -> tuple[Pending, ...]:
        """Let the messages that wait to join a turn do so, and return them; those of a turn that ended wait on."""
        try:
            joined = await self._store.claims.join(turn.ref)
        except (StaleClaim, StoreUnavailable):
            return ()
        if self._active.get(turn.number) is not turn:
            return ()
        turn.take_joined(joined)
        for message in joined:
            self._events.emit(Event.MESSAGE_JOINED, session=turn.session, message=message.id, turn=turn.message_id)
        return joined

    async def send_allowance(self, turn: ActiveTurn, worker: WorkerProcess, need: NeedAllowance) -> None:
        """Send a turn what it may use of the budgets, once others have left it some."""
        patient_until = time.monotonic() + PATIENCE_S
        while (found := await self._hold(turn, need)) is not None:
            held = found.refusal is not None and found.refusal.held and not found.covers(need.used)
            if not held or time.monotonic() > patient_until:
                if turn.worker is worker:
                    worker.send(AllowanceGranted(turn.number, found))
                return
            await asyncio.sleep(ASK_AGAIN_S)

    async def _hold(self, turn: ActiveTurn, need: NeedAllowance) -> Allowance | None:
        """Hold more of the budgets; None once the turn is not active any more."""
        while self._active.get(turn.number) is turn:
            try:
                return await self._store.claims.hold(turn.ref, need.used, need.wanted, self._budgets)
            except StoreUnavailable as error:
                self._watch.failed(error)
                await asyncio.sleep(self._watch.pause_s)
            except StaleClaim:
                self.lose(turn.ref)
        return None

    async def empty(self) -> None:
        """Return once no turn is active."""
        await self._none_active.wait()

    async def flush(self) -> None:
        """Return once every outcome is committed or stale."""
        await self._settler.flush()

    async def close(self) -> None:
        """Give up what could not be written."""
        await self._settler.close()

    def _intent_kept(self, turn: ActiveTurn, kept: IntentCommitted) -> None:
        if turn.worker is not None and self._active.get(turn.number) is turn:
            turn.worker.send(kept)

    def _take_todo(self, turn: ActiveTurn, todo: bytes | None) -> None:
        if todo is not None and todo != turn.todo:
            turn.todo = todo
            self._listener.todo_changed(turn.session, todo)

    def _leave(self, turn: ActiveTurn) -> None:
        del self._active[turn.number]
        if self._by_session.get(turn.session) is turn:
            del self._by_session[turn.session]
        if not self._active:
            self._none_active.set()
        self._on_left(turn)

    def _settled(self, ref: ClaimRef, outcome: Outcome | None, told: tuple[CommandAnswer, ...]) -> None:
        turn = self._ending.pop(ref, None)
        if turn is None:
            # a checkpoint was stale while the turn still ran
            self.lose(ref)
        elif outcome is None:
            self._events.emit(Event.CLAIM_LOST, session=turn.session, message=turn.message_id)
        else:
            self._emit(turn, outcome)
            self._listener.settled(turn.message_id, turn.session, outcome)
            self._tell_others(turn.session, outcome, told)
            self._on_settled(outcome)

    def _tell_others(self, session: str, outcome: Outcome, told: tuple[CommandAnswer, ...]) -> None:
        """Tell of the messages that were settled with a turn: those that joined it, and commands that waited for it."""
        if isinstance(outcome, Ended):
            # what the turn spent is counted once
            shared = msgspec.structs.replace(outcome, usage=Usage(), messages=())
            for message_id in outcome.joined:
                self._listener.settled(message_id, session, shared)
        for one in told:
            self._listener.settled(one.message_id, session, Ended(TurnStatus.REPLIED, one.text, ()))

    def _emit(self, turn: ActiveTurn, outcome: Outcome) -> None:
        names = {"session": turn.session, "message": turn.message_id}
        match outcome:
            case Ended(status=status, error=error, worker=worker, usage=usage):
                ended = {"status": status.value, "worker": worker, "error": error}
                self._events.emit(Event.TURN_ENDED, **names, **ended, **usage_fields(usage))
            case Parked():
                self._events.emit(Event.TURN_PARKED, **names)
            case Retry(attempts=attempts, suspect=suspect, error=error):
                self._events.emit(Event.TURN_RETRIED, **names, attempts=attempts, suspect=suspect, error=error)
            case Dead(attempts=attempts, error=error):
                self._events.emit(Event.MESSAGE_DEAD, **names, attempts=attempts, error=error)


def usage_fields(usage: Usage) -> dict[str, Field]:
    """Return what a turn used, under the names that OpenTelemetry's GenAI conventions give it."""
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.written_tokens,
        "cost": usage.cost,
    }
