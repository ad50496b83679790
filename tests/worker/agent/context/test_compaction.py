"""What happens when a window fills: one model call, or the plain cut, and never an invalid transcript."""

from __future__ import annotations

import asyncio
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from shared.errors import ContextTooLong, ModelRejected, ModelUnavailable
from shared.messages import Parked, Summary, TurnStatus
from tests.worker.agent.scripted import Hang, Recorded, ScriptedModel, asks, decoded, ended, says
from worker.agent.context import transcript
from worker.agent.context.compaction import summary_request
from worker.agent.context.prompts import ASKED, CONVERSATION, EARLIER, INSTRUCTION, LEFT_OUT, LISTED
from worker.agent.context.window import Window
from worker.agent.models.port import ModelReply
from worker.agent.todo import TodoStore
from worker.agent.turn import CALLS_TO_FIT, Turn
from worker.agent.turn_request import TurnRequest
from worker.tools import tool
from worker.tools.spec import ToolCall
from worker.tools.toolbox import Toolbox

LIMIT = 2000
MILK = b'[{"id":"1","content":"buy milk","status":"pending"}]'
LONG = tuple(
    make(f"{word} {number} " + "x" * 380)
    for number in range(10)
    for make, word in ((transcript.user, "question"), (transcript.assistant, "answer"))
)


class Kept(Recorded):
    """Keeps what a turn tells of its window as well."""

    def __init__(self) -> None:
        super().__init__()
        self.summaries: list[Summary] = []
        self.failures: list[str] = []

    def compacted(self, summary: Summary) -> None:
        self.summaries.append(summary)

    def compaction_failed(self, problem: str) -> None:
        self.failures.append(problem)


@pytest.fixture(scope="module")
def toolbox() -> Iterator[Toolbox]:
    module = types.ModuleType("library")

    @tool
    async def read(letters: int) -> str:
        return "r" * letters

    module.read = read  # type: ignore[attr-defined]
    sys.modules["library"] = module
    made = Toolbox(["library"])
    yield made
    made.close()
    del sys.modules["library"]


def make_turn(
    toolbox: Toolbox, *script: ModelReply | Exception | Hang, todo: TodoStore | None = None, **request: Any
) -> tuple[Turn, ScriptedModel, Kept]:
    model, progress = ScriptedModel(*script), Kept()
    fields = TurnRequest("a:b:c", "msg_1", ("hello",), history=LONG, window_tokens=LIMIT)
    turn = Turn(msgspec.structs.replace(fields, **request), model, toolbox, todo or TodoStore(), progress)
    return turn, model, progress


async def test_a_full_window_is_summarized_once_and_the_turn_keeps_its_whole_transcript(toolbox: Toolbox) -> None:
    todo = TodoStore.from_bytes(MILK)
    turn, model, progress = make_turn(toolbox, says("They asked ten questions."), says("done"), todo=todo, system="be")
    outcome = await ended(turn)
    asked, answered = model.requests
    assert (asked.system, asked.tools) == (INSTRUCTION, ())
    (told,) = decoded(asked.messages)
    assert told["content"].startswith(f"{CONVERSATION}\n\nUser: question 0 x")
    (summary,) = progress.summaries
    assert summary == Summary(11, "They asked ten questions.", MILK, decoded(LONG)[10]["content"])
    shown = decoded(answered.messages)
    assert "They asked ten questions." in shown[0]["content"]
    assert f"{LISTED}\n\n- id 1, pending: buy milk" in shown[0]["content"]
    assert list(answered.messages[-len(LONG) + summary.covers - 1 :]) == [
        *LONG[summary.covers :],
        transcript.user("hello"),
    ]
    assert (answered.system, answered.tools) == ("be", toolbox.specs())
    assert decoded(outcome.messages) == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "done"},
    ]
    assert outcome.summary == summary
    assert outcome.usage.model_calls == turn.usage.model_calls == 2
    assert turn.window.tokens <= LIMIT


async def test_the_next_turns_pay_nothing_and_send_the_same_bytes_until_the_window_fills_again(
    toolbox: Toolbox,
) -> None:
    turn, model, _ = make_turn(toolbox, says("summary 1"), says("done"))
    summary = (await ended(turn)).summary
    assert summary is not None
    transcript_so_far = [*LONG, *turn.messages]
    prefix = list(model.requests[1].messages)
    for number in range(2):  # one goes on with the window it has, the other reads what the store has
        window = turn.window
        known: dict[str, Any] = {"history": tuple(window.messages), "first": window.first, "summary": window.summary}
        if number:
            known = {"history": tuple(transcript_so_far[summary.covers :]), "first": summary.covers, "summary": summary}
        later, model, progress = make_turn(toolbox, says("again"), **known)
        await ended(later)
        assert progress.summaries == []
        assert list(model.requests[0].messages[: len(prefix)]) == prefix


