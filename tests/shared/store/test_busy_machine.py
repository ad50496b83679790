"""Any order of messages in every mode, commands, joins, settles, lost hosts and restarts: each message ends once."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shared.command import CommandKind
from shared.errors import StaleClaim
from shared.messages import Claim, CommandAnswer, Conversation, Dead, MessageState, Outcome, Parked, Retry, TurnStatus
from shared.when_busy import WhenBusy
from tests.shared.store.scratch import ENGINES, Scratch, ended, run_machine

T = TypeVar("T")

SESSION = "a:b:1"
STATUSES = (TurnStatus.REPLIED, TurnStatus.INTERRUPTED, TurnStatus.FAILED)
LOSSES: tuple[Outcome, ...] = (
    Parked(),
    Retry(0, 1, suspect=False, error="died"),
    Retry(3, 1, suspect=True, error="died"),
)


class BusyMachine(RuleBasedStateMachine):
    """Drives one session; the model is what was accepted, in order, and how each of it ended."""

    engine: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp())
        self.scratch = Scratch(ENGINES[self.engine], self.directory)
        self.run(self.scratch.open())
        self.left: list[str] = []  # accepted and not ended, in order
        self.replies: dict[str, int] = {}  # how many each ended one is to get
        self.claim: Claim | None = None
        self.in_turn: list[str] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        """Whatever happened, all that waits is claimed and answered in the end, once."""
        for number in range(3 * len(self.left) + 6):
            self.scratch.clock.now += 70
            self.take_claim(suspects=bool(number % 2))
            self.settle(TurnStatus.REPLIED, 9)
        assert self.left == []
        sent = Counter(reply.message_id for reply in self.run(self.scratch.send_all()))
        assert sent == Counter({message: count for message, count in self.replies.items() if count})
        for message in self.replies:
            assert self.run(self.scratch.store.inbox.trace(message)).state is not MessageState.WAITING
        self.run(self.scratch.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    def end(self, message: str, replies: int = 1) -> None:
        self.left.remove(message)
        self.replies[message] = replies

    def end_all(self, told: tuple[CommandAnswer, ...]) -> None:
        for one in told:
            self.end(one.message_id)

    def conversation(self) -> Conversation:
        return self.run(self.scratch.store.sessions.conversation(SESSION))

    @rule(mode=st.sampled_from(WhenBusy), quiet_s=st.sampled_from((0.0, 5.0)), user=st.sampled_from(("ann", "bob")))
    def accept(self, mode: WhenBusy, quiet_s: float, user: str) -> None:
        arrival = self.scratch.arrival(SESSION, when_busy=mode, busy_text="busy", quiet_s=quiet_s, user=user)
        rested = not self.left
        receipt = self.run(self.scratch.store.inbox.accept(arrival))
        self.left.append(arrival.id)
        if receipt.state is MessageState.REJECTED:
            assert mode is WhenBusy.REJECT
            assert not rested
            self.end(arrival.id)
        assert not receipt.stops or receipt.stops == self.left[0]

    @rule(kind=st.sampled_from(CommandKind))
    def order(self, kind: CommandKind) -> None:
        before = self.conversation()
        receipt = self.run(self.scratch.order(kind, SESSION))
        self.left.append(receipt.message_id)
        self.end_all(receipt.withdrawn)
        if receipt.state is MessageState.DONE:
            self.end(receipt.message_id)
        assert not receipt.stops or receipt.stops == self.left[0]
        after = self.conversation()
        assert (after.messages, after.todo) == (before.messages, before.todo) or after.version > before.version

    @rule(suspects=st.booleans())
    def take_claim(self, suspects: bool) -> None:
        for claim in self.run(self.scratch.store.claims.claim("h1", 10, 30, suspects=suspects)).claims:
            self.claim, self.in_turn = claim, [message.id for message in claim.messages]
            assert self.in_turn == self.left[: len(self.in_turn)]

    @rule()
    def join(self) -> None:
        if self.claim is None:
            return
        try:
            self.in_turn += [one.id for one in self.run(self.scratch.store.claims.join(self.claim.ref))]
        except StaleClaim:
            self.claim = None
        else:
            assert self.in_turn == self.left[: len(self.in_turn)]

    @rule(status=st.sampled_from(STATUSES), taken=st.integers(0, 9))
    def settle(self, status: TurnStatus, taken: int) -> None:
        """End the turn; it took in only the first of what joined it."""
        joined = self.in_turn[1 : 1 + taken]
        message = self.in_turn[0].encode() if self.in_turn else b""
        outcome = ended("text", status=status, messages=(message,), todo=b'["%s"]' % message, joined=tuple(joined))
        self.finish(outcome, joined)

    @rule(outcome=st.sampled_from(LOSSES))
    def lose(self, outcome: Outcome) -> None:
        self.finish(outcome, [])

    @rule()
    def bury(self) -> None:
        self.finish(Dead(3, "died", "sorry"), [])

    def finish(self, outcome: Outcome, joined: list[str]) -> None:
        claim, self.claim = self.claim, None
        if claim is None:
            return
        try:
            settlement = self.run(self.scratch.store.claims.settle(claim.ref, outcome))
        except StaleClaim:
            return
        if not isinstance(outcome, Parked | Retry):
            self.end(self.in_turn[0])
            for message in joined:
                self.end(message, replies=0)
        self.end_all(settlement.answers)

    @rule(seconds=st.sampled_from((1, 6, 31)))
    def pass_time(self, seconds: float) -> None:
        self.scratch.clock.now += seconds

    @rule()
    def reopen(self) -> None:
        self.run(self.scratch.open())
        self.run(self.scratch.adopt("h2"))

    @invariant()
    def what_has_not_ended_waits(self) -> None:
        assert self.run(self.scratch.store.inbox.waiting()) == len(self.left)


@pytest.mark.parametrize("engine", ENGINES)
def test_each_message_of_a_busy_session_ends_once(engine: str) -> None:
    run_machine(BusyMachine, engine, steps=40)
