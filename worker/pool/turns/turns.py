"""Owns the turns whose claims this host holds: from the claim until its outcome is committed.

    begin ──> active ── end ──> ending ── committed, or stale ──> gone
                └────────── lost: the claim is somebody else's ──────┘

It knows no worker's process and no slot; the pool relates turns to those.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

import msgspec

from shared.budgets import Allowance, Budgets
from shared.errors import StaleClaim, StoreUnavailable
from shared.events import Event, Events, Field
from shared.journal import StepOpening
from shared.messages import (
    AwaitsApproval,
    Claim,
    ClaimRef,
    CommandAnswer,
    Dead,
    Ended,
    Outcome,
    Parked,
    Pending,
    Retry,
    TurnStatus,
)
from shared.store.port import Store
from shared.texts import ENGLISH, Texts
from shared.usage import Usage
from worker.frames import (
    Compacted,
    Delta,
    KeepAttachment,
    ModelAway,
    NeedAllowance,
    OfTurn,
    StepDone,
    StepOpened,
    ToolEnded,
    ToolSaid,
    ToolStarted,
)
from worker.pool.faults import fault_text, tell_fault
from worker.pool.feed import Feed
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.store_health import StoreHealth
from worker.pool.turns.active_turn import ActiveTurn, TurnRow
from worker.pool.turns.crash_policy import given_up_text
from worker.pool.turns.observer import GuardedObserver, TurnObserver
from worker.pool.turns.settler import ClaimSettled, ClaimUnwritable, Settler, SettlerNews

#: how long a turn waits between two steps for what others hold of a budget, and how often it asks, in seconds
PATIENCE_S = 30.0
ASK_AGAIN_S = 1.0
#: turns that are named where many wait
LONGEST_NAMED = 5


class Ending(msgspec.Struct, frozen=True):
    """A turn whose outcome is not committed yet."""

    #: the message it answers
    message_id: str
    #: past executions that ended by its own fault
    attempts: int
    #: the session's list as the turn has left it, None if it has not touched it
    todo: bytes | None
    #: what the product says to its sender
    texts: Texts = ENGLISH


class Turns:
    """The turns of one host; what becomes of their writes is told in ``news``, and taken by ``settled`` and others."""

    def __init__(
        self, store: Store, events: Events, health: StoreHealth, observer: TurnObserver, budgets: Budgets
    ) -> None:
        self._store = store
        self._events = events
        self._health = health
        self._observer = GuardedObserver(observer, events)
        self._budgets = budgets
        self._settler = Settler(store, health, self._observer)
        self._active: dict[int, ActiveTurn] = {}
        self._by_session: dict[str, ActiveTurn] = {}
        self._ending: dict[ClaimRef, Ending] = {}
        self._abandoned: dict[int, ActiveTurn] = {}
        self._next_number = 1
        self._none_held = asyncio.Event()
        self._none_held.set()

    def __iter__(self) -> Iterator[ActiveTurn]:
        """Go through the active turns as they are now."""
        return iter(list(self._active.values()))

    def __len__(self) -> int:
        return len(self._active)

    @property
    def news(self) -> Feed[SettlerNews]:
        """What became of the writes."""
        return self._settler.news

    @property
    def held(self) -> list[ClaimRef]:
        """Every claim to be kept: of active turns, and of those whose outcome is not committed yet."""
        return [*(turn.ref for turn in self._active.values()), *self._ending]

    @property
    def in_workers(self) -> list[ActiveTurn]:
        """The turns that a worker has: active ones, and those that ended here and have yet to end there."""
        return [*(turn for turn in self._active.values() if turn.worker is not None), *self._abandoned.values()]

    def get(self, number: int) -> ActiveTurn | None:
        """Return an active turn by its number."""
        return self._active.get(number)

    def of_session(self, session: str) -> ActiveTurn | None:
        """Return a session's active turn."""
        return self._by_session.get(session)

    def of_claim(self, ref: ClaimRef) -> ActiveTurn | None:
        """Return a claim's active turn."""
        turn = self._by_session.get(ref.session)
        return turn if turn is not None and turn.ref == ref else None

    def of_worker(self, worker: WorkerProcess) -> list[ActiveTurn]:
        """Return the active turns that run in a worker."""
        return [turn for turn in self._active.values() if turn.worker is worker]

    def todo(self, session: str) -> bytes | None:
        """Return a session's todo list (JSON array) as a turn that is not committed yet has left it, else None."""
        turn = self._by_session.get(session) or next(
            (ending for ref, ending in self._ending.items() if ref.session == session), None
        )
        return turn.todo if turn else None

    def begin(self, claim: Claim) -> ActiveTurn:
        """Take a claim whose session has no active turn."""
        turn = ActiveTurn(self._next_number, claim)
        self._next_number += 1
        self._active[turn.number] = self._by_session[turn.session] = turn
        self._none_held.clear()
        return turn

    def park(self, ref: ClaimRef) -> None:
        """Give back a claim of which no turn runs here."""
        if ref not in self._ending:
            self._settler.settle(ref, Parked())

    def refuse(self, claim: Claim, outcome: Outcome) -> None:
        """Settle a claim of which no turn could be made."""
        message = claim.messages[0]
        self._settle(claim.ref, Ending(message.id, message.attempts, None), outcome)

    def started(self, turn: ActiveTurn) -> None:
        """Tell that a worker has it."""
        if turn.worker is not None:
            self._observer.turn_started(turn.message_id, turn.session, turn.worker.name)

    def said(self, turn: ActiveTurn, frame: OfTurn) -> None:
        """Take what a worker told of a turn that goes on."""
        match frame:
            case StepOpened(opening=opening):
                turn.open(opening)
                self._settler.journal(turn.ref, opening)
            case StepDone(step=step):
                turn.finish(step)
                self._settler.checkpoint(turn.ref, step)
                self._take_todo(turn, step.todo)
            case ToolStarted(intent=intent, waits=waits):
                turn.start_call(intent)
                self._settler.journal(turn.ref, intent, waits=waits)
                self._observer.tool_started(turn.message_id, turn.session, intent.name)
            case ToolSaid(name=name, text=text):
                turn.said = text
                self._observer.tool_said(turn.message_id, turn.session, name, text)
            case KeepAttachment(digest=digest, data=data):
                self._settler.keep(turn.ref, digest, data)
            case ToolEnded(result=result):
                turn.take_result(result)
                self._settler.journal(turn.ref, result)
                self._take_todo(turn, result.todo)
            case Compacted(summary=summary):
                self._settler.summarize(turn.ref, summary)
            case Delta(step=number, text=text):
                if frame.restarts:
                    self._observer.text_restarted(turn.message_id, turn.session, number)
                if text:
                    self._observer.delta(turn.message_id, turn.session, number, text)
            case ModelAway(model=model, problem=problem):
                turn.model_away = problem
                self._observer.model_away(turn.message_id, turn.session, model, problem)
            case _:
                pass

    def done(self, turn: ActiveTurn, worker: str, outcome: Outcome) -> None:
        """Take the outcome a worker gave: of an end it tells the last step alone."""
        if isinstance(outcome, Ended):
            self._take_todo(turn, outcome.todo)
            outcome = turn.whole(outcome, worker)
        elif isinstance(outcome, Dead):
            usage = sum((step.usage for step in turn.steps), outcome.usage)
            outcome = msgspec.structs.replace(outcome, usage=usage, worker=worker)
        self.end(turn, outcome)

    def end(self, turn: ActiveTurn, outcome: Outcome) -> None:
        """Settle an active turn this way; from here on only its claim is kept."""
        # what a dead turn did to the list goes with it
        todo = None if isinstance(outcome, Dead) else turn.todo
        self._settle(turn.ref, Ending(turn.message_id, turn.attempts, todo, turn.texts), outcome)
        self._leave(turn)

    def cut_off(self, turn: ActiveTurn) -> StepOpening | None:
        """Keep what a turn's model call has used whose execution ends; return that, None where it was in none."""
        opening = turn.cut_off()
        if opening is not None:
            self._settler.journal(turn.ref, opening)
        return opening

    def rest(self, turn: ActiveTurn) -> None:
        """Take back an active turn that was let go in the middle of a model call."""
        self._events.emit(
            Event.TURN_LET_GO, session=turn.session, message=turn.message_id, waited_s=round(turn.answer_s, 1)
        )
        turn.rest(self.cut_off(turn))

    def lose(self, turn: ActiveTurn) -> None:
        """Drop an active turn whose claim is somebody else's now: nothing it does counts."""
        self._events.emit(Event.CLAIM_LOST, session=turn.session, message=turn.message_id)
        self._leave(turn)

    def abandon(self, turn: ActiveTurn) -> None:
        """Remember a turn that is over here and was told to end in its worker, until it has."""
        if turn.interrupted_mono is None:
            turn.interrupt()
        self._abandoned[turn.number] = turn

    def left_worker(self, number: int) -> None:
        """Note that no worker has this turn any more."""
        self._abandoned.pop(number, None)

    def forget_worker(self, worker: WorkerProcess) -> None:
        """Note that a worker is gone, with all that it still ran."""
        self._abandoned = {number: turn for number, turn in self._abandoned.items() if turn.worker is not worker}

    def is_ending(self, message_id: str) -> bool:
        """Tell whether a message's turn has ended and waits for its commit."""
        return any(ending.message_id == message_id for ending in self._ending.values())

    async def join(self, turn: ActiveTurn) -> tuple[Pending, ...]:
        """Let the messages that wait to join a turn do so, and return them; those of a turn that ended wait on."""
        try:
            joined = await self._store.claims.join(turn.ref)
        except (StaleClaim, StoreUnavailable):
            return ()
        if turn.over:
            return ()
        turn.take_joined(joined)
        for message in joined:
            self._events.emit(Event.MESSAGE_JOINED, session=turn.session, message=message.id, turn=turn.message_id)
        return joined

    async def allowance(self, turn: ActiveTurn, need: NeedAllowance) -> Allowance | None:
        """Return what a turn may use of the budgets, once others have left it some; None once it is over.

        Raises StaleClaim.
        """
        patient_until = time.monotonic() + PATIENCE_S
        while not turn.over:
            try:
                found = await self._store.claims.hold(turn.ref, need.used, need.wanted, self._budgets)
            except StoreUnavailable as error:
                self._health.failed(error)
                await asyncio.sleep(self._health.pause_s)
                continue
            held = found.refusal is not None and found.refusal.held and not found.covers(need.used)
            if not held or time.monotonic() > patient_until:
                return found
            await asyncio.sleep(ASK_AGAIN_S)
        return None

    def settled(self, settled: ClaimSettled) -> None:
        """Take an outcome that is committed, and tell of it."""
        ending = self._let_go(settled.ref)
        if ending is not None:
            session = settled.ref.session
            self._emit(session, ending.message_id, settled.outcome)
            self._observer.settled(ending.message_id, session, settled.outcome)
            self._tell_others(session, settled.outcome, settled.settlement.answers)

    def stale(self, ref: ClaimRef) -> ActiveTurn | None:
        """Take that a claim is somebody else's; return its turn if it is active, to be lost."""
        ending = self._let_go(ref)
        if ending is not None:
            self._events.emit(Event.CLAIM_LOST, session=ref.session, message=ending.message_id)
        return self.of_claim(ref)

    def unwritable(self, news: ClaimUnwritable) -> ActiveTurn | None:
        """Take that something of a claim cannot be written; return its turn if it is active, to be ended.

        The outcome of one that has ended, was parked or is to run again is replaced by a dead letter, which needs no
        step to be written before it. Where that cannot be written either, the claim is given up: it ends with its
        lease, and a later one counts this execution as lost.
        """
        tell_fault(self._events, "writing to the store", news.error, session=news.ref.session)
        ending = self._ending.pop(news.ref, None)
        if ending is not None and not isinstance(news.outcome, Dead):
            attempts = ending.attempts + 1
            error = f"its outcome could not be written: {fault_text(news.error)}"
            worker = news.outcome.worker if isinstance(news.outcome, Ended) else ""
            dead = Dead(attempts, error, given_up_text(attempts, ending.texts), worker=worker)
            self._settle(news.ref, msgspec.structs.replace(ending, todo=None), dead)
        self._see_what_is_held()
        return self.of_claim(news.ref)

    async def none_held(self) -> None:
        """Return once no turn is active and every outcome was taken."""
        await self._none_held.wait()

    async def flush(self) -> None:
        """Return once every outcome is committed, stale or unwritable; the news of that have yet to be taken."""
        await self._settler.flush()

    async def close(self) -> None:
        """Give up what could not be written."""
        await self._settler.close()

    def _take_todo(self, turn: ActiveTurn, todo: bytes | None) -> None:
        if todo is not None and todo != turn.todo:
            turn.todo = todo
            self._observer.todo_changed(turn.session, todo)

    def _settle(self, ref: ClaimRef, ending: Ending, outcome: Outcome) -> None:
        self._ending[ref] = ending
        self._none_held.clear()
        self._settler.settle(ref, outcome)

    def _leave(self, turn: ActiveTurn) -> None:
        turn.over = True
        del self._active[turn.number]
        if self._by_session.get(turn.session) is turn:
            del self._by_session[turn.session]
        self._see_what_is_held()

    def _let_go(self, ref: ClaimRef) -> Ending | None:
        ending = self._ending.pop(ref, None)
        self._see_what_is_held()
        return ending

    def _see_what_is_held(self) -> None:
        if not self._active and not self._ending:
            self._none_held.set()

    def _tell_others(self, session: str, outcome: Outcome, told: tuple[CommandAnswer, ...]) -> None:
        """Tell of the messages that were settled with a turn: those that joined it, and commands that waited for it."""
        if isinstance(outcome, Ended):
            # what the turn spent is counted once
            shared = msgspec.structs.replace(outcome, usage=Usage(), messages=())
            for message_id in outcome.joined:
                self._observer.settled(message_id, session, shared)
        for one in told:
            self._observer.settled(one.message_id, session, Ended(TurnStatus.REPLIED, one.text, ()))

    def _emit(self, session: str, message_id: str, outcome: Outcome) -> None:
        names = {"session": session, "message": message_id}
        match outcome:
            case Ended(status=status, error=error, worker=worker, usage=usage):
                ended = {"status": status.value, "worker": worker, "error": error}
                self._events.emit(Event.TURN_ENDED, **names, **ended, **usage_fields(usage))
            case AwaitsApproval(calls=calls):
                self._events.emit(Event.TURN_AWAITS_APPROVAL, **names, calls=len(calls))
            case Parked():
                self._events.emit(Event.TURN_PARKED, **names)
            case Retry(attempts=attempts, suspect=suspect, error=error):
                self._events.emit(Event.TURN_RETRIED, **names, attempts=attempts, suspect=suspect, error=error)
            case Dead(attempts=attempts, error=error):
                self._events.emit(Event.MESSAGE_DEAD, **names, attempts=attempts, error=error)


def longest_waiting(turns: Iterable[ActiveTurn], n: int) -> tuple[TurnRow, ...]:
    """Return the turns of a slot that have waited longest for a model or a tool, the longest first."""
    rows = [turn.row() for turn in turns if turn.waits_for and turn.worker is not None and turn.worker.n == n]
    return tuple(sorted(rows, key=lambda row: row.waited_s, reverse=True)[:LONGEST_NAMED])


def usage_fields(usage: Usage) -> dict[str, Field]:
    """Return what a turn used, under the names that OpenTelemetry's GenAI conventions give it."""
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.written_tokens,
        "cost": usage.cost,
    }
