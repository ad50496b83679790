"""One turn as a worker's child runs it: its conversation from the cache or the host, its progress as frames."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

import msgspec

from shared.attachments import Attachment
from shared.budgets import Allowance, Spend
from shared.errors import FrameTooLarge, TurnInterrupted, TurnParked
from shared.events import Event
from shared.journal import CallIntent, CallResult, StepOpening
from shared.messages import (
    AwaitsApproval,
    Dead,
    DeadKind,
    Ended,
    JoiningWords,
    Outcome,
    Parked,
    Step,
    Summary,
    TurnStatus,
    is_stateless,
)
from shared.usage import Usage
from worker.agent.attachments import attached_to
from worker.agent.context import transcript
from worker.agent.delta_stream import DeltaStream
from worker.agent.equipment import Equipment
from worker.agent.failure_replies import how_it_ended
from worker.agent.pool_channel import PoolChannel
from worker.agent.progress import TurnNews
from worker.agent.session_cache import CachedSession
from worker.agent.todo import TodoStore
from worker.agent.turn import Turn
from worker.agent.turn_log import TurnLog
from worker.agent.turn_request import TurnRequest, opening_of
from worker.agent.turn_wait import TurnWait
from worker.frames import (
    AttachmentData,
    Compacted,
    History,
    KeepAttachment,
    ModelAway,
    NeedAllowance,
    NeedAttachment,
    NeedHistory,
    RunTurn,
    StepDone,
    StepOpened,
    ToolEnded,
    ToolSaid,
    ToolStarted,
    TurnDone,
)
from worker.tools.spec import ToolCall

#: seconds between two tellings of how far the tools of one turn are, and characters of one
SAID_INTERVAL_S = 0.1
SAID_LIMIT_CHARS = 500


class _Known(msgspec.Struct, frozen=True):
    """The conversation before a turn; ``todo`` is the turn's own to change."""

    messages: tuple[bytes, ...]
    first: int
    summary: Summary | None
    todo: TodoStore
    repaired: bool


