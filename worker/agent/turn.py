"""One agent turn: steps until a reply.

    run ── step: query (one model call) ── no tool calls ──> Ended(REPLIED)
            ▲                 │ tool calls: the step is open
            └── step done ◄── execute (all of them at once) ◄── a step that an earlier attempt left open

Everything it touches is given to it: the model, the tools, the todo store, the conversation so far. It knows no
channel, no store and no settings, so the worker's child and the library's AIAgent run the same code.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Sequence

import msgspec

from shared.attachments import with_files
from shared.call_options import AnswerFormat
from shared.errors import ContextTooLong, TurnInterrupted, TurnParked
from shared.journal import CallIntent, CallResult, StepOpening
from shared.messages import AwaitsApproval, Ended, JoiningWords, Parked, Step, TurnStatus, Usage
from worker.agent.answer_format import REPAIR, FormatMissed, read_answer
from worker.agent.approval_gate import ApprovalGate, TurnAwaitsApproval
from worker.agent.attachments import with_attachments
from worker.agent.budget_guard import BudgetGuard
from worker.agent.call_request import CallRequest, handed_over
from worker.agent.context import transcript
from worker.agent.context.compaction import Compaction
from worker.agent.context.repair import role_of
from worker.agent.context.window import Window
from worker.agent.cut_offs import CutOffs, nudge
from worker.agent.failure_replies import StepLimitReached, how_it_ended, leaves_unanswered, tools_used
from worker.agent.model_call import ModelCall
from worker.agent.models.failures import EmptyAnswer
from worker.agent.models.port import Model, ModelReply, ModelRequest, finish_of
from worker.agent.progress import TurnNews
from worker.agent.resumed_calls import ResumedCalls
from worker.agent.sanitize import readable_call, sanitize_calls, sanitize_text
from worker.agent.todo import TodoStore
from worker.agent.turn_request import TurnRequest, opening_of
from worker.tools.context import ToolContext
from worker.tools.spec import ToolCall, ToolSpec
from worker.tools.toolbox import Toolbox

#: tool calls of one turn that run at the same time: a thousand of them must not take every thread of the worker
CALLS_AT_ONCE = 16
#: seconds that cancelled tools get to clean up; one that goes on is left behind
CANCEL_GRACE_S = 0.5
#: calls of a model that finds its context too long, each with less of it
CALLS_TO_FIT = 5
#: how much of a turn's remaining time a summary may take
SUMMARY_SHARE = 0.5
INTERRUPTED = "Error: interrupted before this call gave a result; it may or may not have happened."
CUT_NOTE = "\n\n[The answer was cut at the model's output limit.]"


class Turn:
    """One run of the agent over one request; used once, on one loop.

    ``todo`` is changed in place. After the run ``messages`` holds the whole turn, resumed steps and the user's
    message included, ready to follow ``request.history``; ``usage`` is summed over the steps run here; ``window`` is
    what a model is shown, fit to go on from; ``unanswered`` says that no model gave an answer, and one may later.
    """

    def __init__(
        self, request: TurnRequest, model: Model, toolbox: Toolbox, todo: TodoStore, progress: TurnNews | None = None
    ) -> None:
        self._request = request
        self._model = model
        self._toolbox = toolbox
        self._todo = todo
        self._progress = progress or TurnNews()
        opened = request.open_step
        resumes = request.steps or (opened and opened.messages)  # of a call that was cut off there are none
        asked = [] if resumes else list(opening_of(request.texts, request.options, request.attachments))
        self._call = CallRequest(request.options)
        self._system = self._call.system(request.system)
        self.messages = [message for step in request.steps for message in step.messages] + asked
        self.usage = Usage()
        self.unanswered = False
        whole = [*request.history, *self.messages]
        self.window = Window(whole, request.first, request.summary, repaired=request.repaired)
        self._compaction = Compaction(
            self.window,
            model,
            todo,
            request.session,
            spend=self._spend,
            on_made=self._progress.compacted,
            on_failed=self._progress.compaction_failed,
        )
        self._budget = BudgetGuard(request.allowance, self._progress.more, request.product_texts)
        self._number = request.steps[-1].number + 1 if request.steps else 1
        self._step_messages: list[bytes] = asked
        self._step_usage = opened.usage if opened else Usage()
        self._open = ResumedCalls(opened)
        self._gate = ApprovalGate(toolbox, request.approvals, request.product_texts)
        self._words = list(request.words)
        self._joined = opened.joined if opened else ()
        self._partial: list[str] = []
        self._cut_offs = CutOffs()
        self._calling: ModelCall | None = None
        self._slots = asyncio.Semaphore(CALLS_AT_ONCE)
        self._task: asyncio.Task[object] | None = None
        self._ends_at = 0.0
        self._interrupted = self._parked = self._is_let_go = False
        for message in opened.messages if opened else ():
            self._add(message)
        if not resumes:
            self._join()  # the pieces of one thought are the turn's from the beginning, however soon it ends

    async def run(self) -> Ended | Parked | AwaitsApproval:
        """Run to the end and return how it ended.

        The Ended outcome's messages, todo and usage are those of the last step alone: every earlier step went to
        ``progress.step_done``. Model and tool failures, the deadline and interrupts are outcomes, never raised;
        cancelling the task that runs it raises CancelledError.
        """
        self._task = task = asyncio.current_task()
        self._ends_at = asyncio.get_running_loop().time() + self._request.deadline_s
        limit = asyncio.timeout_at(self._ends_at)
        try:
            async with limit:
                return await self._steps()
        except TurnParked:
            return Parked()
        except TurnAwaitsApproval as waits:
            return waits.outcome
        except asyncio.CancelledError:
            if not (self._interrupted or self._is_let_go) or task is None:
                raise
            task.uncancel()
            return self._fail(TurnInterrupted()) if self._interrupted else Parked()
        except Exception as error:  # noqa: BLE001 - the boundary: whatever went wrong becomes the turn's outcome
            if limit.expired() and self._calling is not None and self._calling.failure is not None:
                return self._fail(self._calling.failure)
            return self._fail(error, deadline_passed=limit.expired())
        finally:
            self._task = None

    def _fail(self, error: Exception, *, deadline_passed: bool = False) -> Ended:
        self.unanswered = leaves_unanswered(error) and not deadline_passed
        said, tools = self._request.product_texts, tools_used(self.messages)
        return self._end(*how_it_ended(error, said, deadline_passed=deadline_passed, tools=tools))

    def interrupt(self) -> None:
        """End the turn now, whatever runs: its transcript stays valid. Call it on the turn's loop; may come early."""
        if self._task is not None and not self._interrupted:  # once: what is cancelled cleans up undisturbed
            self._task.cancel()
        self._interrupted = True

    def steer(self, words: Sequence[JoiningWords]) -> None:
        """Let these words join the turn at its next step; if it comes to its end first, they do not."""
        self._words += words

    def park(self) -> None:
        """End the turn as Parked at its next step boundary, unless it comes to its end first."""
        self._parked = True

    def park_now(self) -> bool:
        """Park in the middle of a model call; False if it is in none, or some of an answer has come."""
        silent = self._calling is not None and self._calling.is_silent
        if self._task is None or not silent or self._interrupted or self._is_let_go:
            return False
        self._is_let_go = True
        self._task.cancel()
        return True

    async def _steps(self) -> Ended:
        while self._number <= self._request.step_limit:
            self._stop_at_boundary()
            calls = self._open.asked
            if not calls:
                await self._prepare()
                reply = await self._query()
                if not reply.tool_calls:
                    text, finish = await self._answer(reply)
                    state = reply.state if self._call.format is None else b""
                    return self._end(TurnStatus.REPLIED, text, finish=finish, state=state)
                calls = reply.tool_calls
            own = [call for call in calls if not self._call.is_clients(call)]
            if own:
                self._gate.check(self._number, own)
                await self._execute(own)
            if len(own) < len(calls):
                return self._hand_over([call for call in calls if self._call.is_clients(call)])
            self._finish_step()
        raise StepLimitReached(self._request.step_limit)

    def _stop_at_boundary(self) -> None:
        if self._interrupted:
            raise TurnInterrupted
        if self._parked:
            raise TurnParked

    async def _prepare(self) -> None:
        """Make room in a full window, take in what the sender said meanwhile, and see that the step may be paid for."""
        if self.window.tokens > self._request.window_tokens:
            await self._open_budget()
            await self._make_room(self._request.window_tokens)
            self._stop_at_boundary()
        self._join()
        await self._open_budget()

    async def _open_budget(self) -> None:
        await self._budget.open(self.usage, self.window.tokens, self._system, self._specs())

    def _join(self) -> None:
        """Take in the words that came since the last step; the step tells whose they are."""
        for words in self._words:
            self._add(with_attachments(transcript.user(sanitize_text(words.text)), words.attachments))
        self._joined += tuple(words.id for words in self._words)
        self._words.clear()

    async def _query(self) -> ModelReply:
        """Call the model; what it asks for joins the transcript, its last word does in ``_end``."""
        reply = await self._ask_until_said()
        self._partial.clear()
        calls = sanitize_calls(reply.tool_calls, f"{self._request.message_id}_{self._number}", self.window.shown)
        if calls:
            self._cut_offs.take(reply, calls)
            readable = [readable_call(call) for call in calls]
            self._add(transcript.assistant(sanitize_text(reply.text), readable, reply.state))
            self._progress.step_opened(
                StepOpening(self._number, tuple(self._step_messages), self._step_usage, self._joined)
            )
        return msgspec.structs.replace(reply, tool_calls=calls)

    async def _ask_until_said(self) -> ModelReply:
        """Call the model, and in other words where it said nothing: after a tool, or at its output limit."""
        said: list[bytes] = []
        while True:
            try:
                return await self._ask(*said[-1:])
            except EmptyAnswer as empty:
                said.append(nudge(empty, len(said), after_tool=role_of(self.window.shown[-1]) == "tool"))

    async def _ask(self, *said: bytes) -> ModelReply:
        """Call the model; where it finds its context too long, with less of it: summarized once, then left out."""
        for calls in range(1, CALLS_TO_FIT):
            try:
                return await self._call_model(*said)
            except ContextTooLong:
                tokens, limit = self.window.tokens, self.window.tokens * 3 // 4
                if calls == 1:
                    await self._make_room(limit)
                else:
                    self._compaction.cut(limit, len(self._step_messages))
                if self.window.tokens >= tokens and calls > 1:  # once more all the same: servers change their minds
                    raise
        return await self._call_model(*said)

    async def _make_room(self, limit_tokens: int) -> None:
        left_s = self._ends_at - asyncio.get_running_loop().time()
        with self._progress.waiting("model"):
            await self._compaction.make_room(limit_tokens, len(self._step_messages), left_s * SUMMARY_SHARE)

    def _specs(self) -> tuple[ToolSpec, ...]:
        return self._call.tools(self._toolbox.specs())

    async def _call_model(self, *said: bytes, tools: bool = True) -> ModelReply:
        """Call the model with what it is shown and what else is ``said``; it may ask for no tool without ``tools``."""
        self._partial.clear()
        self._calling = None
        shown, specs = [*self.window.shown, *said], self._specs() if tools else ()
        images = await self._progress.images(shown)
        request = self._call.request(ModelRequest(self._system, shown, specs, self._request.session, images=images))
        # a second more than there is: the turn's own limit ends the call, and tells why
        left_s = 1.0 + self._ends_at - asyncio.get_running_loop().time()
        self._calling = call = ModelCall(self._progress, self._step_usage, self._restart)
        try:
            with self._progress.waiting("model"):
                reply = await self._model.reply(request, self._heard, timeout=left_s, watch=call)
        except BaseException:
            self._spend(call.usage)
            raise
        finally:
            call.is_silent = False
        self._spend(msgspec.structs.replace(reply.usage, model_calls=max(1, reply.usage.model_calls)))
        return reply

    def _restart(self) -> None:
        self._partial.clear()
        self._progress.restarted(self._number)

    def _heard(self, text: str) -> None:
        if self._calling is not None:
            self._calling.failure = None
        self._partial.append(text)
        if self._call.format is None:  # an answer whose form has to be checked is shown when it is right
            self._progress.text(self._number, text)

    async def _answer(self, reply: ModelReply) -> tuple[str, str]:
        """Return the model's last word and why it ended. Raises EmptyAnswer and FormatMissed."""
        finish = finish_of(reply.finish)
        text = _last_word(reply)
        if self._call.format is not None and finish == "stop":
            return await self._in_form(text, self._call.format), finish
        cut = finish == "length" and not self._call.is_api  # a client reads the reason itself
        return text + CUT_NOTE if cut else text, finish

    async def _in_form(self, text: str, form: AnswerFormat) -> str:
        """Return an answer in the form that the client asked for; a model that missed it is asked once more."""
        found, problem = read_answer(text, form)
        if not problem:
            return found
        said = transcript.assistant(text), transcript.user(REPAIR.format(problem=problem))
        again = await self._call_model(*said, tools=False)
        self._partial.clear()
        found, problem = read_answer(_last_word(again), form)
        if problem:
            raise FormatMissed(problem)
        return found

    async def _execute(self, calls: Sequence[ToolCall]) -> None:
        """Run the calls at once; each one's result joins the transcript, an interrupted one's too."""
        tasks = [asyncio.create_task(self._run_call(call)) for call in calls]
        try:
            await asyncio.wait(tasks)
        finally:
            cut_off = await self._cancel(calls, tasks)
            for call, task in zip(calls, tasks, strict=True):
                self._add(_result(call, task))
            self._spend(Usage(tool_calls=len(calls)))
            for call in cut_off:
                self._end_call(call, transcript.tool(call, INTERRUPTED))
        for task in tasks:
            task.result()  # raises what a hook raised, now that the transcript is whole

    async def _run_call(self, call: ToolCall) -> bytes:
        retry_safe = self._toolbox.retry_safe(call.name)
        repeatable = retry_safe and call.name in self._toolbox.names
        message = self._cut_offs.result(call) or self._open.result(call, repeatable=repeatable)
        if message is not None:
            return message
        if refusal := self._gate.refusal(self._number, call):
            message = transcript.tool(call, refusal)
            self._end_call(call, message)
            return message
        context = self._context(call)
        intent = CallIntent(self._number, call.id, call.name, context.idempotency_key)
        results: list[bytes] = []

        def ended(text: str) -> None:
            for image, data in context.attached:
                self._progress.keep_image(image, data)
            for file, data in context.given:
                self._progress.keep_file(file, data)
            shown = with_attachments(transcript.tool(call, text), [image for image, _ in context.attached])
            results.append(with_files(shown, [file for file, _ in context.given]))
            self._end_call(call, results[0])

        async with self._slots:
            await self._progress.begin_call(call, intent, once=not retry_safe)
            with self._progress.waiting(call.name):
                await self._toolbox.call(call, context, ended)
        return results[0]

    def _context(self, call: ToolCall) -> ToolContext:
        asked, say = self._request, functools.partial(self._progress.tool_said, call)
        return ToolContext(asked.session, asked.message_id, call.id, self._todo, say, self._number)

    def _end_call(self, call: ToolCall, message: bytes) -> None:
        todo = self._todo.to_bytes() if self._todo.changed else None
        self._progress.end_call(call, CallResult(self._number, call.id, message, todo))

    async def _cancel(self, calls: Sequence[ToolCall], tasks: Sequence[asyncio.Task[bytes]]) -> list[ToolCall]:
        """End the calls that still run, and return those that gave no result; one that will not end is left behind."""
        running = {task: call for call, task in zip(calls, tasks, strict=True) if not task.done()}
        for task in running:
            task.cancel()
        if running:
            await _undisturbed(asyncio.create_task(asyncio.wait(running, timeout=CANCEL_GRACE_S)))
        for task in running:
            if not task.done():
                self._toolbox.leave_behind(running[task], self._request.session, task)
        return [call for task, call in running.items() if not _gave_result(task)]

    def _finish_step(self) -> None:
        step = Step(self._number, tuple(self._step_messages), self._todo.take_change(), self._step_usage, self._joined)
        self._number += 1
        self._open = ResumedCalls()
        self._step_messages.clear()
        self._step_usage = Usage()
        self._joined = ()
        self._progress.step_done(step)

    def _hand_over(self, calls: Sequence[ToolCall]) -> Ended:
        """End the turn with the calls that the client is to run; their results come with its next message."""
        asked = next(message for message in reversed(self._step_messages) if b'"assistant"' in message)
        return Ended(
            TurnStatus.REPLIED,
            transcript.read(asked).content or "",
            tuple(self._step_messages),
            self._todo.take_change(),
            self._step_usage,
            joined=self._joined,
            summary=self._compaction.made,
            finish="tool_calls",
            calls=handed_over(calls),
        )

    def _end(self, status: TurnStatus, text: str, error: str = "", finish: str = "", state: bytes = b"") -> Ended:
        """End the turn: the transcript ends with what the sender is told, after what the model had begun to say."""
        begun = sanitize_text("".join(self._partial)).strip()
        self._add(transcript.assistant(f"{begun}\n\n{text}" if begun else text, (), state))
        todo = self._todo.take_change()
        return Ended(
            status,
            text,
            tuple(self._step_messages),
            todo,
            self._step_usage,
            error=error,
            joined=self._joined,
            summary=self._compaction.made,
            finish=finish,
        )

    def _add(self, message: bytes) -> None:
        self.messages.append(message)
        self._step_messages.append(message)
        self.window.add(message)

    def _spend(self, usage: Usage) -> None:
        self.usage += usage
        self._step_usage += usage


async def _undisturbed(ending: asyncio.Task[object]) -> None:
    """Wait for the end of what a cancelled turn still has to do, however often it is cancelled meanwhile."""
    while not ending.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({ending})


def _result(call: ToolCall, task: asyncio.Task[bytes]) -> bytes:
    return task.result() if _gave_result(task) else transcript.tool(call, INTERRUPTED)


def _gave_result(task: asyncio.Task[bytes]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _last_word(reply: ModelReply) -> str:
    """Return the model's last word. Raises EmptyAnswer."""
    text = sanitize_text(reply.text).strip()
    if not text:
        raise EmptyAnswer(f"{reply.provider}:{reply.model} gave an empty answer ({reply.finish})")
    return text
