"""A turn this host holds the claim of: what it has done so far, and where it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import msgspec

from shared.attachments import Attachment
from shared.budgets import Spend
from shared.journal import CallIntent, CallResult, StepOpening
from shared.messages import (
    Claim,
    ClaimRef,
    Dead,
    DeadKind,
    Ended,
    JoiningWords,
    OpenStep,
    Pending,
    Step,
    TurnStatus,
)
from shared.texts import ENGLISH, Texts
from shared.usage import NOTHING, Usage
from worker.frames import RunTurn
from worker.pool.processes.worker_process import WorkerProcess
from worker.pool.turns.crash_policy import RanTurn, latest_todo

#: what a turn waits for that a model is to answer
MODEL = "model"


class TurnRow(msgspec.Struct, frozen=True):
    """A turn that runs now, as it looks from outside."""

    #: the message it answers
    message_id: str
    #: key of its session
    session: str
    #: number of the worker's slot, None while it waits for one
    worker: int | None
    #: unix seconds, 0 while it waits for a slot
    started_at: float
    #: the step it is in, from 1
    step: int
    #: the tool it began last in this step, empty for none
    tool: str
    #: past executions that ended by its own fault
    attempt: int
    #: what a tool of this step told last of how far it is, empty for nothing
    said: str = ""
    #: ``model`` or the name of a tool while it waits for that, else empty
    waits_for: str = ""
    #: how long it has waited for that, in seconds
    waited_s: float = 0.0
    #: name of the profile that holds for it, empty for none
    profile: str = ""


@dataclass(slots=True, eq=False)
class ActiveTurn:
    """One claimed turn; owned by the pool."""

    #: names it to the worker
    number: int
    #: the messages it answers
    claim: Claim
    #: all finished steps, those of earlier attempts first
    steps: list[Step] = field(init=False)
    #: what is known of the step it is in the middle of
    open_step: Step | None = field(init=False)
    #: the session's list as the turn has left it so far, None if it has not touched it
    todo: bytes | None = field(init=False)
    #: where it runs, None while it waits
    worker: WorkerProcess | None = None
    #: name of the profile that holds for it, empty for none
    profile: str = ""
    #: what the product says to its sender
    texts: Texts = ENGLISH
    #: when its first worker was given it, unix seconds: its time runs on while it rests
    started_at: float = 0.0
    #: the same on the monotonic clock
    started_mono: float = 0.0
    #: when its sender stopped it, on the monotonic clock
    interrupted_mono: float | None = None
    #: whether it goes on though it heard that its time is over
    overdue: bool = False
    #: whether it has ended or is lost: what it still says is stale
    over: bool = False
    #: the tool it began last in this step
    tool: str = ""
    #: what a tool of this step told last of how far it is
    said: str = ""
    #: ``model`` or the name of a tool while it waits for that
    waits_for: str = ""
    #: since when, on the monotonic clock
    waits_since_mono: float = 0.0
    #: how long it waited for the last answer of this step, in seconds
    answer_s: float = 0.0
    #: what its step has used if the model call under way is cut off
    at_stake: Usage = NOTHING
    #: why no model can answer it now, empty while one may
    model_away: str = ""
    #: whether its worker was told to let it go in the middle of a model call, and how often it was let go
    let_go: bool = False
    rests: int = 0
    #: ids of the tool calls in progress
    calls: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.steps = list(self.claim.steps)
        left = self.claim.open_step
        self.open_step = (
            Step(left.number, left.messages + left.results, left.todo, left.usage, left.joined) if left else None
        )
        self.todo = left.todo if left and left.todo is not None else latest_todo(self.steps)

    @property
    def ref(self) -> ClaimRef:
        return self.claim.ref

    @property
    def session(self) -> str:
        return self.claim.ref.session

    @property
    def message_id(self) -> str:
        return self.claim.messages[0].id

    @property
    def begun(self) -> tuple[Step, ...]:
        """The finished steps, then what is known of the one it is in."""
        return (*self.steps, self.open_step) if self.open_step else tuple(self.steps)

    @property
    def attempts(self) -> int:
        return self.claim.messages[0].attempts

    def begin(self, worker: WorkerProcess, deadline_s: float) -> RunTurn:
        """Note that it runs in this worker now; return the frame that says so."""
        now = time.monotonic()
        self.worker = worker
        if not self.started_mono:
            self.started_at, self.started_mono = time.time(), now
        self.calls.clear()
        self.go_on()
        self.let_go = False
        return RunTurn(
            turn=self.number,
            session=self.session,
            epoch=self.ref.epoch,
            version=self.claim.version,
            message_id=self.message_id,
            texts=(self.claim.messages[0].text,),
            steps=tuple(self.steps),
            deadline_s=deadline_s - (now - self.started_mono),
            attempt=self.attempts,
            stream=True,
            traceparent=self.claim.messages[0].traceparent,
            open_step=self.claim.open_step,
            allowance=self.claim.allowance,
            attachments=fetched(self.claim.messages[0]),
            approvals=self.claim.approvals,
            words=self._words_to_join(),
            options=self.claim.messages[0].options,
            profile=self.profile,
        )

    def interrupt(self) -> None:
        """Note that it is to end now."""
        self.interrupted_mono = time.monotonic()

    def take_joined(self, messages: tuple[Pending, ...]) -> None:
        """Note that these messages joined its claim."""
        self.claim = msgspec.structs.replace(self.claim, messages=self.claim.messages + messages)

    @property
    def unfetched(self) -> list[Pending]:
        """The messages with files that are still at their platform, of which no step has told the model."""
        taken = {message_id for step in self.begun for message_id in step.joined}
        if self.steps or (self.open_step and self.open_step.messages):
            taken.add(self.message_id)
        return [
            one for one in self.claim.messages if one.id not in taken and any(file.source for file in one.attachments)
        ]

    def replace(self, message: Pending) -> None:
        """Take a message with the files that it came with."""
        messages = tuple(message if one.id == message.id else one for one in self.claim.messages)
        self.claim = msgspec.structs.replace(self.claim, messages=messages)

    def words_of(self, joined: tuple[Pending, ...]) -> tuple[JoiningWords, ...]:
        """Return the words of messages that joined it, with their files."""
        ids = {one.id for one in joined}
        return tuple(JoiningWords(one.id, one.text, fetched(one)) for one in self.claim.messages if one.id in ids)

    def _words_to_join(self) -> tuple[JoiningWords, ...]:
        """Return the words that joined the claim and that no step has taken in."""
        taken = {message_id for step in self.begun for message_id in step.joined}
        return tuple(
            JoiningWords(one.id, one.text, fetched(one)) for one in self.claim.messages[1:] if one.id not in taken
        )

    def open(self, opening: StepOpening) -> None:
        """Note that a step has begun."""
        self.open_step = Step(opening.step, opening.messages, None, opening.usage, opening.joined)
        self.at_stake = NOTHING

    def start_call(self, intent: CallIntent) -> None:
        """Note that a tool call begins."""
        self.tool = intent.name
        self.said = ""
        self.calls.add(intent.call_id)

    def take_result(self, result: CallResult) -> None:
        """Note what a tool call of the open step gave."""
        self.calls.discard(result.call_id)
        step = self.open_step
        if step is not None and step.number == result.step:
            todo = step.todo if result.todo is None else result.todo
            self.open_step = msgspec.structs.replace(step, messages=(*step.messages, result.message), todo=todo)

    def wait(self, waits_for: str, usage: Usage = NOTHING) -> None:
        """Note that it waits, what for, and what its step has used if the call under way is cut off."""
        if waits_for != self.waits_for:
            self.waits_for, self.waits_since_mono = waits_for, time.monotonic()
        if usage != NOTHING:
            self.at_stake = usage

    def wait_anew(self) -> None:
        """Count what it waits for from now on: some of that has come."""
        self.waits_since_mono = time.monotonic()

    @property
    def waited_s(self) -> float:
        """How long it has waited for what it waits for, in seconds."""
        return time.monotonic() - self.waits_since_mono if self.waits_for else 0.0

    def go_on(self) -> None:
        """Note that it waits no more."""
        if self.waits_for == MODEL:
            self.answer_s = self.waited_s
        self.waits_for = self.model_away = ""

    def cut_off(self) -> StepOpening | None:
        """Note that its execution ended; return what the model call under way has used, None where there was none.

        The next attempt is told that with the step, so that it is charged for.
        """
        usage, self.at_stake = self.at_stake, NOTHING
        if usage == NOTHING:
            return None
        left = self.open_step
        number = len(self.steps) and self.steps[-1].number
        opened = left if left is not None and left.number > number else Step(number + 1, ())
        self.open_step = msgspec.structs.replace(opened, usage=usage)
        return StepOpening(opened.number, opened.messages, usage, opened.joined)

    def rest(self, opening: StepOpening | None) -> None:
        """Note that it was let go in the middle of a model call; it goes on in any worker, inside its time."""
        self.worker = None
        self.rests += 1
        self.waits_for = ""
        kept = OpenStep(opening.step, opening.messages, opening.usage, (), None, opening.joined) if opening else None
        self.claim = msgspec.structs.replace(self.claim, open_step=kept, approvals=())

    @property
    def kept_bytes(self) -> int:
        """About how much memory it takes here."""
        messages = sum(len(one.text) for one in self.claim.messages)
        return messages + sum(len(message) for step in self.steps for message in step.messages)

    def finish(self, step: Step) -> None:
        """Note that a step is finished."""
        self.steps.append(step)
        self.open_step = None
        self.at_stake = NOTHING
        self.answer_s = 0.0
        self.tool = ""
        self.calls.clear()

    def whole(self, last: Ended, worker: str) -> Ended:
        """Return the outcome of all steps together, given that of the last one."""
        return msgspec.structs.replace(
            last,
            messages=tuple(message for step in self.steps for message in step.messages) + last.messages,
            todo=last.todo if last.todo is not None else latest_todo(self.steps),
            usage=sum((step.usage for step in self.steps), last.usage),
            worker=worker,
            joined=tuple(message_id for step in self.steps for message_id in step.joined) + last.joined,
        )

    def over_budget(self) -> Ended | None:
        """Return the outcome of a turn for which nothing is left of a budget, None if it may run."""
        allowance = self.claim.allowance
        if allowance is None or allowance.refusal is None or allowance.covers(Spend()):
            return None
        text, error = allowance.refusal.text(time.time(), self.texts), allowance.refusal.error
        return self._unrun(TurnStatus.OVER_BUDGET, text, error, also_joined=self._words_to_join())

    def out_of_time(self) -> Ended | Dead:
        """Return the outcome of a turn whose time ended while it rested."""
        last = self._unrun(TurnStatus.TIMED_OUT, self.texts.turn_too_long, "turn timeout")
        if not self.model_away:
            return last
        return Dead(self.attempts + 1, self.model_away, self.texts.model_away, usage=last.usage, kind=DeadKind.MODEL)

    def stopped(self, text: str) -> Ended:
        """Return the outcome of a turn that is to end before any worker has it."""
        return self._unrun(TurnStatus.INTERRUPTED, text, also_joined=self._words_to_join())

    def too_large(self, error: str, worker: str) -> Ended:
        """Return the outcome of a turn that cannot be given to a worker; words that no step took in wait again."""
        return self._unrun(TurnStatus.FAILED, self.texts.conversation_too_large, error, worker)

    def _unrun(
        self,
        status: TurnStatus,
        text: str,
        error: str = "",
        worker: str = "",
        also_joined: tuple[JoiningWords, ...] = (),
    ) -> Ended:
        """Return the outcome of a turn that ends without being run, with what earlier attempts did.

        JoiningWords that ``also_joined``, the pieces of one thought, end with it and have no turns of their own.
        """
        left = self.open_step or Step(0, ())
        joined = left.joined + tuple(words.id for words in also_joined)
        last = Ended(status, text, left.messages, left.todo, left.usage, error=error, joined=joined)
        return self.whole(last, worker)

    def ran(self) -> RanTurn:
        """Return what the verdict on its worker's death has to know."""
        interrupted = self.interrupted_mono is not None
        message = self.claim.messages[0]
        return RanTurn(
            self.number,
            self.attempts,
            self.begun,
            interrupted=interrupted,
            overdue=self.overdue,
            calling=bool(self.calls),
            suspect=message.suspect,
            lost=message.lost,
            texts=self.texts,
        )

    def row(self) -> TurnRow:
        """Return how it looks from outside."""
        return TurnRow(
            message_id=self.message_id,
            session=self.session,
            worker=self.worker.n if self.worker else None,
            started_at=self.started_at,
            step=len(self.steps) + 1,
            tool=self.tool,
            attempt=self.attempts,
            said=self.said,
            waits_for=self.waits_for,
            waited_s=self.waited_s,
            profile=self.profile,
        )


def fetched(message: Pending) -> tuple[Attachment, ...]:
    """Return the images of a message whose bytes are in the store."""
    return tuple(one for one in message.attachments if not one.source)