class TurnRunner(TurnNews):
    """Runs one RunTurn frame to its TurnDone frame, on the child's loop."""

    def __init__(self, frame: RunTurn, equipment: Equipment, pool: PoolChannel) -> None:
        self._frame = frame
        self._equipment = equipment
        self._agent = equipment.agent(frame.profile)
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + frame.deadline_s
        self._history: asyncio.Future[History] = self._loop.create_future()
        self._turn: Turn | None = None
        self._too_large: FrameTooLarge | None = None
        self._steps_sent = len(frame.steps)
        self._interrupted = False
        self._parked = False
        self._keeps_nothing = is_stateless(frame.session)
        self._allowance: asyncio.Future[Allowance] | None = None
        self._early_words = frame.words
        self._unkept: dict[str, asyncio.Future[None]] = {}
        self._awaited: dict[str, asyncio.Future[bytes | None]] = {}
        self._said: ToolSaid | None = None
        self._said_timer: asyncio.TimerHandle | None = None
        self._said_sent_at = 0.0
        self._wait = TurnWait(frame.turn, pool)
        self._log = TurnLog(frame, equipment.log, is_kept=not self._keeps_nothing)
        self._deltas = DeltaStream(frame.turn, pool, is_read=frame.stream)

    async def run(self) -> None:
        """Run the turn and send how it ended; never raises."""
        try:
            outcome = await self._outcome()
        except BaseException as error:  # noqa: BLE001
            # the boundary: what is wrong with one turn is settled with it; a tool may cancel every task there is
            outcome = self._failed(error)
        if self._too_large is not None:
            outcome = self._failed(self._too_large)
        self._deltas.flush(last=True)
        if self._said_timer is not None:
            self._said_timer.cancel()
        self._keep(outcome)
        self._send_done(outcome)

    def interrupt(self) -> None:
        """End the turn now; the sender asked for it."""
        self._interrupted = True
        self._history.cancel()
        if self._turn is not None:
            self._turn.interrupt()

    def steer(self, words: tuple[JoiningWords, ...]) -> None:
        """Let these words join the turn at its next step."""
        if self._turn is not None:
            self._turn.steer(words)
        else:
            self._early_words += words

    @property
    def session(self) -> str:
        """Key of its session."""
        return self._frame.session

    def forget(self) -> None:
        """Keep nothing of the turn: its session was deleted."""
        self._keeps_nothing = True
        self._log.forget()

    def park(self) -> None:
        """End the turn as parked at its next step boundary."""
        self._parked = True
        self._history.cancel()
        if self._turn is not None:
            self._turn.park()

    def park_now(self) -> None:
        """Park in the middle of a model call of which nothing was heard; where it is too late for that, say so."""
        if self._turn is None or not self._turn.park_now():
            self._wait.tell_again()

    def take_history(self, history: History) -> None:
        """Take the conversation that this turn asked for."""
        if not self._history.done():
            self._history.set_result(history)

    def take_attachment(self, frame: AttachmentData) -> None:
        """Take the bytes of an image that this turn asked for."""
        if frame.data is not None:
            self._equipment.attachments.put(self._frame.session, frame.digest, frame.data)
        if (waiting := self._awaited.get(frame.digest)) and not waiting.done():
            waiting.set_result(frame.data)

    def take_allowance(self, allowance: Allowance) -> None:
        """Take what this turn may use of the budgets, which it asked for."""
        if self._allowance is not None and not self._allowance.done():
            self._allowance.set_result(allowance)

    def take_intent_kept(self, call_id: str) -> None:
        """Let a tool call begin that had to wait until its intent was committed."""
        waiting = self._unkept.get(call_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def _outcome(self) -> Ended | Parked | AwaitsApproval | Dead:
        known = self._recall() or await self._ask_host()
        if known is None:
            return Parked()
        latest = next((step.todo for step in reversed(self._frame.steps) if step.todo is not None), None)
        todo = known.todo if latest is None else TodoStore.from_bytes(latest)  # that one is kept with its step
        opened = self._frame.open_step
        if opened is not None and opened.todo is not None:
            todo.restore(opened.todo)
        request = self._request(known)
        self._turn = Turn(request, self._agent.model, self._agent.toolbox, todo, self)
        if self._interrupted:
            self._turn.interrupt()
        if self._parked:
            self._turn.park()
        outcome = await self._turn.run()
        if isinstance(outcome, Ended) and self._turn.unanswered:
            # nothing of it joins the history: it is answered as if it came anew, once an operator has it tried again
            attempts = self._frame.attempt + 1
            error, usage = self._pool.clean(outcome.error), outcome.usage
            return Dead(attempts, error, outcome.text, usage=usage, kind=DeadKind.MODEL)
        if isinstance(outcome, Ended) and not self._keeps_nothing:
            window = self._turn.window
            kept = todo.taken()  # what the outcome says, whatever a call that was given up still writes
            # the calls that the client is to run have their results with its next message, or never
            repaired = window.repaired and not outcome.calls
            cached = CachedSession(window.messages, kept, window.first, window.summary, repaired=repaired)
            self._equipment.cache.put(self._frame.session, self._frame.epoch, cached)
        return outcome

    def _recall(self) -> _Known | None:
        cached = self._equipment.cache.get(self._frame.session, self._frame.version)
        if cached is None and not self._frame.version:
            return _Known((), 0, None, TodoStore(), repaired=False)  # a new session: there is nothing to ask for
        if cached is None:
            return None
        return _Known(cached.messages, cached.first, cached.summary, cached.todo, cached.repaired)

    async def _ask_host(self) -> _Known | None:
        """Ask for the conversation; None if the session has moved on, so that this claim is stale, or in a drain.

        Raises TurnInterrupted and TimeoutError.
        """
        if not self._history.cancelled():
            self._pool.send(NeedHistory(self._frame.turn))
        try:
            async with asyncio.timeout_at(self._ends_at):
                history = await self._history
        except asyncio.CancelledError:
            if self._interrupted:
                raise TurnInterrupted("stopped before its conversation was here") from None
            if self._parked:
                return None
            raise
        if history.version != self._frame.version:
            return None
        return _Known(history.messages, history.first, history.summary, _todo_of(history), repaired=False)

    def _request(self, known: _Known) -> TurnRequest:
        frame = self._frame
        return TurnRequest(
            product_texts=self._agent.texts,
            session=frame.session,
            message_id=frame.message_id,
            texts=frame.texts,
            history=known.messages,
            first=known.first,
            summary=known.summary,
            repaired=known.repaired,
            steps=frame.steps,
            open_step=frame.open_step,
            words=self._early_words,
            attachments=frame.attachments,
            approvals=None if is_stateless(frame.session) else frame.approvals,
            system=self._agent.system_prompt,
            deadline_s=self._ends_at - self._loop.time(),
            allowance=frame.allowance,
            options=frame.options,
            window_tokens=self._agent.context_tokens,
        )

    def text(self, step: int, text: str) -> None:
        """Send text, if anybody reads along."""
        self._deltas.add(step, text)

    def restarted(self, step: int) -> None:
        """Send that the step's text begins again."""
        self._deltas.restart(step)

    def model_away(self, model: str, problem: str) -> None:
        """Send that no model can answer now."""
        self._pool.send(ModelAway(self._frame.turn, model, self._pool.clean(problem)))

    @contextlib.contextmanager
    def waiting(self, waits_for: str) -> Iterator[None]:
        """Tell the pool that the turn waits, unless it goes on very soon."""
        if self._equipment.page is not None and self._equipment.page.fenced:
            raise TurnParked  # another host may run this turn by now
        with self._wait.waiting(waits_for):
            yield

    def call_sent(self, usage: Usage) -> None:
        """Tell the pool what the step has used if the call is cut off, once the turn has waited for a while."""
        self._wait.call_sent(usage)

    async def more(self, used: Spend, wanted: Spend) -> Allowance:
        """Ask the host to hold more of the budgets."""
        self._allowance = self._loop.create_future()
        self._pool.send(NeedAllowance(self._frame.turn, used, wanted))
        return await self._allowance

    async def images(self, messages: Sequence[bytes]) -> dict[str, bytes]:
        """Return the images of these messages, from the cache or the host."""
        digests = dict.fromkeys(one.digest for message in messages for one in attached_to(message))
        found = {digest: await self._image(digest) for digest in digests}
        return {digest: data for digest, data in found.items() if data is not None}

    async def _image(self, digest: str) -> bytes | None:
        if (held := self._equipment.attachments.get(self._frame.session, digest)) is not None:
            return held
        if digest not in self._awaited:  # what the host does not have either is asked for once
            self._awaited[digest] = self._loop.create_future()
            self._pool.send(NeedAttachment(self._frame.turn, digest))
        return await asyncio.shield(self._awaited[digest])

    def keep_image(self, image: Attachment, data: bytes) -> None:
        """Send an image of a tool's result, for later turns."""
        self._equipment.attachments.put(self._frame.session, image.digest, data)
        self._pool.send(KeepAttachment(self._frame.turn, image.digest, data))

    def keep_file(self, file: Attachment, data: bytes) -> None:
        """Send a file for the chat."""
        self._pool.send(KeepAttachment(self._frame.turn, file.digest, data))

    def step_opened(self, opening: StepOpening) -> None:
        """Send what the model asked for: a later attempt makes these calls, and does not ask again."""
        self._deltas.flush()
        self._send(StepOpened(self._frame.turn, opening))

    async def begin_call(self, call: ToolCall, intent: CallIntent, *, once: bool) -> None:
        """Send the intent of a tool call; return once it has left, or for a call to be made once, is committed."""
        self._deltas.flush()
        self._send(ToolStarted(self._frame.turn, intent, once))
        if once:
            await self._until_kept(call.id)
        else:
            await self._pool.left()

    async def _until_kept(self, call_id: str) -> None:
        self._unkept[call_id] = self._loop.create_future()
        try:
            await self._unkept[call_id]
        finally:
            del self._unkept[call_id]

    def tool_said(self, call: ToolCall, text: str) -> None:
        """Send how far a tool is, of what it tells in quick succession the last."""
        self._said = ToolSaid(self._frame.turn, call.name, self._pool.clean(text)[:SAID_LIMIT_CHARS])
        if self._said_timer is None:
            due = max(self._loop.time(), self._said_sent_at + SAID_INTERVAL_S)
            self._said_timer = self._loop.call_at(due, self._send_said)

    def _send_said(self) -> None:
        self._said_timer = None
        if self._said is not None and not self._pool.full:
            self._pool.send(self._said)
        self._said, self._said_sent_at = None, self._loop.time()

    def end_call(self, call: ToolCall, result: CallResult) -> None:  # noqa: ARG002 (TurnNews's)
        """Send the result of a tool call."""
        self._send(ToolEnded(self._frame.turn, result))

    def step_done(self, step: Step) -> None:
        """Send a finished step, and log it."""
        self._deltas.flush()
        self._send(StepDone(self._frame.turn, step))
        self._steps_sent += 1
        self._log.messages(step.messages)

    def compacted(self, summary: Summary) -> None:
        """Send the summary, so that nobody has to make it again, and log it."""
        self._send(Compacted(self._frame.turn, summary))
        names = {"session": self._frame.session, "message": self._frame.message_id}
        self._pool.emit(Event.CONTEXT_COMPACTED, **names, covers=summary.covers, characters=len(summary.text))
        self._log.compacted(summary)

    def compaction_failed(self, problem: str) -> None:
        """Say that the older part of the conversation is left out, and why."""
        names = {"session": self._frame.session, "message": self._frame.message_id}
        self._pool.emit(Event.CONTEXT_CUT, **names, problem=problem)

    def _send(self, frame: Compacted | StepOpened | ToolStarted | ToolEnded | StepDone) -> None:
        """Send a frame of the step; one that is too large ends the turn."""
        try:
            self._pool.send(frame)
        except FrameTooLarge as error:
            self._too_large = error
            raise

    def _keep(self, outcome: Outcome) -> None:
        """Bring the log and the cache in line with how the turn ended."""
        match outcome:
            case Ended():
                self._log.messages(outcome.messages)
                self._log.ended(outcome, self._pool.clean(outcome.error), self._turn.usage if self._turn else None)
            case _:
                self._equipment.cache.forget(self._frame.session)

    def _send_done(self, outcome: Outcome) -> None:
        if isinstance(outcome, Ended):
            outcome = msgspec.structs.replace(outcome, error=self._pool.clean(outcome.error))
        try:
            self._pool.send(TurnDone(self._frame.turn, outcome))
        except FrameTooLarge as error:
            self._equipment.cache.forget(self._frame.session)
            self._pool.send(TurnDone(self._frame.turn, self._failed(error)))

    def _failed(self, error: BaseException) -> Ended:
        """Return a failed end that says only what the sender asked and was told."""
        self._equipment.cache.forget(self._frame.session)
        status, text, seen = how_it_ended(error, self._agent.texts, deadline_passed=self._loop.time() >= self._ends_at)
        if isinstance(error, FrameTooLarge):
            status, text = TurnStatus.FAILED, self._agent.texts.turn_too_large
        asked = () if self._steps_sent else opening_of(self._frame.texts, self._frame.options)
        return Ended(status, text, (*asked, transcript.assistant(text)), error=self._pool.clean(seen))


def _todo_of(history: History) -> TodoStore:
    """Return the todo store of a session: its own list, or where it never had one, what its history shows."""
    if history.todo is not None or not (history.messages or history.summary):
        return TodoStore.from_bytes(history.todo)
    if history.summary is None:
        return TodoStore.adopted(history.messages)
    todo = TodoStore()
    todo.restore(history.summary.todo)  # an attempt that was cut off has looked, and what it saw is covered by now
    return todo
