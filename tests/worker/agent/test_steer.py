"""Words that join a turn: at its next step, once, and told with the step that took them in."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.journal import StepOpening
from shared.messages import Ended, JoiningWords, OpenStep, Parked, Step, TurnStatus
from tests.worker.agent.scripted import Hang, Recorded, ScriptedModel, asks, decoded, says, unanswered
from worker.agent.models.port import ModelReply
from worker.agent.todo import TodoStore
from worker.agent.turn import Turn
from worker.agent.turn_request import TurnRequest
from worker.tools.toolbox import Toolbox

READ = ("todo", "{}")
TWO, THREE = JoiningWords("msg_2", "two"), JoiningWords("msg_3", "three")


class Steered(Recorded):
    """Gives the turn words at the end of a step, and keeps the openings."""

    def __init__(self, script: dict[int, tuple[JoiningWords, ...]] | None = None) -> None:
        super().__init__()
        self.script = script or {}
        self.openings: list[StepOpening] = []
        self.turn: Turn | None = None

    def step_opened(self, opening: StepOpening) -> None:
        self.openings.append(opening)

    def step_done(self, step: Step) -> None:
        super().step_done(step)
        assert self.turn is not None
        self.turn.steer(self.script.get(step.number, ()))


def make(
    *script: ModelReply | Exception | Hang, steered: Steered | None = None, **request: object
) -> tuple[Turn, ScriptedModel, Steered]:
    model, progress = ScriptedModel(*script), steered or Steered()
    fields = msgspec.structs.replace(TurnRequest("a:b:c", "msg_1", ("one",)), **request)
    progress.turn = Turn(fields, model, Toolbox(), TodoStore(), progress)
    return progress.turn, model, progress


def roles(messages: object) -> list[str]:
    return [message["role"] for message in decoded(messages)]


async def test_words_join_at_the_next_step_and_their_step_names_them() -> None:
    turn, model, progress = make(asks(READ), asks(READ), says("both"), steered=Steered({1: (TWO,), 2: (THREE,)}))
    outcome = await turn.run()
    assert isinstance(outcome, Ended)
    assert [message["content"] for message in decoded(model.requests[1].messages) if message["role"] == "user"] == [
        "one", "two"
    ]  # fmt: skip
    assert roles(turn.messages) == [
        "user", "assistant", "tool", "user", "assistant", "tool", "user", "assistant"
    ]  # fmt: skip
    assert [step.joined for step in progress.steps] == [(), ("msg_2",)]
    assert [opening.joined for opening in progress.openings] == [(), ("msg_2",)]
    assert outcome.joined == ("msg_3",)
    assert roles(outcome.messages) == ["user", "assistant"]


async def test_words_that_come_while_the_last_answer_is_given_do_not_join() -> None:
    turn, model, _ = make(Hang("so far"))
    running = asyncio.create_task(turn.run())
    await model.called.wait()
    turn.steer((TWO,))
    turn.interrupt()
    outcome = await running
    assert isinstance(outcome, Ended)
    assert (outcome.status, outcome.joined) == (TurnStatus.INTERRUPTED, ())
    assert "two" not in str(decoded(outcome.messages))


async def test_words_given_with_the_turn_join_before_its_first_model_call() -> None:
    turn, model, _ = make(says("both"), words=(TWO, THREE))
    outcome = await turn.run()
    assert isinstance(outcome, Ended)
    assert [message["content"] for message in decoded(model.requests[0].messages)] == ["one", "two", "three"]
    assert outcome.joined == ("msg_2", "msg_3")


async def test_words_given_with_the_turn_end_with_it_however_soon_that_is() -> None:
    turn, model, _ = make(says("never"), words=(TWO, THREE))
    turn.interrupt()
    outcome = await turn.run()
    assert isinstance(outcome, Ended)
    assert (outcome.status, outcome.joined, model.requests) == (TurnStatus.INTERRUPTED, ("msg_2", "msg_3"), [])
    assert roles(outcome.messages) == ["user", "user", "user", "assistant"]


async def test_a_model_that_fails_after_words_joined_keeps_them_in_the_turn() -> None:
    turn, _, _ = make(asks(READ), RuntimeError("down"), steered=Steered({1: (TWO,)}))
    outcome = await turn.run()
    assert isinstance(outcome, Ended)
    assert (outcome.status, outcome.joined) == (TurnStatus.FAILED, ("msg_2",))
    assert roles(outcome.messages) == ["user", "assistant"]


async def test_an_open_step_is_finished_before_new_words_join_and_keeps_its_own() -> None:
    first, model, progress = make(asks(READ), asks(READ), says("x"), steered=Steered({1: (TWO,)}))
    await first.run()
    opening = progress.openings[1]
    left = OpenStep(opening.step, opening.messages, opening.usage, joined=opening.joined)
    turn, model, again = make(says("all"), steps=tuple(progress.steps[:1]), open_step=left, words=(THREE,))
    outcome = await turn.run()
    assert isinstance(outcome, Ended)
    assert [step.joined for step in again.steps] == [("msg_2",)]
    assert outcome.joined == ("msg_3",)
    assert [message["content"] for message in decoded(model.requests[0].messages) if message["role"] == "user"] == [
        "one", "two", "three"
    ]  # fmt: skip


@settings(max_examples=40)
@given(
    steps=st.integers(1, 5),
    given_at=st.lists(st.integers(0, 5), max_size=6),
    cut=st.integers(0, 5),
    journal=st.booleans(),
)
def test_wherever_a_turn_is_cut_off_all_words_are_taken_in_once(
    steps: int, given_at: list[int], cut: int, journal: bool
) -> None:
    asyncio.run(run_in_two(steps, given_at, cut, journal=journal))


async def run_in_two(steps: int, given_at: list[int], cut: int, *, journal: bool) -> None:
    """Run a turn to a step, then again from what it told, as a pool that holds its claim would."""
    words = [JoiningWords(f"msg_{number}", f"word {number}") for number in range(10, 10 + len(given_at))]
    script = {step: tuple(word for word, at in zip(words, given_at, strict=True) if at == step) for step in range(1, 6)}
    early = tuple(word for word, at in zip(words, given_at, strict=True) if at == 0)
    answers = [asks(READ) for _ in range(steps)]
    turn, _, progress = make(*answers, says("done"), steered=Steered(script), words=early)
    whole = await turn.run()
    assert isinstance(whole, Ended)
    known = progress.steps[:cut]
    opening = next((one for one in progress.openings if one.step == len(known) + 1), None) if journal else None
    taken = {name for step in known for name in step.joined} | set(opening.joined if opening else ())
    left = OpenStep(opening.step, opening.messages, opening.usage, joined=opening.joined) if opening else None
    came = tuple(word for word, at in zip(words, given_at, strict=True) if at <= len(known) and word.id not in taken)
    later = {step: script[step] for step in script if step > len(known)}
    rest = steps - len(known) - (1 if left else 0)
    again, _, second = make(
        *[asks(READ) for _ in range(rest)], says("done"), steered=Steered(later),
        steps=tuple(known), open_step=left, words=came,
    )  # fmt: skip
    outcome = await again.run()
    assert isinstance(outcome, Ended)
    joined = [name for step in (*known, *second.steps) for name in step.joined] + list(outcome.joined)
    reached = [word.id for word, at in zip(words, given_at, strict=True) if at <= steps]
    assert sorted(joined) == sorted(reached)
    said = [message["content"] for message in decoded(again.messages) if message["role"] == "user"]
    assert sorted(said) == sorted(["one", *(word.text for word in words if word.id in reached)])
    assert unanswered(again.messages) == []


async def test_a_turn_that_parks_leaves_its_words_to_the_next_attempt() -> None:
    turn, _, progress = make(asks(READ), says("x"), steered=Steered({1: (TWO,)}))
    turn.park()
    assert isinstance(await turn.run(), Parked)
    assert progress.steps == []


@pytest.mark.parametrize("text", ["\ud800", ""])
async def test_words_that_no_provider_would_take_are_made_sound(text: str) -> None:
    turn, _, _ = make(says("ok"), words=(JoiningWords("msg_2", text),))
    outcome = await turn.run()
    assert isinstance(outcome, Ended)
    assert outcome.status is TurnStatus.REPLIED