async def test_a_later_summary_folds_the_earlier_one_in(toolbox: Toolbox) -> None:
    turn, model, progress = make_turn(
        toolbox, says("summary 2"), says("done"), first=30, summary=Summary(30, "summary 1", MILK)
    )
    await ended(turn)
    told = decoded(model.requests[0].messages)[0]["content"]
    assert told.startswith(f"{EARLIER}\n\nsummary 1\n\n{CONVERSATION}\n\n")
    assert "buy milk" not in told
    assert progress.summaries[0].text == "summary 2"
    assert progress.summaries[0].covers > 30
    assert progress.summaries[0].todo == b"[]"


@pytest.mark.parametrize(
    "failure",
    [
        ModelUnavailable("503"),
        ModelRejected("no"),
        TimeoutError("silent"),
        ContextTooLong("that too"),
        says("  "),
        says("I cannot help with that.", finish="refusal"),
        asks(("todo", "{}")),
    ],
    ids=["unavailable", "rejected", "silent", "too long", "empty", "refused", "tool call"],
)
async def test_a_summary_that_fails_is_told_and_the_older_part_left_out(
    toolbox: Toolbox, failure: Exception | ModelReply
) -> None:
    todo = TodoStore.from_bytes(MILK)
    turn, model, progress = make_turn(toolbox, failure, says("done"), todo=todo)
    outcome = await ended(turn)
    assert outcome.text == "done"
    assert outcome.summary is None
    assert progress.summaries == []
    assert len(progress.failures) == 1
    assert len(model.requests) == 2
    head = decoded(model.requests[1].messages)[0]["content"]
    assert head.startswith(LEFT_OUT)
    assert "buy milk" in head
    assert turn.window.tokens <= LIMIT
    assert outcome.usage.model_calls == (2 if isinstance(failure, ModelReply) else 1)


async def test_a_plain_cut_keeps_the_earlier_summary(toolbox: Toolbox) -> None:
    turn, model, _ = make_turn(
        toolbox, ModelUnavailable("503"), says("done"), first=30, summary=Summary(30, "summary 1")
    )
    await ended(turn)
    assert "summary 1" in decoded(model.requests[1].messages)[0]["content"]


async def test_a_long_turn_is_summarized_between_its_steps_and_keeps_what_was_asked(toolbox: Toolbox) -> None:
    read = asks(("read", '{"letters": 3000}'))
    turn, model, progress = make_turn(
        toolbox, read, read, read, says("read twice"), says("done"), history=(), texts=("find it", "please")
    )
    outcome = await ended(turn)
    (summary,) = progress.summaries
    assert summary.asked == "find it\n\nplease"
    assert outcome.summary == summary
    last = model.requests[-1].messages
    assert ASKED in decoded(last)[0]["content"]
    assert [message["role"] for message in decoded(last)] == ["user", "assistant", "tool"]
    assert len(progress.steps) == 3
    covered = [message for step in progress.steps for message in step.messages][: summary.covers]
    assert covered == turn.messages[: summary.covers]
    assert turn.usage.model_calls == 5


async def test_a_resumed_turn_does_not_pay_for_the_summary_again(toolbox: Toolbox) -> None:
    read = asks(("read", '{"letters": 3000}'))
    whole, model, progress = make_turn(toolbox, read, read, read, says("so far"), says("done"), history=LONG[:2])
    expected = await ended(whole)
    (summary,) = progress.summaries
    assert summary.covers > 2  # it covers steps of the turn itself
    resumed, again, _ = make_turn(
        toolbox, says("done"), history=(), first=2, summary=summary, steps=tuple(progress.steps)
    )
    assert (await ended(resumed)).text == expected.text
    assert again.requests[0].messages == model.requests[-1].messages
    assert resumed.messages == whole.messages


async def test_the_question_and_an_open_step_are_never_covered(toolbox: Toolbox) -> None:
    texts = tuple(f"part {number} " + "q" * 4000 for number in range(4))
    turn, model, progress = make_turn(toolbox, says("summary"), says("done"), texts=texts)
    await ended(turn)
    assert progress.summaries[0].covers == len(LONG)
    shown = decoded(model.requests[-1].messages)
    assert [message["content"] for message in shown if message["role"] == "user"][1:] == list(texts)
    alone, model, progress = make_turn(toolbox, says("done"), texts=texts, history=())
    assert (await ended(alone)).text == "done"
    assert len(model.requests) == 1


