"""Any order of accepts, claims, renewals, ended leases, restarts, jumping clocks and stale owners, against a model."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shared.budgets import Budget, Budgets, BudgetWindow, Scope
from shared.errors import InboxFull, StaleClaim
from shared.journal import CallIntent, CallResult, StepOpening
from shared.messages import Claim, Dead, Ended, JournaledCall, OpenStep, Outcome, Parked, Retry, Step, TurnStatus
from shared.usage import NOTHING, Usage
from tests.shared.store.scratch import ENGINES, Scratch, ended, run_machine

T = TypeVar("T")

LIMIT = 8
SESSIONS = ("a:b:1", "a:b:2", "a:b:3")
CALLS = ("call_1", "call_2")
BUDGETS = Budgets((Budget(Scope.USER, 60, False, BudgetWindow.DAY), Budget(Scope.HOUR, 90, False, BudgetWindow.HOUR)))
STEP_USAGE, LAST_USAGE = Usage(1, 1, 5, 1), Usage(1, 0, 7, 2)
KEYS = ("k1", "k2", "k3", "k4", "k5", "k6")
OUTCOMES: tuple[Outcome, ...] = (
    ended("hello"),
    ended("late", status=TurnStatus.TIMED_OUT),
    Parked(),
    Retry(0, 1, suspect=False, error="died"),
    Retry(10, 2, suspect=True, error="died"),
    Dead(3, "died", "sorry"),
)


class StoreMachine(RuleBasedStateMachine):
    """Drives one database; the model is each session's queue, owner, turn so far, and answers."""

    engine: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp())
        self.scratch = Scratch(ENGINES[self.engine], self.directory)
        self.run(self.scratch.open(LIMIT))
        self.queues: dict[str, list[str]] = {session: [] for session in SESSIONS}
        self.keys: dict[tuple[str, str], str] = {}
        self.outdated: set[tuple[str, str]] = set()
        self.owners: dict[str, Claim] = {}
        self.claims: list[Claim] = []
        self.history: dict[str, list[bytes]] = {session: [] for session in SESSIONS}
        self.answers: dict[str, list[str]] = {session: [] for session in SESSIONS}
        self.steps: dict[str, tuple[Step, ...]] = dict.fromkeys(SESSIONS, ())
        self.open_steps: dict[str, OpenStep] = {}
        self.used: dict[str, Usage] = dict.fromkeys(SESSIONS, NOTHING)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        """Whatever happened, all that waits can still be claimed, ended and sent."""
        for number in range(4 * LIMIT):
            self.pass_time(31)
            self.claim("h3", len(SESSIONS), suspects=bool(number % 2))
            for claim in list(self.owners.values()):
                self.settle(self.claims.index(claim), OUTCOMES[0])
        assert not any(self.queues.values())
        self.send()
        assert not any(self.answers.values())
        self.run(self.scratch.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    @rule(session=st.sampled_from(SESSIONS), key=st.sampled_from(KEYS))
    def accept(self, session: str, key: str) -> None:
        arrival = self.scratch.arrival(session, dedupe=key)
        known = self.keys.get((session, key))
        waiting = sum(map(len, self.queues.values()))
        try:
            receipt = self.run(self.scratch.store.inbox.accept(arrival))
        except InboxFull:
            assert known is None or (session, key) in self.outdated
            assert waiting == LIMIT
            return
        if (session, key) in self.outdated and not receipt.duplicate:
            known = None  # its time was over
        assert receipt.duplicate == (known is not None)
        assert receipt.message_id == (known or arrival.id)
        if not known:
            self.keys[session, key] = arrival.id
            self.outdated.discard((session, key))
            self.queues[session].append(arrival.id)

    @rule(host=st.sampled_from(("h1", "h2")), limit=st.integers(1, 3), suspects=st.booleans(), bounded=st.booleans())
    def claim(self, host: str, limit: int, suspects: bool, bounded: bool = False) -> None:
        budgets = BUDGETS if bounded else None
        look = self.scratch.store.claims.claim(host, limit, 30, suspects=suspects, budgets=budgets)
        for claim in self.run(look).claims:
            session, (message,) = claim.ref.session, claim.messages
            assert message.id == self.queues[session][0]
            assert message.suspect == suspects
            assert claim.steps == self.steps[session]
            assert claim.open_step == self.open_steps.get(session)
            assert all(claim.ref.epoch > earlier.ref.epoch for earlier in self.claims)
            self.owners[session] = claim
            self.claims.append(claim)

    @rule(number=st.integers(0, 99), outcome=st.sampled_from(OUTCOMES))
    def settle(self, number: int, outcome: Outcome) -> None:
        if not self.claims:
            return
        claim = self.claims[number % len(self.claims)]
        session = claim.ref.session
        owner = self.owners.get(session) == claim
        whole = sum((step.usage for step in self.steps[session]), LAST_USAGE)
        if isinstance(outcome, Ended):
            outcome = ended(outcome.text, status=outcome.status, messages=(claim.messages[0].id.encode(),), usage=whole)
        if isinstance(outcome, Dead):
            outcome = msgspec.structs.replace(outcome, usage=whole)
        try:
            self.run(self.scratch.store.claims.settle(claim.ref, outcome))
        except StaleClaim:
            assert not owner
            return
        assert owner
        del self.owners[session]
        self._record(session, outcome)

    def _record(self, session: str, outcome: Outcome) -> None:
        if isinstance(outcome, Ended | Dead):
            self.queues[session].pop(0)
            self.answers[session].append(outcome.text)
            self._forget_turn(session)
            self.used[session] += outcome.usage
            assert self.run(self.scratch.store.spending.usage(session)) == self.used[session]
        if isinstance(outcome, Ended):
            self.history[session] += outcome.messages

    def _forget_turn(self, session: str) -> None:
        self.steps[session] = ()
        self.open_steps.pop(session, None)

    def _as_owner(self, number: int, write: Callable[[Claim], Coroutine[Any, Any, None]]) -> str | None:
        """Write as one of all the claims there ever were; return its session if it still is the owner."""
        if not self.claims:
            return None
        claim = self.claims[number % len(self.claims)]
        owner = self.owners.get(claim.ref.session) == claim
        try:
            self.run(write(claim))
        except StaleClaim:
            assert not owner
            return None
        assert owner
        return claim.ref.session

    @rule(number=st.integers(0, 99))
    def open_step(self, number: int) -> None:
        def opening(claim: Claim) -> StepOpening:
            return StepOpening(len(self.steps[claim.ref.session]) + 1, (claim.messages[0].id.encode(),))

        journal = self.scratch.store.claims.journal
        if session := self._as_owner(number, lambda claim: journal(claim.ref, [opening(claim)])):
            opened = opening(self.owners[session])
            self.open_steps[session] = OpenStep(opened.step, opened.messages)

    @rule(number=st.integers(0, 99), call_id=st.sampled_from(CALLS), step=st.integers(1, 2))
    def begin_call(self, number: int, call_id: str, step: int) -> None:
        intent = CallIntent(step, call_id, "note", f"key.{step}.{call_id}")
        session = self._as_owner(number, lambda claim: self.scratch.store.claims.journal(claim.ref, [intent]))
        opened = self.open_steps.get(session or "")
        if opened and opened.number == step and call_id not in {call.call_id for call in opened.calls}:
            begun = JournaledCall(call_id, "note", intent.key)
            calls = tuple(sorted((*opened.calls, begun), key=lambda call: call.call_id))
            self.open_steps[session or ""] = msgspec.structs.replace(opened, calls=calls)

    @rule(number=st.integers(0, 99), call_id=st.sampled_from(CALLS), step=st.integers(1, 2))
    def end_call(self, number: int, call_id: str, step: int) -> None:
        result = CallResult(step, call_id, call_id.encode(), b"[]")
        session = self._as_owner(number, lambda claim: self.scratch.store.claims.journal(claim.ref, [result]))
        opened = self.open_steps.get(session or "")
        if opened and opened.number == step:
            calls = tuple(
                msgspec.structs.replace(call, result=result.message) if call.call_id == call_id else call
                for call in opened.calls
            )
            self.open_steps[session or ""] = msgspec.structs.replace(opened, calls=calls, todo=b"[]")

    @rule(number=st.integers(0, 99))
    def finish_step(self, number: int) -> None:
        def step(claim: Claim) -> Step:
            return Step(len(self.steps[claim.ref.session]) + 1, (b"{}",), usage=STEP_USAGE)

        checkpoint = self.scratch.store.claims.checkpoint
        if session := self._as_owner(number, lambda claim: checkpoint(claim.ref, [step(claim)])):
            self.steps[session] += (step(self.owners[session]),)
            self.open_steps.pop(session, None)

    @rule(seconds=st.sampled_from((1, 11, 31)))
    def pass_time(self, seconds: float) -> None:
        self.scratch.clock.now += seconds

    @rule(seconds=st.sampled_from((4_000, 86_400, 10_000_000)))
    def set_clock_ahead(self, seconds: float) -> None:
        """Jump over leases and delays; dedupe keys may have come to their end too, unless the clock was set back."""
        self.scratch.clock.now += seconds
        self.outdated |= self.keys.keys()

    @rule(host=st.sampled_from(("h1", "h2")))
    def lose_hosts(self, host: str) -> None:
        lost = self.run(self.scratch.adopt(host))
        assert lost <= len(self.owners)
        self._forget_lost_owners()

    @rule(seconds=st.sampled_from((1, 40, 86_400, 10_000_000)))
    def set_clock_back(self, seconds: float) -> None:
        self.scratch.clock.now -= seconds

    @rule(host=st.sampled_from(("h1", "h2")))
    def renew(self, host: str) -> None:
        refs = [claim.ref for claim in self.claims]
        lost = self.run(self.scratch.store.claims.renew(host, refs, 30))
        held = [ref for ref in refs if ref not in lost]
        assert all(self.owners[ref.session].ref == ref for ref in held)

    @rule()
    def reopen(self) -> None:
        self.run(self.scratch.open(LIMIT))

    @rule()
    def send(self) -> None:
        for reply in self.run(self.scratch.send_all()):
            assert reply.text == self.answers[reply.session].pop(0)

    @rule(session=st.sampled_from(SESSIONS))
    def delete(self, session: str) -> None:
        if not (self.queues[session] or self.history[session]):
            return
        self.run(self.scratch.store.sessions.delete(session))
        self.queues[session], self.history[session], self.answers[session] = [], [], []
        self.owners.pop(session, None)
        self._forget_turn(session)
        self.used[session] = NOTHING

    def _forget_lost_owners(self) -> None:
        """An owner whose lease ended is none any more once the session was given to nobody."""
        for session in list(self.owners):
            if not self.run(self.scratch.store.sessions.summary(session)).running:
                del self.owners[session]

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.run(self.scratch.store.inbox.waiting()) == sum(map(len, self.queues.values()))
        for session, messages in self.history.items():
            assert list(self.run(self.scratch.store.sessions.conversation(session)).messages) == messages
        self._forget_lost_owners()

    @invariant()
    def no_more_is_held_than_there_is(self) -> None:
        for account in self.run(self.scratch.store.spending.accounts(BUDGETS)):
            assert account.held.tokens <= (account.budget.limit if self.owners else 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_order_of_events_breaks_the_store(engine: str) -> None:
    run_machine(StoreMachine, engine, steps=50)