async def test_an_interrupt_in_a_compaction_ends_the_turn_at_once_with_a_valid_transcript(toolbox: Toolbox) -> None:
    turn, model, progress = make_turn(toolbox, Hang("half a summ"))
    running = asyncio.create_task(ended(turn))
    await model.called.wait()
    started = time.monotonic()
    turn.interrupt()
    outcome = await running
    assert time.monotonic() - started < 5
    assert (outcome.status, outcome.text, outcome.summary) == (TurnStatus.INTERRUPTED, "Stopped.", None)
    assert decoded(outcome.messages) == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Stopped."},
    ]
    assert model.cancelled == 1
    assert (progress.summaries, progress.failures, progress.texts) == ([], [], [])
    assert turn.window.messages == [*LONG, *turn.messages]


async def test_a_turn_that_is_parked_in_a_compaction_keeps_the_summary_and_asks_nothing_more(toolbox: Toolbox) -> None:
    turn, model, progress = make_turn(toolbox, says("summary"))
    turn.park()
    assert isinstance(await turn.run(), Parked)
    assert model.requests == []
    turn, model, progress = make_turn(toolbox, says("summary"))
    running = asyncio.create_task(turn.run())
    while not model.requests:  # noqa: ASYNC110 - one round of the loop is what it takes
        await asyncio.sleep(0)
    turn.park()
    assert isinstance(await running, Parked)
    assert [summary.text for summary in progress.summaries] == ["summary"]
    assert len(model.requests) == 1


async def test_a_model_that_is_silent_leaves_time_for_the_turn(toolbox: Toolbox) -> None:
    turn, model, _ = make_turn(toolbox, says("summary"), says("done"), deadline_s=10.0)
    seen: list[float] = []
    reply = model.reply

    async def timed(request: object, on_text: object = None, *, timeout: float = 300.0, **watch: Any) -> ModelReply:
        seen.append(timeout)
        return await reply(request, on_text, timeout=timeout, **watch)  # type: ignore[arg-type]

    model.reply = timed  # type: ignore[method-assign]
    await ended(turn)
    assert 4 < seen[0] <= 5


async def test_a_context_that_the_provider_finds_too_long_is_summarized_then_cut(toolbox: Toolbox) -> None:
    too_long = ContextTooLong("too long")
    plenty: dict[str, Any] = {"window_tokens": 100_000}
    turn, model, progress = make_turn(toolbox, too_long, says("summary"), says("fits"), **plenty)
    assert (await ended(turn)).text == "fits"
    sizes = [len(b"".join(request.messages)) for request in model.requests]
    assert sizes[2] < sizes[0] / 2
    assert progress.summaries[0].text == "summary"
    assert model.requests[2].messages[-1] == transcript.user("hello")
    turn, model, progress = make_turn(toolbox, too_long, says("summary"), too_long, too_long, says("fits"), **plenty)
    assert (await ended(turn)).text == "fits"
    assert len(progress.summaries) == 1
    assert "summary" in decoded(model.requests[-1].messages)[0]["content"]
    turn, model, _ = make_turn(toolbox, *[too_long] * 20, **plenty)
    assert "too long for the model" in (await ended(turn)).text
    assert len(model.requests) <= CALLS_TO_FIT + 1


async def test_the_list_is_told_as_it_is_at_the_time_of_the_summary(toolbox: Toolbox) -> None:
    add = '{"todos": [{"id": "7", "content": "water the plants"}]}'
    turn, model, progress = make_turn(
        toolbox,
        asks(("todo", add), ("read", '{"letters": 5000}')),
        says("summary"),
        asks(("todo", '{"todos": []}')),
        says("done"),
        history=LONG[:8],
    )
    await ended(turn)
    assert "water the plants" in decoded(model.requests[2].messages)[0]["content"]
    assert b"water the plants" in progress.summaries[0].todo
    told = decoded(model.requests[1].messages)[0]["content"]
    assert "water the plants" not in told


def test_a_request_for_a_summary_is_bounded_and_holds_the_newest() -> None:
    call = ToolCall("a", "fetch", '{"url": "' + "u" * 5000 + '"}')
    history = [
        transcript.user("first " + "x" * 100_000),
        *(transcript.assistant(f"{n} " + "y" * 3000) for n in range(20)),
        transcript.assistant("", [call]),
        transcript.tool(call, "z" * 50_000),
        b"not JSON",
        b'{"role":"user","content":[{"type":"text","text":"in parts"},{"type":"image_url"}]}',
        b'{"role":"assistant","content":7,"tool_calls":null}',
        transcript.user("the last one"),
    ]
    request = summary_request(Window(history), len(history) - 1, 5000, "a:b:c")
    text = decoded(request.messages)[0]["content"]
    assert len(text) < 21_000
    assert "first" not in text
    assert "19 yyy" in text
    assert "[calls fetch" in text
    assert "Result of fetch: zzz" in text
    assert text.endswith("User: in parts")
    assert 256 <= (request.max_tokens or 0) <= 2048
